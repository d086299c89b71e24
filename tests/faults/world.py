"""A small pipeline over a real database, runs of it in processes that can be killed, and what must hold afterwards.

`torture` kills runs by the thousand; see scripts/torture.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import psycopg
import pymysql
import pytest
from polars.testing import assert_frame_equal

import engine.landing.extract
from engine import Pipeline, RunReport, run_pipeline, steps
from engine.errors import MaestroError
from engine.history import collect_files, verify_files
from engine.ledger import Ledger
from engine.plan import compile_plan
from tests.servers import mariadb, postgres, proxy

T = datetime(2025, 10, 4, tzinfo=UTC)
DAY = timedelta(days=1)
AS_OF = (T, T + DAY)
NAME = "faults"
CHUNK = 60  # rows
READERS = ("postgres", "mysql", "sqlite")

# --- databases ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Database:
    """A database of one ``kind``, for the test's own statements; ``url`` leads there without a detour."""

    kind: str
    url: str

    def connect(self) -> Any:
        """A connection of the test's own driver; a statement is committed at once."""
        parts = urlsplit(self.url)
        if self.kind == "postgres":
            return psycopg.connect(self.url, autocommit=True, options="-c timezone=UTC")
        if self.kind == "mariadb":
            return pymysql.connect(
                host=parts.hostname, port=parts.port or 0, user=unquote(parts.username or ""),
                password=unquote(parts.password or ""), database=parts.path[1:], autocommit=True,
                init_command="SET time_zone = '+00:00', sql_mode = ''",
            )  # fmt: skip
        return sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A cursor of a connection of its own."""
        connection = self.connect()
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def execute(self, *statements: str) -> None:
        with self.session() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.session() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        mark = "?" if self.kind == "sqlite" else "%s"
        with self.session() as cursor:
            cursor.executemany(f"INSERT INTO {table} VALUES ({', '.join([mark] * len(rows[0]))})", rows)

    @property
    def moment(self) -> str:
        """The type of a moment."""
        return {"postgres": "timestamptz", "mariadb": "TIMESTAMP(6) NULL", "sqlite": "TEXT"}[self.kind]

    @property
    def real(self) -> str:
        return "DOUBLE PRECISION" if self.kind == "postgres" else "DOUBLE"


def in_file(path: Path) -> Database:
    """A new SQLite file whose readers need not wait for writers."""
    path.unlink(missing_ok=True)
    database = Database("sqlite", f"sqlite:///{path}")
    database.execute("PRAGMA journal_mode = WAL")
    return database


def on_server(server: postgres.Postgres | mariadb.MariaDB, name: str) -> Database:
    """A new database of a server."""
    kind = "postgres" if isinstance(server, postgres.Postgres) else "mariadb"
    there = Database(kind, server.url)
    if kind == "postgres":
        there.execute("SET client_min_messages = error", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        there.execute(f"CREATE DATABASE {name}")
    else:
        there.execute(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return Database(kind, server.url.replace(f"/{postgres.DATABASE}", f"/{name}"))


def plain(rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Sorted, and moments as naive UTC: what a database says and what has landed are then equal."""
    return sorted(
        (
            tuple(v.astimezone(UTC).replace(tzinfo=None) if isinstance(v, datetime) and v.tzinfo else v for v in row)
            for row in rows
        ),
        key=repr,
    )


# --- the pipeline -------------------------------------------------------------------------------------------------


def fill(database: Database) -> None:
    """Three tables, whose rows spread over several pieces each."""
    text = "VARCHAR(400)"
    database.execute(
        f"CREATE TABLE users (user_id INTEGER PRIMARY KEY, email {text}, experience_years {database.real}, "
        f"updated_at {database.moment})",
        f"CREATE TABLE activities (id INTEGER PRIMARY KEY, user_id INTEGER, timestamp {database.moment}, "
        f"task_type {text}, completion_time {database.real})",
        f"CREATE TABLE tasks (task_id INTEGER PRIMARY KEY, description {text}, estimated_hours {database.real})",
    )
    database.insert("users", [user(i, 0) for i in range(150)])
    database.insert("activities", [activity(i) for i in range(400)])
    database.insert("tasks", [task(i, 0) for i in range(600)])
    if database.kind == "postgres":
        database.execute("ANALYZE")


def user(i: int, version: int) -> tuple[Any, ...]:
    at = T - 9 * DAY + timedelta(minutes=i, hours=version)
    return i, f"u{i}.{version}@example.com", None if i % 7 == 3 else float(i % 40) + version / 8, moment(at)


def activity(i: int) -> tuple[Any, ...]:
    kind = None if i % 50 == 7 else ("backend", "devops", "docs")[i % 3]
    return i, i % 150, moment(T - 40 * DAY + timedelta(hours=i % 1000)), kind, 60.0 * (i % 97) + 0.5


def task(i: int, version: int) -> tuple[Any, ...]:
    return i, f"task {i}.{version} " + "x" * (i % 300), i / 8


def moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def now() -> str:
    """For a cursor, whose values must not lie before what was committed."""
    return moment(datetime.now(UTC))


def change(database: Database, random_: random.Random) -> None:
    """New, changed and deleted rows, one statement each: those who read may do so between any two."""
    with database.session() as cursor:
        for statement in changes(cursor, random_):
            with suppress(psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                cursor.execute(statement)


def changes(cursor: Any, random_: random.Random) -> Iterator[str]:
    cursor.execute("SELECT coalesce(max(id), 0) FROM activities")
    first = cursor.fetchone()[0] + 1

    def row(values: Sequence[Any]) -> str:
        return ", ".join("NULL" if v is None else repr(v) for v in values)

    for i in range(first, first + random_.randrange(1, 30)):
        yield f"INSERT INTO activities VALUES ({row(activity(i))})"
    for _ in range(random_.randrange(1, 6)):
        number, email = random_.randrange(150), f"v{random_.random()}"
        yield f"UPDATE users SET email = '{email}', updated_at = '{now()}' WHERE user_id = {number}"
    gone = random_.randrange(150)
    yield f"DELETE FROM users WHERE user_id = {gone}"
    if random_.random() < 0.7:
        yield f"INSERT INTO users VALUES ({row((gone, 'back@example.com', None, now()))})"
    low = random_.randrange(600)
    yield f"UPDATE tasks SET description = 'changed', estimated_hours = {random_.random()} WHERE task_id = {low}"
    yield f"DELETE FROM tasks WHERE task_id = {random_.randrange(600)}"


def pipeline(
    folder: Path, url: str, *, fits: bool = True, feast: bool = False, longest: float = 5_000, **sections: Any
) -> Pipeline:
    """Over `fill`'s tables, in every mode.

    Args:
        fits: whether values depend on what earlier runs have pinned.
        longest: activities beyond it are set aside.
    """
    values = {} if fits else {"handle_missing": "keep", "normalize": False}
    reached = {"type": "database", "connection_string": url}
    whole: dict[str, Any] = {
        "sources": {
            "tasks": {**reached, "table": "tasks"},
            "users": {
                **(reached | {"table": "users", "cursor": "updated_at", "mode": "merge"}),
                "deduplicate": {"keys": ["user_id"]},
            },
            "activities": {
                **(reached | {"table": "activities", "cursor": "id", "mode": "append"}),
                "critical_columns": ["task_type"],
            },
        },
        "validation": {
            "users": {"required_columns": ["user_id", "email"], "unique_columns": ["user_id"]},
            "activities": {
                "unique_columns": ["id"],
                "range_constraints": {"completion_time": [0, longest]},
                "on_violation": {"range": "quarantine"},
            },
        },
        "features": {"user_features": values, "task_features": {"handle_missing": "keep", "normalize": False}},
    }
    if feast:
        whole["feast"] = {"repo": "./feature_repo", "project": "faults", "materialize": True}
    return Pipeline(base=folder, name=NAME, **(whole | sections))


# --- runs ---------------------------------------------------------------------------------------------------------


def settle(patch: pytest.MonkeyPatch, rows: int = CHUNK, grace: float = 1.0) -> None:
    """Pieces of so many rows, of MySQL with digests, short grace periods, no pauses between attempts."""
    for name in READERS:
        importlib.import_module(f"engine.sources.{name}")
    for name, module in list(sys.modules.items()):
        for constant, value in (("CHUNK_ROWS", rows), ("GRACE_SECONDS", grace), ("DIGEST_ROWS", 0)):
            if name.startswith("engine.sources.") and hasattr(module, constant):
                patch.setattr(module, constant, value)
    patch.setattr(engine.landing.extract, "random", types.SimpleNamespace(uniform=lambda *_: 0.0))


@dataclass(frozen=True)
class Order:
    """A run in a process of its own.

    Attributes:
        die_at: the step at whose n-th time it kills itself; ``*`` is any step.
    """

    folder: Path
    url: str
    die_at: tuple[str, int] | None = None
    as_of: Sequence[datetime] = AS_OF
    fits: bool = True
    feast: bool = False

    @property
    def log(self) -> Path:
        """The steps it has made, one a line; it may have made no more than one that is not there."""
        return self.folder / "steps.log"

    def run(self) -> RunReport:
        """In this process."""
        return run_pipeline(pipeline(self.folder, self.url, fits=self.fits, feast=self.feast), as_of=self.as_of)

    def steps(self) -> Counter[str]:
        return Counter(self.log.read_text().split())


def drive(order: Order) -> None:
    """What the process does; exits with 3 where the engine says that it failed."""
    settle(pytest.MonkeyPatch())
    made: Counter[str] = Counter()

    with order.log.open("w", buffering=1) as log:

        def heard(step: str) -> None:
            made.update((step, "*"))
            log.write(f"{step}\n")
            if order.die_at and made[order.die_at[0]] == order.die_at[1]:
                os.kill(os.getpid(), signal.SIGKILL)

        steps.listener = heard
        try:
            order.run()
        except MaestroError as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(error.exit_code) from None


def start(order: Order) -> Any:
    """The process of an order, begun; from a server that has the slow imports done that start no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sqlalchemy.dialects.sqlite", "pydantic", "psycopg", "pymysql", "duckdb"])
    process = context.Process(target=drive, args=(order,), daemon=True)
    process.start()
    return process


def ended(process: Any, seconds: float = 120) -> int:
    """Its exit code; -9 if it was killed."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the run did not end within {seconds} s")
    code: int = process.exitcode
    return code


def in_process(order: Order) -> int:
    return ended(start(order))


# --- what must hold -----------------------------------------------------------------------------------------------


def landed(folder: Path, source: str) -> list[tuple[Any, ...]]:
    """The rows of a source's newest table, and those in quarantine."""
    with Ledger(folder / ".maestro") as ledger:
        table = ledger.table(NAME, source)
    assert table is not None
    rows = pl.scan_parquet([folder / ".maestro" / f.path for f in table.files], glob=False).collect().rows()
    return [*rows, *(row[:-1] for row in held(folder, source))]


def held(folder: Path, source: str) -> list[tuple[Any, ...]]:
    """The rows of a source in quarantine, with their reasons."""
    with Ledger(folder / ".maestro") as ledger:
        entries = [e for e in ledger.quarantined(NAME) if (e.source, e.state) == (source, "held")]
    return [row for e in entries for row in pl.read_parquet((folder / ".maestro" / e.file.path).read_bytes()).rows()]


def published(folder: Path, view: str) -> pl.DataFrame:
    """All published rows of a view, by as-of and key, the wall-clock column aside."""
    files = [path.read_bytes() for path in (folder / "features" / view).rglob("*.parquet")]
    frame = pl.concat(map(pl.read_parquet, files))
    return frame.drop("created_timestamp").sort("event_timestamp", frame.columns[0])


def contents(folder: Path) -> dict[str, bytes]:
    """All published files, byte by byte."""
    root = folder / "features"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def named(folder: Path) -> set[str]:
    """The landed and the quarantined files that the ledger names, relative to the workdir."""
    uri = f"file:{folder / '.maestro' / 'ledger.db'}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=30)
    try:
        with connection:  # one moment
            connection.execute("BEGIN")
            query = (
                "SELECT path FROM files UNION SELECT path FROM quarantine WHERE state IN ('held', 'mended', 'dropped')"
            )
            files = {path for (path,) in connection.execute(query)}
            pieces = connection.execute("SELECT files FROM pieces UNION SELECT quarantined FROM pieces")
            return files | {file["path"] for (text,) in pieces for file in json.loads(text)}
    finally:
        connection.close()


def differences(folder: Path, database: Database, whole: Path | None = None, sources: Sequence[str] = ()) -> list[str]:
    """What is not as it must be after a run that came to its end; compared with a run that was never killed."""
    found = []
    for source in sources or ("tasks", "users", "activities"):
        have, want = plain(landed(folder, source)), plain(database.rows(f"SELECT * FROM {source}"))
        if have != want:
            lost, more = Counter(want) - Counter(have), Counter(have) - Counter(want)
            found.append(f"{source}: {lost.total()} lost {list(lost)[:3]}, {more.total()} too many {list(more)[:3]}")
    plan = compile_plan(pipeline(folder, database.url), AS_OF, history=False)
    found += [f"verify: {d.belongs_to} {d.path} {d.what}" for d in verify_files(plan).damage]
    collected = collect_files(plan, None)
    if collected.files:
        found.append(f"gc dropped {collected.files} files after a whole run")
    folders = (plan.landing, plan.quarantine)
    there = {p.relative_to(plan.workdir).as_posix() for f in folders for p in f.rglob("*") if p.is_file()}
    if there != named(folder):
        found.append(f"unnamed {there - named(folder)}, missing {named(folder) - there}")
    if left := [p.name for p in folder.glob(".features.staging*")]:
        found.append(f"left behind: {left}")
    if whole is not None:
        if sorted(contents(folder)) != sorted(contents(whole)):
            found.append(f"published files: {sorted(set(contents(folder)) ^ set(contents(whole)))}")
        for view in ("user_features", "task_features"):
            try:
                assert_frame_equal(published(folder, view), published(whole, view), rel_tol=1e-9, abs_tol=0)
            except AssertionError as error:
                found.append(f"{view}: {error}")
    return found


@dataclass
class Watching:
    """Reads, over and over, every published file, and every landed one that the ledger names.

    Attributes:
        polls: rounds so far.
        files: files read whole so far.
        wrong: what could not be read.
    """

    folder: Path
    polls: int = 0
    files: int = 0
    wrong: list[str] = field(default_factory=list)

    def __enter__(self) -> Watching:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.03):
            try:
                self._poll()
            except Exception as error:  # noqa: BLE001 - it is the test's
                self.wrong.append(f"the watcher failed: {error!r}")
                return

    def _poll(self) -> None:
        for path in (self.folder / "features").rglob("*"):
            if path.is_file():
                self._read(path, lambda path: path.exists())
        workdir = self.folder / ".maestro"
        if (workdir / "ledger.db").exists():
            with suppress(sqlite3.OperationalError):  # its tables are being made
                for name in named(self.folder):
                    self._read(workdir / name, lambda path: path.relative_to(workdir).as_posix() in named(self.folder))
        self.polls += 1

    def _read(self, path: Path, must_exist: Callable[[Path], bool]) -> None:
        try:
            pl.read_parquet(path.read_bytes())
        except FileNotFoundError:
            if path.suffix != ".parquet" or must_exist(path):
                self.wrong.append(f"{path} is named, and gone")
        except Exception as error:  # noqa: BLE001 - whatever it is, the file is not whole
            self.wrong.append(f"{path}: {error!r}")
        else:
            self.files += 1


# --- random kills -------------------------------------------------------------------------------------------------


@dataclass
class Killing:
    """Runs of one pipeline killed at random, while its tables change.

    Attributes:
        between: what a killed run had last done; how often.
        by: what killed it; how often.
        ended: runs that came to their end before they could be killed.
        wrong: what was not as it must be.
    """

    database: Database
    folder: Path
    random_: random.Random
    proxy: proxy.Proxy | None = None
    between: Counter[str] = field(default_factory=Counter)
    by: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    checks: int = 0
    watched: int = 0
    wrong: list[str] = field(default_factory=list)

    def run(self, kills: int, by: Sequence[str] = ("step", "step", "bytes", "clock")) -> None:
        """So many kills, a check after every few of them and in the end."""
        self.folder.mkdir()
        order = Order(self.folder, self._url, fits=False)
        while self.by.total() < kills:
            with Watching(self.folder) as watching:
                for _ in range(min(self.random_.randrange(2, 7), kills - self.by.total())):
                    self._kill(order, self.random_.choice(by))
                # MariaDB's ranges are of their own moments: one that had landed may be older than a change.
                for _ in range(2 if self.database.kind == "mariadb" else 1):
                    if code := in_process(order):
                        self.wrong.append(f"a run that nothing disturbed exits with {code}")
                        return
            self.watched += watching.files
            self.wrong += watching.wrong
            self._check()
            if self.wrong:
                return

    @property
    def _url(self) -> str:
        return self.proxy.url(self.database.url) if self.proxy else self.database.url

    def _kill(self, order: Order, by: str) -> None:
        if by == "bytes" and self.proxy is None:
            by = "step"
        killed: list[Any] = []

        def kill() -> None:
            if killed:
                killed[0].kill()

        if by == "step":
            order = replace(order, die_at=("*", self.random_.randrange(1, 45)))
        if by == "bytes" and self.proxy is not None:
            self.proxy.on_bytes(self.random_.choice([0, 100, 5_000, self.random_.randrange(60_000, 150_000)]), kill)
        process = start(order)
        killed.append(process)
        timer = threading.Timer(self.random_.uniform(0.3, 2.0), kill)
        if by == "clock":
            timer.start()
        change(self.database, self.random_)
        code = ended(process)
        timer.cancel()
        if self.proxy is not None:
            self.proxy.clear()
        if code == -signal.SIGKILL:
            self.by[by] += 1
            made = order.log.read_text().split() if order.log.exists() else []
            self.between[made[-1] if made else "(nothing)"] += 1
        elif code in (0, 3):
            self.ended += 1
        else:
            self.wrong.append(f"a run exits with {code}")

    def _check(self) -> None:
        """Against the tables, and against a run in a new folder."""
        self.checks += 1
        with tempfile.TemporaryDirectory(prefix="maestro-whole-") as name:
            if code := in_process(Order(Path(name), self.database.url, fits=False)):
                self.wrong.append(f"a first run exits with {code}")
                return
            self.wrong += differences(self.folder, self.database, Path(name))


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[tuple[Database, proxy.Proxy | None]]:
    """A database of a kind; a server behind a proxy."""
    if kind == "sqlite":
        yield in_file(folder / "app.db"), None
        return
    with (
        postgres.running() if kind == "postgres" else mariadb.running() as server,
        proxy.running(server.port) as between,
    ):
        yield on_server(server, "torture"), between


def torture(arguments: Sequence[str] | None = None) -> int:
    """The command scripts/torture; 1 where anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description="Kills runs at random, and looks for damage.")
    parser.add_argument("kills", metavar="N", type=int, nargs="?", default=1000, help="default: 1000")
    parser.add_argument("--database", choices=["postgres", "mariadb", "sqlite"], default="postgres")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="maestro-torture-") as name:
        folder = Path(name)
        with serving(options.database, folder) as (database, between):
            fill(database)
            killing = Killing(database, folder / "run", random.Random(options.seed), between)
            with suppress(KeyboardInterrupt):  # it says what it has found so far
                killing.run(options.kills)
    out = sys.stdout.write
    out(f"{killing.by.total()} runs killed ({', '.join(f'{n} by {by}' for by, n in sorted(killing.by.items()))}), ")
    out(f"{killing.ended} ended before; {killing.checks} checks; {killing.watched} files read meanwhile\n")
    for step in ("(nothing)", *steps.STEPS):
        out(f"  {killing.between[step]:6}  killed after {step}\n")
    for line in killing.wrong:
        out(f"WRONG: {line}\n")
    out("nothing was lost, doubled or torn\n" if not killing.wrong else f"seed {options.seed}\n")
    return 1 if killing.wrong else 0

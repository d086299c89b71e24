"""Others write while a run reads: sums stay what they are, and no row that is committed late is missed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from engine import RunReport, run_pipeline, steps
from tests.faults.world import DAY, Database, T, landed, on_server, pipeline, plain, settle
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres

RUNS = 8
ACCOUNTS, BALANCE = 400, 100
CONFLICTS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    pymysql.err.OperationalError,  # a deadlock, or a lock waited for too long
)


@pytest.fixture(autouse=True)
def _pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch, 50)


def run(folder: Path, database: Database, sources: dict[str, dict[str, Any]], day: int = 0) -> RunReport:
    """A run that only lands; what changes under MariaDB's ranges may take another attempt."""
    whole = {
        name: {"type": "database", "connection_string": database.url, "table": name, "max_retries": 50, **keys}
        for name, keys in sources.items()
    }
    plan = pipeline(folder, database.url, sources=whole, validation={}, features={})
    return run_pipeline(plan, as_of=T + day * DAY)


class Writers:
    """Threads that write as much as they are let, each with a connection of its own; what they raise is raised.

    Attributes:
        done: transactions committed so far.
    """

    def __init__(self, database: Database, write: Callable[[Any, random.Random], None], count: int) -> None:
        self._database, self._write = database, write
        self.done = 0
        self._let = threading.Semaphore(0)
        self._changed = threading.Condition()
        self._stopped = False
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(count)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._let.release(len(self._threads))
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)
        assert self._errors == []

    def write(self, now: int, meanwhile: int = 0) -> None:
        """Commits so many transactions before it returns, and so many ``meanwhile``."""
        with self._changed:
            goal = self.done + now
            self._let.release(now + meanwhile)
            assert self._changed.wait_for(lambda: self.done >= goal or self._errors, 60)

    def _run(self, seed: int) -> None:
        random_ = random.Random(seed)
        try:
            with self._database.session() as cursor:
                while self._let.acquire() and not self._stopped:
                    try:
                        cursor.execute("BEGIN")
                        self._write(cursor, random_)
                        cursor.execute("COMMIT")
                    except CONFLICTS:
                        cursor.execute("ROLLBACK")
                        self._let.release()
                        continue
                    with self._changed:
                        self.done += 1
                        self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - it is the test's
            with self._changed:
                self._errors.append(error)
                self._changed.notify_all()


@contextmanager
def writing_meanwhile(writers: Writers, patch: pytest.MonkeyPatch, pieces: tuple[int, ...] = (1, 4)) -> Iterator[None]:
    """Some transactions are committed after these pieces of a reading have landed, before the next ones have."""
    made = [0]

    def heard(step: str) -> None:
        made[0] += step == "piece.committed"
        if step == "piece.committed" and made[0] in pieces:
            writers.write(5, meanwhile=20)

    patch.setattr(steps, "listener", heard)
    yield
    patch.setattr(steps, "listener", None)
    assert made[0] >= max(pieces)


# --- transfers ----------------------------------------------------------------------------------------------------


def transfer(tables: tuple[str, ...]) -> Callable[[Any, random.Random], None]:
    """Takes from one account and gives to another, also of another table."""

    def write(cursor: Any, random_: random.Random) -> None:
        amount = random_.randrange(1, 10)
        for change in (-amount, amount):
            table, id_ = random_.choice(tables), random_.randrange(ACCOUNTS)
            cursor.execute(f"UPDATE {table} SET balance = balance + {change} WHERE id = {id_}")

    return write


def open_accounts(database: Database, *tables: str) -> None:
    for table in tables:
        database.execute(
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler VARCHAR(300))"
        )
        database.insert(table, [(i, BALANCE, "x" * 300) for i in range(ACCOUNTS)])
        if database.kind == "postgres":
            database.execute(f"ANALYZE {table}")


def total(folder: Path, table: str) -> int:
    rows = landed(folder, table)
    assert sorted(row[0] for row in rows) == list(range(ACCOUNTS))
    return sum(row[1] for row in rows)


def test_transfers_across_tables_of_postgres(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All chunks of both tables are of one moment, in each run."""
    database = on_server(postgres_server, "transfers")
    open_accounts(database, "savings", "current")
    sums = []
    with Writers(database, transfer(("savings", "current")), 4) as writers:
        for day in range(RUNS):
            with writing_meanwhile(writers, monkeypatch):
                report = run(tmp_path, database, {"savings": {}, "current": {}}, day)
            sums.append((total(tmp_path, "savings"), total(tmp_path, "current")))
            assert all(source.metrics.chunks >= 4 for source in report.sources)
            assert [source.promise.snapshot for source in report.sources] == ["one", "one"]
            assert all(source.promise.counted for source in report.sources)
            assert len({source.promise.shared for source in report.sources}) == 1
    assert [sum(both) for both in sums] == [2 * ACCOUNTS * BALANCE] * RUNS
    assert len(set(sums)) > 1, "something was transferred between the tables"


def test_transfers_in_one_query_of_mariadb(
    mariadb_server: MariaDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``consistent: true`` is one moment; without it the run says that each range has its own."""
    database = on_server(mariadb_server, "transfers")
    open_accounts(database, "savings")
    seen = set()
    with Writers(database, transfer(("savings",)), 4) as writers:
        for day in range(RUNS):
            writers.write(5)
            report = run(tmp_path, database, {"savings": {"consistent": True}}, day)
            assert (report.sources[0].promise.snapshot, report.sources[0].metrics.records_read) == ("one", ACCOUNTS)
            assert total(tmp_path, "savings") == ACCOUNTS * BALANCE
            seen.add(tuple(plain(landed(tmp_path, "savings"))))
        with writing_meanwhile(writers, monkeypatch):
            report = run(tmp_path, database, {"savings": {}}, RUNS)
        assert (report.sources[0].promise.snapshot, report.sources[0].metrics.chunks) == ("per_chunk", 8)
        total(tmp_path, "savings")
    assert len(seen) > 1


# --- late commits -------------------------------------------------------------------------------------------------


def insert(cursor: Any, random_: random.Random) -> None:
    for _ in range(random_.randrange(1, 4)):
        cursor.execute(f"INSERT INTO events (n, at) VALUES ({random_.randrange(10**6)}, {NOW})")


def insert_and_change(cursor: Any, random_: random.Random) -> None:
    """Also new values of older rows, and rows that go."""
    insert(cursor, random_)
    cursor.execute(f"UPDATE events SET n = n + 1, at = {NOW} WHERE id = {random_.randrange(1, 300)}")
    if random_.random() < 0.2:
        cursor.execute(f"DELETE FROM events WHERE id = {random_.randrange(1, 300)}")


NOW = "now()"  # of PostgreSQL: when the transaction began; of MariaDB: when the statement did
MODES = {
    "append": ({"cursor": "at", "mode": "append"}, insert),
    "merge": ({"cursor": "at", "mode": "merge", "deduplicate": {"keys": ["id"]}}, insert_and_change),
}


@contextmanager
def held_open(database: Database, write: Callable[[Any, random.Random], None], seed: int) -> Iterator[None]:
    """A transaction that has written, and is committed at the end."""
    with database.session() as cursor:
        for attempt in range(20):
            with suppress(*CONFLICTS):
                cursor.execute("BEGIN")
                write(cursor, random.Random(seed + 1000 * attempt))
                break
            cursor.execute("ROLLBACK")
        else:
            raise AssertionError("the transaction could not be made")
        yield
        cursor.execute("COMMIT")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_rows_committed_late(
    kind: str, mode: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six writers, three of which keep a transaction open across two runs each: at last every row is there once."""
    database = on_server(request.getfixturevalue(f"{kind}_server"), f"late_{mode}")
    id_ = "SERIAL" if kind == "postgres" else "INTEGER AUTO_INCREMENT"
    database.execute(f"CREATE TABLE events (id {id_} PRIMARY KEY, n INTEGER, at {database.moment})")
    database.insert("events (n, at)", [(i, (T + i * DAY / 300).isoformat(sep=" ")[:19]) for i in range(300)])
    keys, write = MODES[mode]
    landed_rows, open_across = [], Counter[str]()

    def once(day: int) -> RunReport:
        report = run(tmp_path, database, {"events": keys}, day)
        assert report.sources[0].promise.late_commits == "none_missed"
        landed_rows.append(report.sources[0].metrics.rows)
        return report

    once(0)
    with Writers(database, write, 3) as writers:
        for round_ in range(3):
            with held_open(database, insert, round_):
                with held_open(database, insert, 10 + round_), held_open(database, insert, 20 + round_):
                    writers.write(5)
                    with writing_meanwhile(writers, monkeypatch, pieces=(1,)):
                        once(1 + 2 * round_)
                    open_across["first"] += 3
                writers.write(5)
                once(2 + 2 * round_)
                open_across["second"] += 1
    reports = [once(7)]
    assert plain(landed(tmp_path, "events")) == plain(database.rows("SELECT * FROM events"))
    assert open_across == {"first": 9, "second": 3}
    reports.append(once(8))
    assert reports[-1].sources[0].metrics.records_written == 0
    assert plain(landed(tmp_path, "events")) == plain(database.rows("SELECT * FROM events"))
    assert landed_rows[-1] > landed_rows[0] if mode == "append" else landed_rows[-1] > 0


def test_deletes_are_found(postgres_server: Postgres, mariadb_server: MariaDB, tmp_path: Path) -> None:
    """Of rows that no cursor shows, since they are gone."""
    for server in (postgres_server, mariadb_server):
        database = on_server(server, "deletes")
        database.execute(f"CREATE TABLE events (id INTEGER PRIMARY KEY, n INTEGER, at {database.moment})")
        database.insert("events", [(i, i, "2025-10-01 00:00:00") for i in range(300)])
        folder = tmp_path / database.kind
        run(folder, database, {"events": MODES["merge"][0]})
        database.execute("DELETE FROM events WHERE id % 3 = 0", "UPDATE events SET n = -1, at = now() WHERE id = 7")
        metrics = run(folder, database, {"events": MODES["merge"][0]}, 1).sources[0].metrics
        assert (metrics.rows_deleted, metrics.rows_replaced, metrics.rows) == (100, 1, 200)
        assert plain(landed(folder, "events")) == plain(database.rows("SELECT * FROM events"))

"""Landing and publishing in a real object store (Ceph): what counts is what the ledger names, whatever fails or dies."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine import Pipeline, RunReport, run_pipeline, training_set
from engine.errors import ConfigError, LedgerError, SinkError
from engine.history import collect_files, verify_files
from engine.ledger import Ledger
from engine.plan import compile_plan
from engine.quarantine import replay, rows
from tests.landing.world import small_chunks
from tests.run.world import ACTIVITIES, T
from tests.servers import gateway
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph

ROOT = Path(__file__).parents[2]


@dataclass
class World:
    """A pipeline from a SQLite table and files into a store."""

    folder: Path
    ceph: Ceph
    url: str
    prefix: str = field(default_factory=lambda: f"store-{uuid.uuid4().hex[:8]}")

    def put(self, *users: tuple[str | None, float, str]) -> None:
        with closing(sqlite3.connect(self.folder / "app.db")) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS users (user_id TEXT, experience_years REAL, at TEXT)")
            connection.executemany("INSERT INTO users VALUES (?, ?, ?)", users)

    def sections(self) -> dict[str, Any]:
        store = {"endpoint_url": self.url, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        users = {
            "type": "database",
            "connection_string": "sqlite:///app.db",
            "table": "users",
            "cursor": "at",
            "mode": "merge",
            "critical_columns": ["user_id"],
            "deduplicate": {"keys": ["user_id"]},
        }
        return {
            "name": "stored",
            "sources": {"users": users, "activities": {"type": "file", "path": "activities.parquet"}},
            "features": {"user_features": {"handle_missing": "keep", "normalize": False}},
            "output": {"path": f"s3://{BUCKET}/{self.prefix}/features", **store},
            "landing": {"path": f"s3://{BUCKET}/{self.prefix}/landing", **store},
        }

    def pipeline(self, **changes: Any) -> Pipeline:
        return Pipeline(base=self.folder, **{**self.sections(), **changes})

    def run(self, **changes: Any) -> RunReport:
        return run_pipeline(self.pipeline(**changes), as_of=T)

    def killed_at(self, step: str) -> None:
        """A run in a process of its own, which is killed once it has made a step."""
        script = """
import json, os, signal, sys
from engine import Pipeline, run_pipeline, steps
from engine.sources import database_file, relation
database_file.CHUNK_ROWS = relation.CHUNK_ROWS = 3
base, step, sections, as_of = sys.argv[1:]
steps.listener = lambda made: os.kill(os.getpid(), signal.SIGKILL) if made == step else None
run_pipeline(Pipeline(base=base, **json.loads(sections)), as_of=as_of)
"""
        arguments = [sys.executable, "-c", script, str(self.folder), step, json.dumps(self.sections()), T.isoformat()]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr

    def forget_copies(self) -> None:
        """Removes what lies in the workdir beside the ledger."""
        for name in ("landing", "quarantine"):
            shutil.rmtree(self.folder / ".maestro" / name, ignore_errors=True)

    def objects(self, below: str) -> dict[str, bytes]:
        store = self.ceph.store()
        root = f"{BUCKET}/{self.prefix}/{below}"
        return {path.removeprefix(f"{root}/"): store.cat_file(path) for path in store.find(root)}

    def published(self) -> pl.DataFrame:
        frames = [pl.read_parquet(content) for content in self.objects("features").values()]
        return pl.concat(frames).drop("created_timestamp").sort("user_id")

    def landed(self) -> list[tuple[Any, ...]]:
        """The rows of the users' table, as the store has them."""
        there = self.objects("landing")
        with Ledger(self.folder / ".maestro") as book:
            read = book.table("stored", "users", accepted=True)
        assert read is not None
        return sorted(row for file in read.files for row in pl.read_parquet(there[file.path]).rows())

    def named(self) -> set[str]:
        """The landed files that the ledger names."""
        with Ledger(self.folder / ".maestro") as book:
            tables = {file.path for table in book.tables("stored") for file in table.files}
            return tables | {entry.file.path for entry in book.quarantined("stored")}


USERS = [(f"u{i}", float(i), f"2025-10-0{1 + i % 3}") for i in range(1, 8)]
LATER = [("u1", 10.0, "2025-10-03T12:00:00"), (None, 0.0, "2025-10-03T12:00:00"), ("u9", 9.0, "2025-10-03T12:00:00")]


@pytest.fixture
def world(tmp_path: Path, ceph_server: Ceph, monkeypatch: pytest.MonkeyPatch) -> World:
    small_chunks(monkeypatch)
    return made(tmp_path, ceph_server, ceph_server.url)


@pytest.fixture
def way(ceph_server: Ceph) -> Iterator[gateway.Gateway]:
    with gateway.running(ceph_server.port) as running:
        yield running


def made(folder: Path, ceph: Ceph, url: str) -> World:
    folder.mkdir(exist_ok=True)
    ACTIVITIES.drop_nulls("user_id").write_parquet(folder / "activities.parquet")
    world = World(folder, ceph, url)
    world.put(*USERS)
    return world


def expected(world: World, folder: Path) -> tuple[list[tuple[Any, ...]], pl.DataFrame]:
    """What a run on local disk makes of the same sources."""
    shutil.copy(world.folder / "app.db", folder / "app.db")
    shutil.copy(world.folder / "activities.parquet", folder / "activities.parquet")
    local = Pipeline(base=folder, **{**world.sections(), "landing": None, "output": {"path": "out"}})
    run_pipeline(local, as_of=T)
    with Ledger(folder / ".maestro") as book:
        read = book.table("stored", "users", accepted=True)
        assert read is not None
        landed = sorted(row for file in read.files for row in pl.read_parquet(book.workdir / file.path).rows())
    published = pl.concat([pl.read_parquet(path) for path in (folder / "out").rglob("*.parquet")])
    return landed, published.drop("created_timestamp").sort("user_id")


def same_as_local(world: World, folder: Path) -> None:
    folder.mkdir()
    landed, published = expected(world, folder)
    assert world.landed() == landed
    assert_frame_equal(world.published(), published)
    assert verify_files(compile_plan(world.pipeline())).damage == []


def test_what_lands_and_is_published_lies_in_the_store(world: World, tmp_path: Path) -> None:
    report = world.run()
    assert report.status == "done"
    assert report.views[0].files == ["user_features/event_date=2025-10-04/part-20251004T000000Z.parquet"]
    assert list(world.objects("features")) == report.views[0].files
    assert not (world.folder / "features").exists()
    same_as_local(world, tmp_path / "one")
    world.put(*LATER)
    world.forget_copies()  # as on another machine
    second = world.run().sources[0].metrics
    assert (second.rows_replaced, second.records_failed, second.rows) == (1, 1, 8)
    same_as_local(world, tmp_path / "two")
    assert set(world.objects("landing")) == world.named(), "superseded files are gone"
    assert SECRET_KEY not in json.dumps(second.to_dict())
    assert SECRET_KEY not in (world.folder / ".maestro" / "ledger.db").read_bytes().decode(errors="replace")


def test_rows_set_aside_lie_there_too_and_come_back(world: World, tmp_path: Path) -> None:
    world.put(*LATER)
    world.run()
    world.forget_copies()
    held = rows(world.pipeline(), source="users").collect()
    assert held["experience_years"].to_list() == [0.0]
    world.forget_copies()
    mended = tmp_path / "mended.parquet"
    held.with_columns(user_id=pl.lit("u0")).write_parquet(mended)
    report = replay(world.pipeline(), mended=mended, as_of=T)
    assert report.sources[0].metrics.rows == 9
    assert ("u0", 0.0) in [row[:2] for row in world.landed()]
    world.forget_copies()
    assert verify_files(compile_plan(world.pipeline())).ok


def test_a_lost_or_altered_object_is_found(world: World) -> None:
    world.run()
    store = world.ceph.store()
    gone, altered = sorted(world.named())[:2]
    store.rm(f"{BUCKET}/{world.prefix}/landing/{gone}")
    store.pipe(f"{BUCKET}/{world.prefix}/landing/{altered}", b"x")
    [part] = world.objects("features")
    store.pipe(f"{BUCKET}/{world.prefix}/features/{part}", b"y")
    damage = {
        d.path.partition(f"{world.prefix}/")[2]: d.what for d in verify_files(compile_plan(world.pipeline())).damage
    }
    assert damage == {
        f"landing/{gone}": "it is missing",
        f"landing/{altered}": "its checksum is another",
        f"features/{part}": "its checksum is another",
    }


def test_gc_drops_what_the_ledger_does_not_name(world: World) -> None:
    world.run(retention="9d")
    world.put(*LATER)
    world.run(retention="9d")
    store = world.ceph.store()
    store.pipe(f"{BUCKET}/{world.prefix}/landing/landing/stored/users/dead/chunk-1.parquet", b"left by a killed run")
    store.pipe(f"{BUCKET}/{world.prefix}/landing/landing/other/users/x/chunk-1.parquet", b"another pipeline's")
    before = set(world.objects("landing"))
    collect_files(compile_plan(world.pipeline()), None)
    left = set(world.objects("landing"))
    assert left == world.named() | {"landing/other/users/x/chunk-1.parquet"}
    assert len(before - left) > 1


def test_another_ledgers_files_are_not_touched(world: World) -> None:
    world.run()
    before = world.objects("landing")
    shutil.rmtree(world.folder / ".maestro")
    with pytest.raises(SinkError) as caught:
        world.run()
    assert caught.value.code == "landing.occupied"
    assert world.objects("landing") == before


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"secret_key": "another-secret-key"}, "access is refused"),
        ({"path": "s3://no-such-bucket/x"}, "there is no such bucket"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "127.0.0.1:1"),
    ],
)
@pytest.mark.parametrize("section", ["landing", "output"])
def test_a_store_that_cannot_be_used(world: World, section: str, changed: dict[str, str], text: str) -> None:
    with pytest.raises(SinkError, match=text) as caught:
        world.run(**{section: {**world.sections()[section], **changed}})
    assert caught.value.code == f"{section}.unwritable"
    assert "another-secret-key" not in str(caught.value)
    assert SECRET_KEY not in str(caught.value)
    if section == "landing":
        with Ledger(world.folder / ".maestro") as book:
            assert book.table("stored", "users") is None
    assert world.objects("features") == {}


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_reply_that_is_lost_changes_nothing(
    tmp_path: Path, ceph_server: Ceph, way: gateway.Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object is put, its reply never comes, and it is put again."""
    small_chunks(monkeypatch)
    world = made(tmp_path / "lost", ceph_server, way.url)
    seen: set[str] = set()

    def once(_: int, method: str, path: str) -> str | None:
        if method != "PUT" or path in seen:
            return None
        seen.add(path)
        return "lose"

    way.fault = once
    world.run()
    assert way.fired["lose"] == len(seen) >= 5
    puts = [path for method, path in way.calls if method == "PUT"]
    assert sorted(puts) == sorted([*seen, *seen])
    way.fault = lambda *_: None
    same_as_local(world, tmp_path / "local")


def test_an_error_on_the_nth_call_loses_nothing(
    tmp_path: Path, ceph_server: Ceph, way: gateway.Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails, whichever call it is; the next one makes good, and is as if none had failed."""
    small_chunks(monkeypatch)
    whole = made(tmp_path / "whole", ceph_server, way.url)
    whole.run()
    calls = len(way.calls)
    assert calls > 12
    codes: list[str] = []
    for number in [*range(1, calls, 4), calls]:
        world = made(tmp_path / f"n{number}", ceph_server, way.url)
        way.calls.clear()
        way.fault = nth(number)
        try:
            world.run()
        except SinkError as error:
            codes.append(error.code)
        way.fault = lambda *_: None
        world.forget_copies()
        world.run()
        assert world.landed() == whole.landed()
        assert_frame_equal(world.published(), whole.published())
        assert set(world.objects("landing")) == world.named()
        assert len(world.objects("features")) == 1
    assert way.fired["deny"] == len(range(1, calls, 4)) + 1
    assert set(codes) == {"landing.unwritable", "output.unwritable"}
    assert len(codes) >= calls / 12


def nth(wanted: int) -> gateway.Fault:
    return lambda number, *_: "deny" if number == wanted else None


def test_a_busy_store_is_asked_again(
    tmp_path: Path, ceph_server: Ceph, way: gateway.Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_chunks(monkeypatch)
    world = made(tmp_path / "busy", ceph_server, way.url)
    way.fault = lambda number, *_: "busy" if number in (2, 8, 14) else None
    world.run()
    assert way.fired["busy"] == 3
    same_as_local(world, tmp_path / "local")


@pytest.mark.parametrize(
    "step",
    [
        *("piece.written", "file.kept", "piece.committed", "table.written", "table.landed", "table.judged"),
        *("files.staged", "files.recorded", "file.published", "files.published", "run.finished", "landing.collected"),
    ],
)
def test_a_killed_run_is_made_good_by_the_next(world: World, tmp_path: Path, step: str) -> None:
    world.killed_at(step)
    for name, content in world.objects("features").items():
        assert pl.read_parquet(content).height == 7, name
    if step in ("piece.committed", "table.landed", "files.recorded"):
        world.forget_copies()  # what the ledger names is in the store
    world.run()
    same_as_local(world, tmp_path / "local")
    assert set(world.objects("landing")) == world.named()


# --- declarations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "place", "code"),
    [
        ({"output": {"path": "gs://b/x"}}, ("output", "path"), "config.not_local"),
        ({"output": {"path": "s3://"}}, ("output", "path"), "config.not_local"),
        (
            {"output": {"path": "./x", "access_key": "a", "secret_key": "b"}},
            ("output", "access_key"),
            "config.not_remote",
        ),
        ({"output": {"path": "s3://lake/x", "access_key": "abcd"}}, ("output",), "config.missing_key"),
        ({"landing": {"path": "./x"}}, ("landing", "path"), "config.value"),
        (
            {"landing": {"path": "s3://lake/x/"}, "output": {"path": "s3://lake/x"}},
            ("landing", "path"),
            "config.same_folder",
        ),
    ],
)
def test_mistakes(sections: dict[str, Any], place: tuple[str, ...], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(name="p", sources={"users": {"type": "file", "path": "a.csv"}}, **sections)
    assert next((p.path, p.code) for p in caught.value.problems) == (place, code)


def test_another_run_does_not_mix_in(world: World) -> None:
    """The lease is the ledger's, wherever the files lie."""
    world.run()
    with Ledger(world.folder / ".maestro") as book, book.lease("stored"), pytest.raises(LedgerError):
        world.run()


def test_training_sets_read_what_the_store_holds(world: World) -> None:
    world.put(*USERS)
    world.run()
    frame = pl.DataFrame({"user_id": ["u3", "u9", "u1"], "event_timestamp": [T, T, T - timedelta(microseconds=1)]})
    made = training_set(world.pipeline(), frame, features="user_features:experience_years")
    assert made.collect()["experience_years"].to_list() == [3.0, None, None]
    assert not list((world.folder / ".maestro" / "spill").iterdir()), "copies are gone"

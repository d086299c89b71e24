"""Going on with an interrupted reading of PostgreSQL: what is kept and what is read again are together one moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.sources import Landed, Request, Shared, open_source
from engine.sources import postgres_tables as module
from engine.sources.adbc import FAILURES, Session
from engine.sources.postgres_server import _driver
from tests.servers.postgres import Postgres
from tests.sources.reads import database

ROWS = 4_000


@pytest.fixture
def server(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    postgres_server.execute("SET client_min_messages = error; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    monkeypatch.setattr(module, "CHUNK_ROWS", 200)
    return postgres_server


def session(server: Postgres) -> Session:
    return Session(_driver(), server.url)


@dataclass
class Interrupted:
    """A reading of which some pieces have landed."""

    seal: Any
    frames: dict[int, pl.DataFrame]
    marks: dict[int, Any]

    @property
    def request(self) -> Request:
        landed = [Landed(number, frame.height, self.marks[number]) for number, frame in sorted(self.frames.items())]
        return Request(seal=self.seal, landed=landed)


def interrupted(server: Postgres, landed: Callable[[int], bool], **keys: Any) -> Interrupted:
    """A reading of the table ``t`` whose pieces landed where ``landed`` says so."""
    return go_on(server, Request(), landed, **keys)[0]


def go_on(
    server: Postgres, request: Request, landed: Callable[[int], bool] = lambda _: True, **keys: Any
) -> tuple[Interrupted, frozenset[int], list[tuple[Any, ...]]]:
    """What a reading lands, which pieces it kept, and the truth in its very snapshot."""
    with (
        Shared() as shared,
        open_source("s", database(server.url, table="t", **keys), Path(), shared).open(request) as opened,
    ):
        found = Interrupted(opened.seal, {}, {})
        for chunk in opened.chunks():
            if landed(chunk.number):
                assert chunk.mark is not None
                frame = chunk.frame.collect()
                before = found.frames.get(chunk.number)
                found.frames[chunk.number] = frame if before is None else pl.concat([before, frame])
                found.marks[chunk.number] = chunk.mark
        where = f" WHERE {keys['filter']}" if "filter" in keys else ""
        truth = open_source("s", database(server.url, query=f"SELECT * FROM t{where}"), Path(), shared)
        with truth.open(Request()) as whole:
            rows = sorted(row for chunk in whole.chunks() for row in chunk.frame.collect().rows())
        return found, opened.kept, rows


def rows_of(frames: dict[int, pl.DataFrame]) -> list[tuple[Any, ...]]:
    return sorted(row for frame in frames.values() for row in frame.rows())


def fill(server: Postgres, rows: int = ROWS, analyze: bool = True) -> None:
    server.execute(
        "CREATE TABLE t (id int, n int, name text) WITH (autovacuum_enabled = off);"
        f"INSERT INTO t SELECT i, 0, repeat('x', i % 90) FROM generate_series(1, {rows}) i;"
        + ("ANALYZE t" if analyze else "")
    )


def test_what_has_not_changed_is_not_read_again(server: Postgres) -> None:
    fill(server)
    first = interrupted(server, lambda number: number % 3 != 0)
    assert len(first.frames) > 8
    second, kept, truth = go_on(server, first.request)
    assert kept == set(first.frames)
    assert all(number % 3 == 0 for number in second.frames)
    assert rows_of(first.frames | second.frames) == truth


# what happens between the two readings: SQL, and whether a piece must be read again for it
CHANGES = {
    "insert": ("INSERT INTO t SELECT i, 1, 'new' FROM generate_series(1, 500) i", True),
    "update": ("UPDATE t SET n = 1 WHERE id % 1000 = 7", True),
    "update without any change": ("UPDATE t SET n = n WHERE id % 1000 = 7", True),
    "delete": ("DELETE FROM t WHERE id % 1000 = 7", True),
    "delete and insert": ("DELETE FROM t WHERE id = 7; VACUUM t; INSERT INTO t VALUES (7, 2, 'other')", True),
    "subtransactions": (
        "BEGIN; UPDATE t SET n = 1 WHERE id = 1; SAVEPOINT a; UPDATE t SET n = 2 WHERE id = 3000; SAVEPOINT b; DELETE FROM t WHERE id = 9;"
        "ROLLBACK TO b; UPDATE t SET n = 3 WHERE id = 2000; RELEASE a; COMMIT",
        True,
    ),
    "rolled back": ("BEGIN; UPDATE t SET n = 1 WHERE id < 9; ROLLBACK", False),
    "locks": ("BEGIN; SELECT count(*) FROM (SELECT * FROM t FOR UPDATE) locked; COMMIT", False),
    "vacuum and freeze": ("VACUUM (FREEZE) t", False),
    "another table": ("CREATE TABLE u AS SELECT * FROM t", False),
    "vacuum full": ("DELETE FROM t WHERE id < 1000; VACUUM FULL t", True),
    "truncate": ("TRUNCATE t; INSERT INTO t SELECT i, 0, repeat('x', i % 90) FROM generate_series(1, 4000) i", True),
    "emptied": ("TRUNCATE t", True),
    "another column of the same name": ("ALTER TABLE t DROP COLUMN n; ALTER TABLE t ADD COLUMN n int", True),
    "another type": ("ALTER TABLE t ALTER COLUMN n TYPE int8", True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("filter_", [None, "n < 3 AND name IS NOT NULL"])
def test_what_has_changed_is(server: Postgres, change: str, filter_: str | None) -> None:
    fill(server)
    keys = {} if filter_ is None else {"filter": filter_}
    first = interrupted(server, lambda _: True, **keys)
    sql, changes = CHANGES[change]
    # VACUUM cannot run inside the implicit transaction of several statements
    server.execute("\n".join(f"{statement};" for statement in sql.split(";")))
    second, kept, truth = go_on(server, first.request, **keys)
    assert (kept == set(first.frames)) is not changes
    frames = {number: frame for number, frame in first.frames.items() if number in kept} | second.frames
    assert set(frames) == set(range(len(frames)))
    assert rows_of(frames) == truth


def test_a_transaction_that_is_open_during_the_first_reading(server: Postgres) -> None:
    fill(server)
    with session(server) as writer:
        writer.begin()
        writer.execute("UPDATE t SET n = 5 WHERE id = 1000")
        writer.execute("SAVEPOINT a")
        writer.execute("DELETE FROM t WHERE id = 2000")
        first = interrupted(server, lambda _: True)
        writer.execute("INSERT INTO t VALUES (9999, 1, 'late')")
        writer._connection.commit()
    second, kept, truth = go_on(server, first.request)
    assert 0 < len(kept) < len(first.frames)
    frames = {number: frame for number, frame in first.frames.items() if number in kept} | second.frames
    assert rows_of(frames) == truth
    assert (1000, 5, "x" * (1000 % 90)) in truth


@pytest.mark.parametrize("seed", range(12))
def test_any_changes_and_interruptions(server: Postgres, seed: int) -> None:
    """Several interrupted readings in a row, changes between them, some by transactions that stay open across them."""
    random_ = random.Random(seed)
    fill(server, random_.choice([0, 1, 700, ROWS]), analyze=random_.random() < 0.7)
    frames: dict[int, pl.DataFrame] = {}
    marks: dict[int, Any] = {}
    request = Request()
    with ExitStack() as stack:
        writers = [stack.enter_context(session(server)) for _ in range(3)]
        for writer in writers:
            writer.execute("SET lock_timeout = '20ms'")
            writer.begin()
        for round_ in range(6):
            found, kept, truth = go_on(server, request, lambda _: random_.random() < 0.7 or round_ == 5)  # noqa: B023
            frames = {number: frame for number, frame in frames.items() if number in kept} | found.frames
            marks = {number: mark for number, mark in marks.items() if number in kept} | found.marks
            if round_ == 5:
                break
            request = Interrupted(found.seal, frames, marks).request
            for _ in range(random_.randrange(5)):
                _change(random_, random_.choice(writers))
            if random_.random() < 0.15:
                for writer in writers:
                    writer.rollback()
                server.execute(random_.choice(["VACUUM t", "VACUUM FULL t", "VACUUM FREEZE t", "ANALYZE t"]))
    assert rows_of(frames) == truth


def _change(random_: random.Random, writer: Session) -> None:
    low = random_.randrange(ROWS)
    sql = random_.choice(
        [
            f"UPDATE t SET n = n + 1 WHERE id BETWEEN {low} AND {low + 20}",
            f"DELETE FROM t WHERE id BETWEEN {low} AND {low + 20}",
            f"INSERT INTO t SELECT i, 7, 'new' FROM generate_series({low}, {low + random_.choice([1, 300])}) i",
            "SAVEPOINT a",
            "commit",
            "commit",
            "rollback",
        ]
    )
    try:
        if sql == "commit":
            writer._connection.commit()
        elif sql == "rollback":
            writer.rollback()
        else:
            writer.execute(sql)
    except FAILURES:
        writer.rollback()

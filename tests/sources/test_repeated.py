"""What a killed run's next one reads again: at most one piece for each thread, of PostgreSQL and of MySQL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.sources import Chunk, Landed, Request, mysql, mysql_plan, open_source, postgres, postgres_tables
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.sources.reads import database

THREADS = 2
ROWS = 5_000


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a database whose table ``t`` is read in many pieces."""
    server: Postgres | MariaDB = request.getfixturevalue(f"{request.param}_server")
    if request.param == "postgres":
        monkeypatch.setattr(postgres_tables, "CHUNK_ROWS", 200)
        server.execute(
            "SET client_min_messages = error; DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE t (id int, v text);"
            f"INSERT INTO t SELECT i, repeat('x', 90) FROM generate_series(1, {ROWS}) i; ANALYZE t"
        )
    else:
        monkeypatch.setattr(mysql_plan, "CHUNK_ROWS", 200)
        monkeypatch.setattr(mysql, "DIGEST_ROWS", 0)
        server.execute("DROP DATABASE shop; CREATE DATABASE shop CHARACTER SET utf8mb4")
        server.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v char(90)); INSERT INTO t SELECT seq, repeat('x', 90) "
            f"FROM seq_1_to_{ROWS}"
        )
    return server.url


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the pieces that were asked for."""
    found: list[int] = []
    read, piece = mysql._read, postgres.PostgresReading._piece

    def of_mysql(*arguments: Any) -> Iterator[Chunk]:
        found.append(arguments[-1].number)
        return read(*arguments)

    def of_postgres(*arguments: Any) -> Iterator[Chunk]:
        found.append(arguments[-1].number)
        return piece(*arguments)

    monkeypatch.setattr(mysql, "_read", of_mysql)
    monkeypatch.setattr(postgres.PostgresReading, "_piece", of_postgres)
    return found


@pytest.mark.parametrize("whole", [1, 7])
def test_one_piece_per_thread_is_read_again(url: str, begun: list[int], whole: int) -> None:
    source = open_source("s", database(url, table="t"), Path())
    landed: dict[int, Landed] = {}
    rows: dict[int, int] = {}
    with source.open(Request()) as reading:
        seal = json.loads(json.dumps(reading.seal))
        for chunk in reading.chunks():
            rows[chunk.number] = rows.get(chunk.number, 0) + (chunk.rows or 0)
            if len(landed) == whole:
                time.sleep(0.5)  # killed while it is written: all that can be read ahead by then has been
                break
            if chunk.last:
                landed[chunk.number] = Landed(chunk.number, rows[chunk.number], json.loads(json.dumps(chunk.mark)))
    first = set(begun)
    assert len(first - set(landed)) <= THREADS
    begun.clear()
    with source.open(Request(seal=seal, landed=list(landed.values()))) as reading:
        rest = sum(chunk.rows or 0 for chunk in reading.chunks())
        assert reading.kept == set(landed)
    assert len(first & set(begun)) <= THREADS
    assert not set(begun) & set(landed)
    assert len(begun) == len(set(begun)) > 10
    assert rest + sum(piece.rows for piece in landed.values()) == ROWS

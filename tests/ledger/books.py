"""Ledgers to test: in a folder, and in a PostgreSQL database of a test's own."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from engine.errors import LedgerError
from engine.ledger import File, Ledger, Piece, Read
from tests.servers.postgres import DATABASE, Postgres

AT = datetime(2025, 10, 4, tzinfo=UTC)
FILE = File("landing/p/s/a.parquet", 3, 99, "ab" * 32)


def own_database(server: Postgres) -> str:
    """The URL of a database that no other test uses."""
    name = f"ledger_{uuid.uuid4().hex[:12]}"
    server.execute(f"CREATE DATABASE {name}")
    return server.url.removesuffix(f"/{DATABASE}") + f"/{name}"


def read_of(read_id: str = "read1", source: str = "s", run_id: str = "run1", **more: Any) -> Read:
    facts = {"pipeline": "p", "location": "somewhere", "mode": "append", "state": "reading", "fingerprint": "f"}
    return Read(read_id, source=source, run_id=run_id, **{**facts, "started_at": "2025-10-04T00:00:00Z", **more})


def piece_of(number: int, *paths: str) -> Piece:
    return Piece(number, {"n": number}, 3, 1, {"v": 1}, tuple(File(p, 2, 9, "cd" * 32) for p in paths), 0.5)


def begin(book: Ledger, run_id: str = "run1", pipeline: str = "p") -> None:
    book.begin(run_id, pipeline, [AT], AT, {"pipeline": pipeline})


def part(view: str, at: Any, **more: Any) -> dict[str, Any]:
    facts = {"path": f"{view}/x.parquet", "rows": 3, "definition": "d", "sha256": "ef" * 32}
    return {"view": view, "as_of": at, "created_timestamp": AT, **facts, **more}


def taken_soon(book: Ledger, pipeline: str) -> int:
    """The epoch of the lease: a server needs a moment to see that a connection is gone."""
    for _ in range(200):
        with suppress(LedgerError), book.lease(pipeline) as lease:
            return lease.epoch
    raise AssertionError("the lease was never free")

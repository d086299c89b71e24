"""A small SQLite table, pipelines that read it, and the tables that they land."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import Pipeline, RunReport, run_pipeline
from engine.landing import LandedTable, land
from engine.ledger import File, Ledger, Read
from engine.sources import database_file, open_source, relation, sqlite
from engine.spec import DatabaseSpec
from tests.run.world import T

COLUMNS = "id INTEGER, at INTEGER, v TEXT, n NUMERIC, gone INTEGER"


@dataclass(frozen=True)
class Shop:
    """A folder with ``shop.db``, whose table ``t`` a pipeline reads as the source ``s``."""

    folder: Path

    def sql(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.folder / "shop.db")) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def insert(self, *rows: dict[str, Any]) -> None:
        with closing(sqlite3.connect(self.folder / "shop.db")) as connection, connection:
            for row in rows:
                names, marks = ", ".join(row), ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO t ({names}) VALUES ({marks})", tuple(row.values()))

    def rows(self) -> list[dict[str, Any]]:
        """What the table holds, in reading order."""
        with closing(sqlite3.connect(self.folder / "shop.db")) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM t ORDER BY rowid")]

    def pipeline(self, source: dict[str, Any], more: dict[str, Any] | None = None, **sections: Any) -> Pipeline:
        declared = {"type": "database", "connection_string": "sqlite:///shop.db", "table": "t", **source}
        return Pipeline(**{"base": self.folder, "name": "p", "sources": {"s": declared, **(more or {})}, **sections})

    def run(self, source: dict[str, Any], **sections: Any) -> RunReport:
        return run_pipeline(self.pipeline(source, **sections), as_of=T)

    def book(self) -> Ledger:
        return Ledger(self.folder / ".maestro")

    def read(self, *, accepted: bool = False) -> Read:
        """The newest landed read of the source."""
        with self.book() as book:
            found = book.table("p", "s", accepted=accepted)
        assert found is not None
        return found

    def landed(self, read: Read | None = None) -> list[dict[str, Any]]:
        """The rows of a landed table, the newest one by default."""
        return rows_of(self.folder / ".maestro", (read or self.read()).files)

    def land(self, source: dict[str, Any], base: Read | None, number: int) -> tuple[LandedTable, Read]:
        """One read without a ledger, and what the next one begins with."""
        pipeline = self.pipeline(source)
        spec = pipeline.sources["s"]
        assert isinstance(spec, DatabaseSpec)
        opened = open_source("s", spec, self.folder)
        base = None if spec.effective_mode == "full" else base
        folder = self.folder / f"read{number}"
        made = land(opened, spec, folder, name="s", memory_limit="64MiB", root=self.folder, base=base)
        facts = {"pipeline": "p", "source": "s", "run_id": "r", "location": "", "fingerprint": "", "started_at": ""}
        landed = {"mode": spec.effective_mode, "state": "landed", "position": made.position, "files": made.files}
        return made, Read(read_id=str(number), **facts, **landed)


def rows_of(root: Path, files: tuple[File, ...] | list[File]) -> list[dict[str, Any]]:
    """The rows of landed files, which have one schema and are as the ledger describes them."""
    frames = []
    for file in files:
        frame = pl.read_parquet((root / file.path).read_bytes())
        assert (frame.height, (root / file.path).stat().st_size) == (file.rows, file.bytes)
        frames.append(frame)
    return pl.concat(frames).to_dicts()


def shop(folder: Path, columns: str = COLUMNS) -> Shop:
    made = Shop(folder)
    made.sql(f"CREATE TABLE t ({columns})")
    return made


def small_chunks(patch: pytest.MonkeyPatch, rows: int = 3) -> None:
    """Database files are read in pieces of ``rows`` rows."""
    patch.setattr(database_file, "CHUNK_ROWS", rows)
    patch.setattr(relation, "CHUNK_ROWS", rows)
    patch.setattr(sqlite, "BATCH_ROWS", 2)

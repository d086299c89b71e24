"""Database sources: a table or query of SQLite, PostgreSQL or MySQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.sources import Chunk, reading
from engine.sources.relation import Relation, Snapshot
from engine.spec import DatabaseSpec, secrets_of

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 250_000
CHUNK_BYTES = 64 * 2**20


class DatabaseSource:
    """Reads a relation as chunks of about 250,000 rows or 64 MB, in one pass.

    The rows read must be as many as the database counts; if not, the read fails after its last chunk.
    """

    kind = "database"

    def __init__(self, name: str, spec: DatabaseSpec, base: Path) -> None:
        self._relation = Relation(name, spec, base)
        self.location = f"{self._relation.location} {spec.table or 'query'}"

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Source.chunks`."""
        import polars as pl
        import pyarrow as pa

        relation = self._relation
        read = 0
        with (
            reading(self.location, relation.name, secrets_of(relation.spec)),
            _snapshot(relation) as snapshot,
        ):
            for number, group in enumerate(_groups(snapshot.batches)):
                frame = pl.DataFrame(pa.Table.from_batches(group))
                origin = f"{self.location} rows {read}-{read + frame.height - 1}" if frame.height else self.location
                read += frame.height
                yield Chunk(number, origin, frame.lazy(), frame.height)
            if read != snapshot.rows:
                raise relation.error(
                    f"{read} rows were read where the database counts {snapshot.rows}",
                    code="source.lost_rows",
                    fix="read again while nothing writes to it; if it stays so, report it",
                    transient=True,
                )


def _snapshot(relation: Relation) -> AbstractContextManager[Snapshot]:
    scheme = relation.url.partition("://")[0]
    if scheme == "sqlite":
        from engine.sources import sqlite

        return sqlite.snapshot(relation)
    if scheme in ("postgresql", "postgres"):
        from engine.sources import postgres

        return postgres.snapshot(relation)
    from engine.sources import mysql

    return mysql.snapshot(relation)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Consecutive batches, up to a chunk's size; at least one group."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if group and (rows + batch.num_rows > CHUNK_ROWS or size + batch.nbytes > CHUNK_BYTES):
            yield group
            group, rows, size = [], 0, 0
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
    if group:
        yield group

"""A PostgreSQL table or query: its name and conditions as SQL, the blocks it is stored in, the pieces they make."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from engine.duck import identifier, literal
from engine.errors import SourceError, TransientSourceError
from engine.sources import CursorValue
from engine.sources.postgres_server import PLAIN, Inquiry
from engine.sources.relation import CHUNK_BYTES, CHUNK_ROWS, Relation

TID_RANGES = 140_000  # the first version that finds a range of blocks without reading all
FILL = 0.9  # of a chunk that a piece is to have, so that few pieces are a little more than one chunk
QUOTED = r'"(?:[^"]|"")+"'
NAME = re.compile(rf'(?:(?P<schema>{QUOTED}|[^"]+)\.)?(?P<table>{QUOTED}|[^".]+)')


@dataclass(frozen=True)
class Heap:
    """A table that is stored as a sequence of blocks."""

    oid: int
    filenode: int
    blocks: int
    size: int
    rows: float
    attributes: Mapping[str, int]

    @property
    def step(self) -> int:
        """How many blocks make a piece."""
        blocks = max(1, self.blocks)
        step = FILL * CHUNK_BYTES * blocks / max(1, self.size)
        if self.rows > 0:
            step = min(step, FILL * CHUNK_ROWS * blocks / self.rows)
        return max(1, int(step))


@dataclass(frozen=True)
class Piece:
    """A range of blocks, without its end, the last one without end; or, without blocks, everything."""

    number: int
    blocks: tuple[int, int | None] | None = None

    @property
    def condition(self) -> str:
        if self.blocks is None:
            return ""
        first, end = self.blocks
        return f"ctid >= '({first},0)'" + ("" if end is None else f" AND ctid < '({end},0)'")


def table_of(relation: Relation) -> str:
    """What to read from, as SQL; parts of a table's name may be quoted as SQL does."""
    if relation.spec.query is not None:
        return f"{relation.subquery(relation.spec.query)} AS source_rows"
    name = str(relation.spec.table)
    found = NAME.fullmatch(name)
    schema, table = found.group("schema", "table") if found else name.rpartition(".")[::2]
    return ".".join(part if re.fullmatch(QUOTED, part) else identifier(part) for part in (schema, table) if part)


def heap_of(relation: Relation, asked: Inquiry, table: str) -> Heap | None:
    """The table as blocks; None for what is none: a query, a view, a partitioned or foreign table.

    Raises:
        SourceError: there is no such table.
    """
    if relation.spec.table is None:
        return None
    found = asked.rows(
        "SELECT c.oid::int8 AS oid, pg_relation_filenode(c.oid)::int8 AS filenode, c.reltuples::float8 AS rows, "
        "pg_table_size(c.oid) AS size, pg_relation_size(c.oid) / current_setting('block_size')::int8 AS blocks, "
        "c.relkind IN ('r', 'm') AND NOT c.relhassubclass AND coalesce(a.amname, 'heap') = 'heap' AS plain, "
        "(SELECT json_object_agg(attname, attnum) FROM pg_attribute WHERE attrelid = c.oid)::text AS names "
        f"FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam WHERE c.oid = to_regclass({literal(table)})"
    )
    if not found:
        raise relation.missing_table(_tables(asked))
    row = found[0]
    if not row["plain"]:
        return None
    names = json.loads(row["names"] or "{}")
    return Heap(row["oid"], row["filenode"], row["blocks"], row["size"], row["rows"], names)


def _tables(asked: Inquiry) -> list[str]:
    rows = asked.rows(
        "SELECT table_schema::text AS s, table_name::text AS t FROM information_schema.tables "
        "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    return [row["t"] if row["s"] == "public" else f"{row['s']}.{row['t']}" for row in rows]


def where(*conditions: str) -> str:
    text = " AND ".join(condition for condition in conditions if condition)
    return f" WHERE {text}" if text else ""


def literal_of(value: CursorValue) -> str:
    """SQL for a value, of the type of what it is compared with."""
    if isinstance(value, datetime):
        return literal(value.isoformat(" "))
    return literal(format(value, "f") if isinstance(value, Decimal) else str(value))


def filter_of(relation: Relation, asked: Inquiry, table: str) -> str:
    """The declared filter as a condition; empty where there is none.

    Raises:
        SourceError: the database does not understand it.
    """
    if relation.spec.filter is None:
        return ""
    condition = f"({relation.spec.filter}\n)"
    try:
        asked.schema(f"SELECT 1 AS one FROM {table}{where(condition)}")
    except SourceError as error:
        if isinstance(error, TransientSourceError):
            raise
        raise relation.error(
            f"filter is no condition on {relation.spec.table or 'the query'}: {error.message}",
            code="source.invalid_filter",
            fix="correct filter; it names columns as the database does",
        ) from None
    return condition


def pieces_of(asked: Inquiry, table: str, heap: Heap | None, condition: str) -> list[Piece]:
    """The pieces of the rows that meet a condition: ranges of blocks, where all blocks would be looked at anyway."""
    if heap is None or asked.snapshot.version < TID_RANGES:
        return [Piece(0)]
    if condition:
        node = plan_of(asked, f"SELECT 1 FROM {table}{where(condition)}")
        if node["Node Type"] == "Gather":
            (node,) = node["Plans"]
        if node["Node Type"] != "Seq Scan" or "Plans" in node:
            return [Piece(0)]
    return ranges(heap, heap.step, 1)


def ranges(heap: Heap, step: int, least: int) -> list[Piece]:
    """Pieces of ``step`` blocks, at ``least`` so many."""
    count = max(least, -(-heap.blocks // step))
    return [Piece(i, (i * step, (i + 1) * step if i + 1 < count else None)) for i in range(count)]


def plan_of(asked: Inquiry, sql: str) -> dict[str, Any]:
    """How the database would run a query."""
    (row,) = asked.rows(f"EXPLAIN (FORMAT JSON) {sql}", **PLAIN)
    found: dict[str, Any] = json.loads(row["QUERY PLAN"])[0]["Plan"]
    return found

"""Parquet files with any moments in them, as they stood at given moments: DuckDB's ASOF join, which spills.

What the engine publishes has one moment per file and is looked up by `engine.features.past`; this is for all other
files, which Feast's sources may name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from engine.duck import connect, identifier, literal
from engine.features.past import TIME, comparable
from engine.frames import reading

_AT, _ROW = "_at", "_row"
_LEAST = 64 * 2**20
_SPAN = 2**64  # a moment × this + the moment of creation: one number that both are compared by
_SQL_TYPES = {pl.Int64: "BIGINT", pl.String: "VARCHAR", pl.Float64: "DOUBLE"}
_FIX = "check the files of the source"


@dataclass(frozen=True)
class Table:
    """A view and its files.

    Attributes:
        keys, features: columns of the files and their types, as for `Past`.
        timestamp: the column of moments; without a zone they are UTC.
        created: the column that tells, of rows of a key and moment, which counts: the later one, null before all.
        ttl: microseconds that a row holds, both ends included; None: until a newer one.
        columns: key column: the column of entity rows that holds it, where that has another name.
        known: whether rows count only from when they were created.
        hive: whether the names of folders are columns too.
    """

    name: str
    files: Sequence[Path]
    keys: Mapping[str, pl.DataType]
    features: Mapping[str, pl.DataType]
    timestamp: str
    created: str | None = None
    ttl: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    known: bool = False
    hive: bool = False


def scanned(files: Sequence[Path], hive: bool = False) -> str:
    """The rows of Parquet files in SQL, columns by name; one that a file has not is null there."""
    paths = ", ".join(literal(str(path)) for path in files)
    return f"read_parquet([{paths}], union_by_name = true, hive_partitioning = {str(hive).lower()})"


def moment(name: str) -> str:
    """A column of moments in SQL, with a zone."""
    return f"CAST({identifier(name)} AS TIMESTAMPTZ)"


class AsOf:
    """The features of entity rows, by slices of these, each asked for once and in order.

    Args:
        rows: what `engine.features.past.narrow` gives.
        schema: of the entity rows that they come from.
        size: rows that a slice has.
        memory: bytes that the join may take.
        folder: for files; new.
    """

    def __init__(
        self, rows: pl.LazyFrame, table: Table, schema: pl.Schema, *, size: int, memory: int, folder: Path
    ) -> None:
        folder.mkdir(parents=True)
        entities = folder / "rows.parquet"
        rows.with_row_index(_ROW).sink_parquet(entities, compression="lz4", maintain_order=True)
        self._table, self._size = table, size
        self._connection = connect(f"{max(_LEAST, memory) // 2**20}MiB", folder / "spill")
        self._batches: Any = None
        self._query = _query(table, schema, entities)
        self._rest: list[pl.DataFrame] = []

    def slice(self, _: int, count: int) -> tuple[pl.DataFrame, int]:
        """The features of the next rows, and how many of them held something."""
        with reading(f"the files of {self._table.name}", _FIX):
            if self._batches is None:
                self._batches = self._connection.sql(self._query).to_arrow_reader(min(self._size, 100_000))
            while sum(frame.height for frame in self._rest) < count:
                self._rest.append(pl.DataFrame(pl.from_arrow(next(self._batches))))
        held = pl.concat(self._rest) if self._rest else pl.DataFrame(schema={_AT: pl.Int64, **self._table.features})
        found, self._rest = held[:count], [held[count:]]
        features = found.select(pl.col(name).cast(dtype) for name, dtype in self._table.features.items())
        return features, found[_AT].count()

    def close(self) -> None:
        self._connection.close()


def _query(table: Table, schema: pl.Schema, entities: Path) -> str:
    """The features of each entity row, null where nothing held, in the order of the rows."""
    names = [identifier(name) for name in table.features]
    at = f"epoch_us({moment(table.timestamp)})"
    keys = [
        f"{_comparable(name, dtype, schema[table.columns.get(name, name)])} AS {identifier(str(i))}"
        for i, (name, dtype) in enumerate(table.keys.items())
    ]
    made = f"coalesce(epoch_us({moment(table.created)}), -9223372036854775807)" if table.created else "0"
    features = [f"{name} AS {identifier(f'feature {i}')}" for i, name in enumerate(names)]
    source = (
        f"SELECT {', '.join([*keys, f'{at} AS {_AT}', f'{made} AS _made', *features])} "
        f"FROM {scanned(table.files, table.hive)} WHERE {identifier(table.timestamp)} IS NOT NULL"
    )
    own = [identifier(str(i)) for i in range(len(table.keys))]
    places = [identifier(f"feature {i}") for i in range(len(names))]
    since = f"f.{_AT}"
    if table.known and table.created:
        # The newest row of those that exist by then: it stands from when the last of them came to be.
        fields = ", ".join([_AT, "_made", *places])
        best = f"max(ROW({fields})) OVER (PARTITION BY {', '.join(own) or 'NULL'} ORDER BY greatest({_AT}, _made))"
        source = (
            f"SELECT {', '.join([*own, f'greatest({_AT}, _made) AS _from', f'{best} AS best'])} FROM ({source}) "
            f"WHERE _made > -9223372036854775807"
        )
        since = "f.best[1]"
        places = [f"best[{i + 3}]" for i in range(len(names))]
        order = f"e.{TIME} >= f._from"
    elif table.created:
        source = f"SELECT *, {_AT}::HUGEINT * {_SPAN} + _made AS _order FROM ({source})"
        order = f"e.{TIME}::HUGEINT * {_SPAN} + 9223372036854775807 >= f._order"
    else:
        order = f"e.{TIME} >= f.{_AT}"
    held = f"e.{TIME} - {since} <= {table.ttl}" if table.ttl is not None else f"{since} IS NOT NULL"
    chosen = [f"CASE WHEN {held} THEN f.{p} END AS {name}" for p, name in zip(places, names, strict=True)]
    on = " AND ".join([*(f"e.{key} = f.{key}" for key in own), order])
    return (
        f"SELECT CASE WHEN {held} THEN {since} END AS {_AT}, {', '.join(chosen)} "
        f"FROM read_parquet({literal(str(entities))}) AS e ASOF LEFT JOIN ({source}) AS f ON {on} ORDER BY e.{_ROW}"
    )


def _comparable(name: str, dtype: pl.DataType, other: pl.DataType) -> str:
    """A key column in SQL as `engine.features.past.comparable` has it."""
    sql = identifier(name)
    empty = pl.LazyFrame(schema={"key": dtype})
    target = empty.select(comparable(pl.col("key"), dtype, other)).collect_schema()["key"]
    if target == dtype:
        return sql
    if isinstance(target, pl.Datetime):
        return moment(name)
    if dtype.is_float() and target != pl.Float64:
        sql = f"CASE WHEN {sql} = floor({sql}) THEN CAST({sql} AS BIGINT) END"
    return f"TRY_CAST({sql} AS {_SQL_TYPES[type(target)]})"

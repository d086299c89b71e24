"""The change feed out of landing: how a table differs from an earlier one, row by row, old and new.

Tables share the files that did not change, so only the others are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from engine.duck import connect, literal
from engine.frames import column as exactly
from engine.landing import files
from engine.landing.merge import unglobbed
from engine.ledger import File


def changes(
    root: Path,
    before: Sequence[File],
    after: Sequence[File],
    folder: Path,
    *,
    keys: Sequence[str] = (),
    memory_limit: str,
) -> pl.LazyFrame:
    """What turned ``before`` into ``after``.

    Args:
        root: the folder that the files' paths start from.
        folder: where the result is kept; the caller removes it.
        keys: columns that name a row: two rows of one key are an update. Without them, and for rows with a null in one,
            there are only inserts and deletes.

    Returns:
        ``change`` (String: ``insert``, ``update`` or ``delete``), ``old`` and ``new`` (structs of the table's columns;
        null where there is no such row). Equal rows are no change, however many files they moved through.
    """
    names = {file.path for file in before}, {file.path for file in after}
    gone = [root / file.path for file in before if file.path not in names[1]]
    come = [root / file.path for file in after if file.path not in names[0]]
    schema = files.schema(root / after[0].path)
    gone = [p if list(files.schema(p).items()) == list(schema.items()) else files.cast(p, schema, folder) for p in gone]
    path = files.new_path(folder, "changes")
    _Feed(gone, come, schema, keys, memory_limit, folder).write(path)
    flat = files.scan(path)
    return flat.select(
        "change",
        old=pl.when(pl.col("change") != "insert").then(_struct("o", schema)),
        new=pl.when(pl.col("change") != "delete").then(_struct("n", schema)),
    )


def _struct(prefix: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    typed = ((f"{prefix}{i}", column, dtype) for i, (column, dtype) in enumerate(schema.items()))
    return pl.struct([(pl.lit(None) if t == pl.Null else pl.col(n).cast(t)).alias(c) for n, c, t in typed])


def fresh(feed: pl.LazyFrame, schema: Sequence[str]) -> pl.LazyFrame:
    """The rows that are new or changed, as they are now."""
    new = feed.filter(pl.col("change") != "delete").select("new")
    return new.unnest("new").select(map(exactly, schema)) if schema else new


class _Feed:
    """The comparison, in DuckDB; columns by position, since SQL folds their case."""

    def __init__(
        self,
        gone: Sequence[Path],
        come: Sequence[Path],
        schema: dict[str, pl.DataType],
        keys: Sequence[str],
        memory_limit: str,
        folder: Path,
    ) -> None:
        self.sides = {"gone": gone, "come": come}
        self.schema = schema
        self.columns = [f"c{i}" for i in range(len(schema))]
        self.keys = [f"c{list(schema).index(key)}" for key in keys]
        known = [f"{c} IS NOT NULL" for c in self.keys]  # as in merging, NaN is null in a key
        known += [f"NOT isnan({c})" for c, key in zip(self.keys, keys, strict=True) if schema[key].is_float()]
        self.filled = " AND ".join(known)
        self.memory_limit, self.folder = memory_limit, folder

    def write(self, path: Path) -> None:
        """Writes ``change``, the old columns ``o0, o1, …`` and the new ones ``n0, n1, …``."""
        with connect(self.memory_limit, self.folder / "spill") as connection:
            for name, paths in self.sides.items():
                connection.execute(f"CREATE TEMP VIEW {name} AS {self._table(paths)}")
            parts = [self._loose("gone", "come", "delete", "o"), self._loose("come", "gone", "insert", "n")]
            if self.keys:
                parts.append(self._keyed())
            query = " UNION ALL BY NAME ".join(parts)
            connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet)")

    def _table(self, paths: Sequence[Path]) -> str:
        listed = ", ".join(self.columns)
        if not paths:
            empty = files.new_path(self.folder, "empty")
            pl.DataFrame(schema=self.schema).write_parquet(empty)
            paths = [empty]
        names = ", ".join(literal(unglobbed(path)) for path in paths)
        return f"SELECT * FROM read_parquet([{names}], hive_partitioning = false) AS t({listed})"

    def _loose(self, ours: str, theirs: str, change: str, prefix: str) -> str:
        """Rows of one side that the other lacks, where no key tells them apart."""
        loose = f"WHERE NOT ({self.filled})" if self.keys else ""
        listed = ", ".join(f"{c} AS {prefix}{c[1:]}" for c in self.columns)
        inner = f"SELECT * FROM {ours} {loose} EXCEPT ALL SELECT * FROM {theirs} {loose}"
        return f"SELECT '{change}' AS change, {listed} FROM ({inner})"

    def _keyed(self) -> str:
        on = " AND ".join(f"g.{key} = c.{key}" for key in self.keys)
        old = ", ".join(f"g.{c} AS o{c[1:]}" for c in self.columns)
        new = ", ".join(f"c.{c} AS n{c[1:]}" for c in self.columns)
        differ = " OR ".join(f"g.{c} IS DISTINCT FROM c.{c}" for c in self.columns)
        key = self.keys[0]
        return (
            f"SELECT CASE WHEN g.{key} IS NULL THEN 'insert' WHEN c.{key} IS NULL THEN 'delete' ELSE 'update' END "
            f"AS change, {old}, {new} FROM (SELECT * FROM gone WHERE {self.filled}) AS g "
            f"FULL JOIN (SELECT * FROM come WHERE {self.filled}) AS c ON {on} "
            f"WHERE g.{key} IS NULL OR c.{key} IS NULL OR {differ}"
        )

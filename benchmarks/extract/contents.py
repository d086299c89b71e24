"""What landed against what the database's own client says, column by column and whatever the order.

Of each column, a sum of hashes of (key, value): equal sums mean equal columns. Where they differ, the rows are joined
by key and the different ones counted; only there may floats differ, by 1e-9 of themselves. A value counts, not its
type: an integer for a boolean, a wider decimal or the nearest float is equal; a type of another family is told beside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from benchmarks.extract.tables import COLUMNS, KEY

TOLERANCE = 1e-9
FAMILIES = {
    "integer": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    "float": ("FLOAT", "DOUBLE"),
    "decimal": ("DECIMAL",),
    "boolean": ("BOOLEAN",),
    "text": ("VARCHAR",),
    "date": ("DATE",),
    "moment": ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"),
    "timestamp": ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
}
# How values of a family are compared.
EXACT = {
    "integer": "CAST({} AS DECIMAL(38,0))",
    "decimal": "CAST({} AS DECIMAL(38,10))",
    "float": "CAST({} AS DOUBLE)",
    "boolean": "CAST({} AS BIGINT)",
    "text": "CAST({} AS VARCHAR)",
    "date": "epoch_ns(CAST({} AS TIMESTAMP))",
    "moment": "epoch_ns({})",
    "timestamp": "epoch_ns({})",
}
# The families that need no cast to the column's own type before.
ALIKE = {
    "integer": ("integer", "decimal", "boolean", "float"),
    "decimal": ("integer", "decimal", "float"),
    "float": ("integer", "decimal", "float"),
    "boolean": ("boolean", "integer"),
    "text": ("text",),
    "date": ("date", "timestamp"),
    "moment": ("moment", "timestamp"),
    "timestamp": ("moment", "timestamp"),
}


@dataclass(frozen=True)
class Contents:
    """What was found; ``wrong`` says per column what differs, ``types`` which landed as another family."""

    rows: int
    size: int
    files: int
    codecs: list[str]
    wrong: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)


def write_reference(dump: Path, path: Path, *, zoned: bool) -> None:
    """The database's own text as Parquet of its own types; without ``zoned``, moments have no zone there."""
    columns = {name: "TIMESTAMP" if kind == "TIMESTAMPTZ" and not zoned else kind for name, kind in COLUMNS.items()}
    with _connect() as duck:
        duck.execute(
            f"COPY (SELECT * FROM read_csv(?, delim='\t', quote='', escape='', header=false, nullstr='\\N', "
            f"auto_detect=false, columns={columns})) TO '{path}' (FORMAT parquet)",
            [str(dump)],
        )


def landed_files(folder: Path) -> list[Path]:
    """The Parquet below ``folder``, without what tools note there about themselves."""
    files = sorted(folder.rglob("*.parquet"))
    return [file for file in files if not any(part.startswith("_") for part in file.relative_to(folder).parts)]


def compare(reference: Path, folder: Path) -> Contents:
    """The Parquet below ``folder`` against the reference."""
    files = landed_files(folder)
    if not files:
        return Contents(0, 0, 0, [], {KEY: "no Parquet at all"})
    names = [str(file) for file in files]
    size = sum(file.stat().st_size for file in files)
    with _connect() as duck:
        codecs = duck.execute("SELECT DISTINCT compression FROM parquet_metadata(?)", [names]).fetchall()
        duck.execute(f"CREATE VIEW wanted AS SELECT * FROM read_parquet('{reference}')")
        duck.execute(f"CREATE VIEW landed AS SELECT * FROM read_parquet({names}, hive_partitioning=false)")
        (rows,) = _one(duck, "SELECT count(*) FROM landed")
        found = Contents(rows, size, len(files), sorted(codec for (codec,) in codecs))
        _compare(duck, found)
    return found


def _compare(duck: duckdb.DuckDBPyConnection, found: Contents) -> None:
    """Fills ``wrong`` and ``types``."""
    wanted, landed = _families(duck, "wanted"), _families(duck, "landed")
    found.wrong.update({name: "missing" for name in wanted if name not in landed})
    if KEY in found.wrong:
        return
    names = [name for name in wanted if name in landed]
    for name in names:
        # MariaDB's boolean is an integer, and its moments have no zone.
        if landed[name] != wanted[name] and (wanted[name], landed[name]) != ("boolean", "integer"):
            found.types[name] = landed[name]
    (expected,) = _one(duck, "SELECT count(*) FROM wanted")
    (distinct,) = _one(duck, f"SELECT count(DISTINCT {KEY}) FROM landed")
    if (found.rows, distinct) != (expected, expected):
        found.wrong[KEY] = f"{found.rows} rows and {distinct} keys for {expected}"
    values = {name: _values(name, wanted[name], landed[name]) for name in names}
    sums = [
        _one(duck, "SELECT " + ", ".join(_sum(pair[side]) for pair in values.values()) + f" FROM {view}")
        for side, view in enumerate(("wanted", "landed"))
    ]
    for name, ours, theirs in zip(names, *sums, strict=True):
        if ours != theirs:
            count = _different(duck, *values[name], near=wanted[name] == "float")
            if count:
                found.wrong.setdefault(name, f"{count} rows differ")


def _different(duck: duckdb.DuckDBPyConnection, ours: str, theirs: str, *, near: bool) -> int:
    """How many rows differ, joined by key."""
    same = f"abs(a - b) <= {TOLERANCE} * greatest(abs(a), abs(b))" if near else "a = b"
    (count,) = _one(
        duck,
        f"SELECT count(*) FROM (SELECT {KEY} AS k, {ours} AS a FROM wanted) AS x "
        f"FULL JOIN (SELECT {KEY} AS k, {theirs} AS b FROM landed) AS y USING (k) "
        f"WHERE NOT coalesce({same}, a IS NULL AND b IS NULL AND x.k = y.k, false)",
    )
    return count


def _values(name: str, wanted: str, landed: str) -> tuple[str, str]:
    """The SQL of a column's value on either side, equal for equal values of any type of its family.

    What landed as a float is compared as one: a decimal is right if it is the nearest float.
    """
    if landed not in ALIKE[wanted]:
        return EXACT[wanted].format(name), EXACT[wanted].format(f"CAST({name} AS {COLUMNS[name]})")
    value = EXACT["float" if landed == "float" else wanted].format(name)
    return value, value


def _sum(value: str) -> str:
    return f"sum(hash(CAST({KEY} AS BIGINT), {value}))"


def _families(duck: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    described = duck.execute(f"SELECT column_name, column_type FROM (DESCRIBE {view})").fetchall()
    of = {kind: family for family, kinds in FAMILIES.items() for kind in kinds}
    return {name: of.get(kind.partition("(")[0], kind) for name, kind in described}


def _one(duck: duckdb.DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    row = duck.execute(sql).fetchone()
    assert row is not None
    return row


def _connect() -> duckdb.DuckDBPyConnection:
    duck = duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'; SET memory_limit = '4GB'; SET preserve_insertion_order = false")
    return duck

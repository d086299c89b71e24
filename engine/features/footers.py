"""What the footers of Parquet files say, so that no row need be read for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from engine.duck import literal


def names(connection: duckdb.DuckDBPyConnection, file: Path) -> list[str]:
    """The columns of a file as they are written: case and all."""
    query = f"SELECT name, coalesce(num_children, 0) FROM parquet_schema({literal(str(file))}) ORDER BY column_id"
    found, children = [], 0  # of the column that was named last, and theirs, how many are still to come
    for name, more in connection.execute(query).fetchall()[1:]:  # the first is the root
        if children:
            children -= 1
        else:
            found.append(str(name))
        children += more
    return found


def rows(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> int:
    """How many rows files have."""
    query = f"SELECT coalesce(sum(num_rows), 0)::BIGINT FROM parquet_file_metadata({_listed(files)})"
    [[count]] = connection.execute(query).fetchall()
    return int(count)


def no_nulls(
    connection: duckdb.DuckDBPyConnection, files: Sequence[Path], columns: Sequence[str], moments: Sequence[str]
) -> bool:
    """Whether the statistics of every row group say that columns hold no null, and moments nothing infinite either."""
    finite = " AND ".join(f"isfinite(TRY_CAST(stats_{end}_value AS TIMESTAMPTZ))" for end in ("min", "max"))
    wanted = f"path_in_schema IN ({', '.join(map(literal, (*columns, *moments)))})"
    of_moments = f"path_in_schema IN ({', '.join(map(literal, moments))})" if moments else "false"
    found = connection.execute(
        "SELECT count(DISTINCT (file_name, row_group_id)) FILTER (WHERE row_group_num_rows > 0), "
        f"count(*) FILTER (WHERE row_group_num_rows > 0 AND {wanted} AND stats_null_count = 0 "
        f"AND (NOT {of_moments} OR coalesce({finite}, false))) FROM parquet_metadata({_listed(files)})"
    ).fetchall()
    [(groups, good)] = found
    return bool(good == groups * len({*columns, *moments}))


def _listed(files: Sequence[Path]) -> str:
    return f"[{', '.join(literal(str(file)) for file in files)}]"

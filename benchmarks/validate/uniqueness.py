"""Ways to count repeated texts exactly, each in a process of its own: seconds inside it, and peak memory.

    .venv/bin/python benchmarks/validate/uniqueness.py [ROWS] [MEMORY_LIMIT]

``hashes``: what the engine does: 64-bit hashes gathered batch by batch, sorted in parts, and a second look at the rows
whose hash occurs twice. ``duckdb``: all values grouped by DuckDB under the same memory limit. ``polars``: ``n_unique``.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

DATA = Path(__file__).parents[1] / ".data" / "validate"
WAYS = ("hashes", "duckdb", "polars")


def count(way: str, folder: Path, limit: str) -> int:
    """Rows beyond the first of each value of ``event_id``."""
    if way == "hashes":
        from engine import Suite

        [result, _] = Suite({"unique_columns": ["event_id"]}, memory_limit=limit).validate(folder).results
        return result.failed_records
    if way == "duckdb":
        import duckdb

        connection = duckdb.connect(config={"memory_limit": limit, "preserve_insertion_order": False})
        query = f"SELECT count(event_id) - count(DISTINCT event_id) FROM read_parquet('{folder}/*.parquet')"
        return int(connection.execute(query).fetchall()[0][0])
    import polars as pl

    values = pl.scan_parquet(folder / "*.parquet").select(pl.col("event_id").drop_nulls())
    return int(values.select(pl.len() - pl.col("event_id").n_unique()).collect(engine="streaming").item())


def main(rows: str = "10000000", limit: str = "512MB") -> None:
    for way in WAYS:
        done = subprocess.run([sys.executable, __file__, way, rows, limit], capture_output=True, text=True, check=False)
        print(done.stdout.strip() or f"{way}: {(done.stderr.strip().splitlines() or ['failed'])[-1][:160]}")


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in WAYS:
        begun = time.perf_counter()
        repeated = count(sys.argv[1], DATA / sys.argv[2], sys.argv[3])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(f"{sys.argv[1]}: {repeated} repeated, {time.perf_counter() - begun:.2f} s, peak {peak:.0f} MB")
    else:
        main(*sys.argv[1:])

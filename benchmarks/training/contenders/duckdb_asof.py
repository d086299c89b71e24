# /// script
# dependencies = ["duckdb==2.0.0"]
# ///
"""DuckDB's ASOF JOIN by hand, with as much memory as it takes; ``ordered`` also keeps the order of the rows."""

import sys
import time
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))

from world import FEATURES, TTLS, VIEW


def main(folder: Path, ttl: str, out: Path, mode: str) -> None:
    started = time.monotonic()
    interval = {"h": "HOUR", "d": "DAY"}[TTLS[ttl][-1]]
    held = f"f.event_timestamp >= e.event_timestamp - INTERVAL {TTLS[ttl][:-1]} {interval}"
    features = ", ".join(f"CASE WHEN {held} THEN f.{name} END AS {name}" for name in FEATURES)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"""
        COPY (
            SELECT e.*, {features}
            FROM read_parquet('{folder}/entities.parquet') AS e
            ASOF LEFT JOIN read_parquet('{folder}/features/{VIEW}/*/*.parquet', hive_partitioning = false) AS f
            ON e.user_id = f.user_id AND e.event_timestamp >= f.event_timestamp
            {"ORDER BY label" if mode == "ordered" else ""}
        ) TO '{out}' (FORMAT parquet)
    """)
    print("inside", time.monotonic() - started)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])

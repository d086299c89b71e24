# /// script
# dependencies = ["polars==2.1.0", "connectorx==0.4.6", "pyarrow==26.0.1"]
# ///
"""polars.read_database_uri, then write_parquet; zstd is its default.

Its engine is connectorx, whose partitions it takes: https://docs.pola.rs/user-guide/io/database/
One partition per logical core: https://sfu-db.github.io/connector-x/freq_questions.html
"""

import os
import sys
from pathlib import Path

import connectorx  # noqa: F401 - polars loads it at the call; here it counts as start-up
import polars as pl


def main(url: str, table: str, out: str) -> None:
    query = f"SELECT * FROM {table}"
    found = pl.read_database_uri(query, url, partition_on="id", partition_num=os.cpu_count() or 1)
    found.write_parquet(Path(out) / "part.parquet", compression="zstd")


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

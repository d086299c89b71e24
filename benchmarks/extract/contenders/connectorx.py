# /// script
# dependencies = ["connectorx==0.4.6", "pyarrow==26.0.1"]
# ///
"""connectorx: partitions on the key, as many as there are cores, into one Arrow table, then one Parquet file.

One partition per logical core: https://sfu-db.github.io/connector-x/freq_questions.html
"""

import os
import sys
from pathlib import Path

import connectorx
import pyarrow.parquet as pq


def main(url: str, table: str, out: str) -> None:
    found = connectorx.read_sql(
        url,
        f"SELECT * FROM {table}",
        return_type="arrow",
        partition_on="id",
        partition_num=os.cpu_count() or 1,
    )
    pq.write_table(found, Path(out) / "part.parquet", compression="zstd")


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

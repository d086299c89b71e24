# /// script
# dependencies = [
#     "dlt[parquet]==1.31.0", "numpy==2.4.6", "pandas==2.3.3", "pyarrow==26.0.1", "sqlalchemy==2.1.9",
#     "psycopg2-binary==2.9.13", "pymysql==1.2.4",
# ]
# ///
"""dlt: sql_table through its pyarrow back end, the one it recommends for larger tables, with pandas for speed.

Floats stay floats by the adapter of its documentation's example; without it MariaDB's doubles come as rounded decimals:
https://dlthub.com/docs/dlt-ecosystem/verified-sources/sql_database/configuration#pyarrow
"""

import os
import sys
import tempfile
from pathlib import Path

import dlt
import sqlalchemy as sa
from dlt.destinations import filesystem
from dlt.sources.sql_database import sql_table

CHUNK = 100_000


def floats(table: sa.Table) -> sa.Table:
    """The table with floats that are not read as decimals."""
    for column in table.columns.values():
        if isinstance(column.type, sa.Float):
            column.type.asdecimal = False
    return table


def main(url: str, table: str, out: str) -> None:
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "DATA_WRITER__COMPRESSION": "zstd"}
    resource = sql_table(
        url.replace("mysql:", "mysql+pymysql:").replace("postgresql:", "postgresql+psycopg2:"),
        table,
        chunk_size=CHUNK,
        backend="pyarrow",
        reflection_level="full_with_precision",
        table_adapter_callback=floats,
    )
    with tempfile.TemporaryDirectory(dir=Path(out).parent) as work:  # its packages, which are not what is landed
        destination = filesystem(Path(out).absolute().as_uri())
        pipeline = dlt.pipeline("bench", pipelines_dir=work, destination=destination, dataset_name="landed")
        pipeline.run(resource, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

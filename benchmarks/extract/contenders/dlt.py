# /// script
# dependencies = [
#     "dlt[parquet]==1.31.0", "connectorx==0.4.6", "pyarrow==26.0.1", "sqlalchemy==2.1.9",
#     "psycopg2-binary==2.9.13", "pymysql==1.2.4",
# ]
# ///
"""dlt: sql_table through connectorx, its fastest back end, into its filesystem destination.

The settings are those of its documentation's own speed test (chunks of 100,000 rows, full reflection with precision,
Parquet), and the stream that its documentation asks for where chunks are to be kept:
https://dlthub.com/docs/dlt-ecosystem/verified-sources/sql_database/configuration#connectorx
zstd instead of its snappy: https://dlthub.com/docs/dlt-ecosystem/file-formats
"""

import os
import sys
import tempfile
from pathlib import Path

import dlt
from dlt.destinations import filesystem
from dlt.sources.sql_database import sql_table

CHUNK = 100_000


def main(url: str, table: str, out: str) -> None:
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "DATA_WRITER__COMPRESSION": "zstd"}
    resource = sql_table(
        url.replace("mysql:", "mysql+pymysql:").replace("postgresql:", "postgresql+psycopg2:"),
        table,
        chunk_size=CHUNK,
        backend="connectorx",
        reflection_level="full_with_precision",
        backend_kwargs={"conn": url, "return_type": "arrow_stream"},
    )
    with tempfile.TemporaryDirectory(dir=Path(out).parent) as work:  # its packages, which are not what is landed
        destination = filesystem(Path(out).absolute().as_uri())
        pipeline = dlt.pipeline("bench", pipelines_dir=work, destination=destination, dataset_name="landed")
        pipeline.run(resource, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

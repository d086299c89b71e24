# /// script
# dependencies = [
#     "pandas==3.1.1", "pyarrow==26.0.1", "sqlalchemy==2.1.9", "psycopg2-binary==2.9.13", "pymysql==1.2.4",
# ]
# ///
"""pandas.read_sql in chunks, each appended to one Parquet file.

Chunks of a streamed result, as pandas and SQLAlchemy describe them (without stream_results the driver holds all rows):
https://pandas.pydata.org/docs/user_guide/io.html#querying
https://docs.sqlalchemy.org/en/20/core/connections.html#using-server-side-cursors-a-k-a-stream-results
psycopg2 was measured faster here than psycopg, SQLAlchemy's default. ADBC would be faster still, but pandas has no
chunks there.
"""

import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

CHUNK = 100_000


def main(url: str, table: str, out: str) -> None:
    engine = sa.create_engine(url.replace("mysql:", "mysql+pymysql:").replace("postgresql:", "postgresql+psycopg2:"))
    writer = None
    with engine.connect().execution_options(stream_results=True) as connection:
        for chunk in pd.read_sql(f"SELECT * FROM {table}", connection, chunksize=CHUNK):
            rows = pa.Table.from_pandas(chunk, schema=writer.schema if writer else None, preserve_index=False)
            writer = writer or pq.ParquetWriter(Path(out) / "part.parquet", rows.schema, compression="zstd")
            writer.write_table(rows)
    if writer:
        writer.close()


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

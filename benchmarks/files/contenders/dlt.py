# /// script
# dependencies = ["dlt[parquet,s3,filesystem]==1.31.0", "pyarrow==26.0.1", "pandas==2.3.3", "duckdb==2.0.0"]
# ///
"""dlt: its filesystem source with read_parquet and read_csv, into its filesystem destination as zstd Parquet.

https://dlthub.com/docs/dlt-ecosystem/verified-sources/filesystem/basic
"""

import os
import sys
import tempfile
from pathlib import Path

import dlt
from dlt.destinations import filesystem as target
from dlt.sources.credentials import AwsCredentials
from dlt.sources.filesystem import filesystem, read_csv, read_parquet


def main(form: str, out: str) -> None:
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "DATA_WRITER__COMPRESSION": "zstd"}
    credentials = AwsCredentials(
        aws_access_key_id=os.environ["ACCESS_KEY"],
        aws_secret_access_key=os.environ["SECRET_KEY"],
        endpoint_url=os.environ["ENDPOINT_URL"],
        region_name="us-east-1",
    )
    files = filesystem(bucket_url=f"s3://{os.environ['BUCKET']}", credentials=credentials, file_glob=f"{form}/*.{form}")
    rows = (files | (read_parquet() if form == "parquet" else read_csv())).with_name("t")
    with tempfile.TemporaryDirectory(dir=Path(out).parent) as work:
        destination = target(Path(out).absolute().as_uri())
        pipeline = dlt.pipeline("bench", pipelines_dir=work, destination=destination, dataset_name="landed")
        pipeline.run(rows, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:3])

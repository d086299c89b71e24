# /// script
# dependencies = ["polars==2.1.0"]
# ///
"""By hand: one lazy scan of the glob, one sink; types of CSV from the first rows."""

import os
import sys
from pathlib import Path

import polars as pl


def main(form: str, out: str) -> None:
    options = {
        "aws_access_key_id": os.environ["ACCESS_KEY"],
        "aws_secret_access_key": os.environ["SECRET_KEY"],
        "aws_endpoint_url": os.environ["ENDPOINT_URL"],
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    scan = pl.scan_parquet if form == "parquet" else pl.scan_csv
    path = f"s3://{os.environ['BUCKET']}/{form}/*.{form}"
    scan(path, storage_options=options).sink_parquet(Path(out) / "part.parquet", compression="zstd")


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:3])

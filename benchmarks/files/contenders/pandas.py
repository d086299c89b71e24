# /// script
# dependencies = ["pandas==2.3.3", "s3fs==2026.1.0", "pyarrow==26.0.1"]
# ///
"""pandas with s3fs, file by file, each written as Parquet."""

import os
import sys
from pathlib import Path

import pandas as pd
import s3fs


def main(form: str, out: str) -> None:
    files = s3fs.S3FileSystem(
        key=os.environ["ACCESS_KEY"], secret=os.environ["SECRET_KEY"], endpoint_url=os.environ["ENDPOINT_URL"]
    )
    for number, path in enumerate(sorted(files.glob(f"{os.environ['BUCKET']}/{form}/*.{form}"))):
        with files.open(path) as stream:
            found = pd.read_parquet(stream) if form == "parquet" else pd.read_csv(stream)
        found.to_parquet(Path(out) / f"{number:04}.parquet", compression="zstd")


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:3])

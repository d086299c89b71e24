# /// script
# dependencies = ["dlt[parquet]==1.31.0", "pyarrow==26.0.1"]
# ///
"""dlt: its rest_api source with its page-number paginator, into its filesystem destination as zstd Parquet.

https://dlthub.com/docs/dlt-ecosystem/verified-sources/rest_api/basic
"""

import os
import sys
import tempfile
from pathlib import Path

import dlt
from dlt.destinations import filesystem
from dlt.sources.rest_api import rest_api_source


def main(url: str, size: str, out: str) -> None:
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "DATA_WRITER__COMPRESSION": "zstd"}
    base, _, path = url.rpartition("/")
    source = rest_api_source(
        {
            "client": {
                "base_url": base,
                "paginator": {"type": "page_number", "base_page": 1, "page_param": "page", "total_path": None},
            },
            "resources": [
                {"name": "records", "endpoint": {"path": path, "params": {"per_page": size}, "data_selector": "data"}}
            ],
        }
    )
    with tempfile.TemporaryDirectory(dir=Path(out).parent) as work:  # its packages, which are not what is landed
        destination = filesystem(Path(out).absolute().as_uri())
        pipeline = dlt.pipeline("bench", pipelines_dir=work, destination=destination, dataset_name="landed")
        pipeline.run(source, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

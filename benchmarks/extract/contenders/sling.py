# /// script
# dependencies = ["sling-linux-amd64==1.4.11"]
# ///
"""sling: one command from the table to one Parquet file, zstd and no limit of rows by its target options.

https://docs.slingdata.io/examples/database-to-file
https://docs.slingdata.io/concepts/replication/target-options
It writes Parquet through a DuckDB program that it downloads while it runs; SLING_DUCKDB_COMPUTE=false makes it use its
own writer instead, which needs no network. Later releases download the whole of sling, so this is the last that a
package holds.
"""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import sling_linux_amd64

PROGRAM = Path(sling_linux_amd64.SLING_BIN)
ENVIRONMENT = {"SLING_DISABLE_TELEMETRY": "true", "SLING_DUCKDB_COMPUTE": "false"}


def main(url: str, table: str, out: str) -> None:
    parts = urlsplit(url)
    postgres = parts.scheme == "postgresql"
    schema = "public" if postgres else parts.path.strip("/")
    flags = {
        "--src-conn": "SOURCE",
        "--src-stream": f"{schema}.{table}",
        "--tgt-object": f"file://{Path(out).absolute()}/part.parquet",
        "--tgt-options": "{format: parquet, compression: zstd, file_max_rows: 0}",
        "--mode": "full-refresh",
    }
    own = ENVIRONMENT | {
        "SOURCE": f"{url}?sslmode=disable" if postgres else url,
        "SLING_HOME_DIR": str(Path(out).parent),
    }
    command = [str(PROGRAM), "run", *(word for flag in flags.items() for word in flag)]
    subprocess.run(command, env=os.environ | own, check=True)


if __name__ == "__main__":
    PROGRAM.chmod(0o755)  # the package leaves it without
    if sys.argv[1:]:
        main(*sys.argv[1:4])
    else:
        subprocess.run([PROGRAM, "--version"], env=os.environ | ENVIRONMENT, check=True)

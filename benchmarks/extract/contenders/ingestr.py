# /// script
# dependencies = ["ingestr==0.15.9"]
# ///
"""ingestr, the last release before 1: one command from the table to one Parquet file.

The flags are those of its authors' own benchmark; parallelism and page size stay at the defaults it is tuned to:
https://github.com/bruin-data/ingestr/blob/main/benchmarks/scripts/runner.py
https://github.com/bruin-data/ingestr/blob/main/docs/commands/ingest.md
It writes snappy: its Parquet destination has no setting for it.
"""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

PROGRAM = Path(sys.executable).parent / "ingestr"


def main(url: str, table: str, out: str) -> None:
    parts = urlsplit(url)
    postgres = parts.scheme == "postgresql"
    schema = "public" if postgres else parts.path.strip("/")
    flags = {
        "--source-uri": f"{url}?sslmode=disable" if postgres else url,
        "--source-table": f"{schema}.{table}",
        "--dest-uri": f"parquet://{Path(out).absolute()}/part.parquet",
        "--dest-table": f"main.{table}",
        "--incremental-strategy": "replace",
        "--progress": "log",
    }
    command = [str(PROGRAM), "ingest", "--yes", *(word for flag in flags.items() for word in flag)]
    subprocess.run(command, env=os.environ | {"INGESTR_DISABLE_TELEMETRY": "true"}, check=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        main(*sys.argv[1:4])
    else:
        subprocess.run([PROGRAM, "--version"], check=True)

# /// script
# dependencies = []
# ///
"""This engine, from this checkout's own environment: one database source, no checks, no views, the ledger on."""

import sys

from engine import Pipeline, run_pipeline


def main(url: str, table: str, out: str) -> None:
    source = {"type": "database", "connection_string": url, "table": table, "timeout_seconds": 600}
    report = run_pipeline(Pipeline(name="bench", workdir=out, sources={"t": source}))
    if report.status != "done":
        raise SystemExit(f"the run ended as {report.status}")


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

# /// script
# dependencies = []
# ///
"""This engine's command, from this checkout: one database source, the ledger on; no checks, views, profile.

It is what `maestro run pipeline.yaml --quiet` does, in this process.
"""

import json
import sys
from pathlib import Path

from engine.cli import entry


def main(url: str, table: str, out: str) -> None:
    source = {"type": "database", "connection_string": url, "table": table, "timeout_seconds": 600}
    pipeline = Path(out).with_suffix(".yaml")
    declared = {"version": 1, "name": "bench", "workdir": out, "profile": False, "sources": {"t": source}}
    pipeline.write_text(json.dumps(declared))
    sys.argv = ["maestro", "run", str(pipeline), "--quiet"]
    entry()


if __name__ == "__main__":
    if sys.argv[1:]:
        main(*sys.argv[1:4])
    import engine.run  # noqa: F401 - what a run imports, for the start-up time

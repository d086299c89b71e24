# /// script
# dependencies = []
# ///
"""This engine's command, from this checkout's environment: one S3 source, the ledger on; no checks, views, profile."""

import json
import os
import sys
from pathlib import Path

from engine.cli import entry


def main(form: str, out: str) -> None:
    keys = {name: "${" + name.upper() + "}" for name in ("endpoint_url", "access_key", "secret_key")}
    source = {"type": "s3", "bucket": os.environ["BUCKET"], "key": f"{form}/*.{form}", **keys}
    pipeline = Path(out).with_suffix(".yaml")
    declared = {"version": 1, "name": "bench", "workdir": out, "profile": False, "sources": {"t": source}}
    pipeline.write_text(json.dumps(declared))
    sys.argv = ["maestro", "run", str(pipeline), "--quiet"]
    entry()


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:3])

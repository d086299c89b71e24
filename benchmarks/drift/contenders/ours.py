# /// script
# dependencies = []
# ///
"""This engine, from this checkout's own environment: row by row, or against a profile that was stored beforehand.

``files``: row by row from the files, as `maestro drift` does, in bounded memory; with reading them inside.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does

import polars as pl

from engine.drift import of_frames, of_profiles, read_profile
from engine.profile import profile_of
from engine.spec import DriftThresholds


def main(baseline: str, current: str, out: str, mode: str) -> None:
    if mode != "profile":
        import engine.drift.rows  # noqa: F401 - numba is an import like others
    stored = Path(baseline).with_suffix(".json")
    if mode == "profile" and not stored.exists():
        stored.write_text(json.dumps(profile_of(baseline).to_dict()))
    tables = [pl.read_parquet(file).rechunk() for file in (baseline, current) if mode != "files"]
    begun, cpu = time.perf_counter(), time.process_time()
    if mode == "rows":
        drift = of_frames(*(table.lazy() for table in tables), None, DriftThresholds(), memory_limit="2GiB")
    elif mode == "files":
        scans = (pl.scan_parquet(file) for file in (baseline, current))
        drift = of_frames(*scans, None, DriftThresholds(), memory_limit="512MiB")
    else:
        drift = of_profiles(read_profile(stored), profile_of(tables[1], distinct=False), None, DriftThresholds())
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    answers = {name: {**c.statistics, "errors": dict(c.errors)} for name, c in drift.columns.items()}
    Path(out).write_text(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:5])

# /// script
# dependencies = ["alibi-detect==0.13.0", "numpy==1.26.4", "pandas==2.3.3", "scipy==1.17.1", "pyarrow==17.0.0"]
# ///
"""Alibi Detect's KSDrift over the columns of numbers that have no null; it has none for texts at this size."""

import json
import sys
import time
from pathlib import Path

import pandas as pd
from alibi_detect.cd import KSDrift


def main(baseline: str, current: str, out: str) -> None:
    tables = [pd.read_parquet(file) for file in (baseline, current)]
    names = [n for n in tables[0] if n.startswith("n") and not any(table[n].isna().any() for table in tables)]
    before, now = (table[names].to_numpy("float64") for table in tables)
    begun, cpu = time.perf_counter(), time.process_time()
    found = KSDrift(before, p_val=0.05).predict(now)["data"]
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    answers = {name: {"ks": float(d)} for name, d in zip(names, found["distance"], strict=True)}
    Path(out).write_text(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

"""The page of a run with 1,000 checks over 250 columns, half of them failed: seconds of a fresh process, and size.

Usage: report.py [RUNS]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
from harness.measure import measure

COLUMNS = 250
DATA = Path(__file__).parent / ".data" / "report"
ROOT = Path(__file__).parents[1]


def generate() -> None:
    """A table, and four checks of each column, of which two fail."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    names = [f"column_{i}" for i in range(COLUMNS)]
    frame = pl.DataFrame({name: [i % 100 if i % 50 else None for i in range(1000)] for name in names})
    frame.write_parquet(DATA / "table.parquet")
    checks = {
        "required_columns": names,
        "max_null_percentage": 0.5,
        "not_null": names,
        "range_constraints": {name: [0, 50] for name in names},
        "distribution": {name: {"expected_mean": 50, "tolerance": 0.5} for name in names},
        "severity": {"range": "warning", "not_null": "warning"},
    }
    source = {"table": {"type": "file", "path": "table.parquet"}}
    pipeline = {"version": 1, "name": "wide", "sources": source, "validation": {"table": checks}}
    (DATA / "pipeline.yaml").write_text(json.dumps(pipeline))  # JSON is YAML


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    generate()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    maestro = [sys.executable, "-m", "engine"]
    subprocess.run([*maestro, "run", str(DATA / "pipeline.yaml"), "--quiet"], check=True, env=environment)
    command = [*maestro, "report", str(DATA / "pipeline.yaml")]
    found = [measure(command, env=environment, cwd=ROOT, log=DATA / "log") for _ in range(runs)]
    page, _ = map(Path, (DATA / "log").read_text().split())
    [report] = [json.loads(path.read_text()) for path in page.parent.glob("2*.json")]
    results = report["sources"][0]["validation"]["results"]
    html = page.read_text()
    assert len(results) == 4 * COLUMNS + 1
    assert sum(not result["passed"] for result in results) == 2 * COLUMNS
    families = {f"{r['check_name'].removesuffix('_validation')}.{r['column']}" for r in results if r["column"]}
    assert all(f">{name}<" in html for name in families)
    from engine.page.run import render

    inside = []
    for _ in range(runs):
        started = time.perf_counter()
        render(report)
        inside.append(time.perf_counter() - started)
    for label, values in (("wall s", [f.wall for f in found]), ("cpu s", [f.cpu for f in found]), ("render s", inside)):
        print(f"{label:>8}: median {statistics.median(values):.2f}, min {min(values):.2f}, max {max(values):.2f}")
    print(f"    page: {len(html.encode()):,} bytes for {len(results):,} checks")


if __name__ == "__main__":
    main()

"""A backfill of a view with many entities, in a process of its own: its memory does not grow with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

RUN = """
import json, re, sys
from pathlib import Path
from engine import run_pipeline
from engine.config import load_pipeline

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

days = [f"2025-03-{day:02}" for day in range(1, 5)]

def run(name):
    report = run_pipeline(load_pipeline(Path(name) / "pipeline.yaml"), as_of=days)
    return peak(), [view.rows for view in report.views]

run("little")  # whatever is taken once
few, _ = run("some")
many, rows = run("many")
print(json.dumps([few, many, rows]))
"""
ROOT = Path(__file__).parents[2]
SOME, MANY, DAYS = 200_000, 600_000, 4
BYTES = 15 * 8  # of a row of the view
TASKS = """
SELECT 'task_' || lpad(i::varchar, 7, '0') AS task_id, repeat('x', i % 7) AS description,
  CASE WHEN i % 5 > 0 THEN i % 97 / 10.0 END AS estimated_hours, 'backend' AS required_skills,
  CASE i % 3 WHEN 0 THEN 'high' ELSE 'low' END AS priority, '' AS dependencies,
  TIMESTAMPTZ '2025-03-04 00:00:00+00' + to_days((i % 100)::int) AS deadline,
  TIMESTAMPTZ '2025-02-01 00:00:00+00' AS created_at
FROM range({rows}) t(i)
"""
PIPELINE = {
    "version": 1,
    "name": "work",
    "profile": False,
    "memory_limit": "64MiB",
    "sources": {"tasks": {"type": "file", "path": "tasks.parquet"}},
    "features": {"task_features": {"handle_missing": "impute", "normalize": True}},
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="its peak is read from /proc")
def test_the_rows_of_a_day_are_never_held_whole(tmp_path: Path) -> None:
    for name, rows in (("little", 100), ("some", SOME), ("many", MANY)):
        folder = tmp_path / name
        folder.mkdir()
        duckdb.execute(f"COPY ({TASKS.format(rows=rows)}) TO '{folder / 'tasks.parquet'}' (ROW_GROUP_SIZE 20000)")
        (folder / "pipeline.yaml").write_text(json.dumps(PIPELINE))
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ARROW_DEFAULT_MEMORY_POOL": "system"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    few, many, rows = json.loads(done.stdout)
    assert rows == [[MANY] * DAYS]
    hours = [pl.read_parquet(p)["estimated_hours"] for p in sorted((tmp_path / "many").rglob("part-*.parquet"))]
    assert [(h.len(), h.null_count(), h.min(), h.max()) for h in hours] == [(MANY, 0, 0.0, 1.0)] * DAYS
    assert many - few < 3 * (MANY - SOME) * BYTES  # with days held whole it was 4.5 times so many

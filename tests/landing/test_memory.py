"""Deduplication of a table with many duplicates, in a process of its own: its memory does not grow with the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

LAND = """
import json, re, sys
from pathlib import Path
from engine.landing import land
from engine.sources import open_source
from engine.spec import FileSpec

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def landed(path, name):
    spec = FileSpec(type="file", path=path, deduplicate={"keys": ["id"], "order_by": "at"})
    return land(open_source(name, spec, Path()), spec, Path(name), name=name, memory_limit="96MiB")

landed("little.parquet", "little")  # whatever is taken once
before = peak()
table = landed("much.parquet", "much")
grown = peak() - before
found = table.scan().select("id", "at", "note")
import polars as pl
least = found.select(pl.len(), pl.col("id").n_unique(), pl.col("at").min()).collect().row(0)
print(json.dumps([grown, table.metrics.duplicates_removed, least]))
"""
ROWS, KEYS = 4_000_000, 1_000_000
BOUND = 500_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="its peak is read from /proc")
def test_memory_is_bounded_while_many_duplicates_are_removed(tmp_path: Path) -> None:
    for name, rows in (("little", 1000), ("much", ROWS)):
        select = f"SELECT i * 7919 % {KEYS} AS id, i AS at, md5(i::varchar) || md5((-i)::varchar) AS note FROM range({rows}) t(i)"
        duckdb.execute(f"COPY ({select}) TO '{tmp_path / name}.parquet' (ROW_GROUP_SIZE 100000)")
    done = subprocess.run(
        [sys.executable, "-c", LAND], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    grown, removed, least = json.loads(done.stdout)
    assert (removed, least) == (ROWS - KEYS, [KEYS, KEYS, ROWS - KEYS])
    assert grown < BOUND

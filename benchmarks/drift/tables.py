"""The generated tables: twenty columns of numbers and five of texts, by seed; the current one has moved in places."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

SEED, VERSION = 20261123, 1
SLICE = 1_000_000
NUMBERS = tuple(f"n{i:02}" for i in range(20))
TEXTS = tuple(f"t{i}" for i in range(5))
_KINDS = (5, 20, 60, 200, 800)  # distinct texts of each
_NULLS = {"n03": 0.02, "n07": 0.05, "t2": 0.01}


def make_tables(folder: Path, baseline: int, current: int) -> tuple[Path, Path]:
    """The two files, made unless they stand."""
    stamp, made = folder / "made.json", {"seed": SEED, "version": VERSION, "rows": [baseline, current]}
    files = folder / "baseline.parquet", folder / "current.parquet"
    if not stamp.exists() or json.loads(stamp.read_text()) != made:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (file, rows) in enumerate(zip(files, (baseline, current), strict=True)):
            with ExitStack() as stack:
                writer = None
                for i, start in enumerate(range(0, rows, SLICE)):
                    rng = np.random.default_rng([SEED, number, i])
                    table = _slice(rng, min(SLICE, rows - start), number).to_arrow()
                    writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema, compression="zstd"))
                    writer.write_table(table, row_group_size=500_000)
        stamp.write_text(json.dumps(made))
    return files


def _slice(rng: np.random.Generator, n: int, moved: int) -> pl.DataFrame:
    """``moved`` is 0 for the baseline, 1 for the current table; every third column stays as it is."""
    shapes = (
        lambda by: rng.normal(by, 1, n),
        lambda by: np.exp(rng.normal(3 + by / 2, 1, n)),
        lambda by: rng.uniform(by, 100, n),
        lambda by: rng.poisson(3 + by, n).astype(np.int64),
        lambda by: np.round(rng.gamma(2 + by, 40.0, n), 2),
        lambda by: np.where(rng.uniform(size=n) < 0.4, 0.0, rng.normal(by, 1, n)),
        lambda by: rng.standard_t(3, n) + by,
        lambda by: np.where(rng.uniform(size=n) < 0.5 + by / 10, rng.normal(-3, 1, n), rng.normal(3, 0.5, n)),
        lambda by: rng.integers(0, 1_000_000 - int(by * 1e5), n),
        lambda by: rng.beta(2, 5 + by, n),
    )
    columns = {}
    for i, name in enumerate(NUMBERS):
        by = moved * (0.0, 0.02, 0.3)[i % 3]
        columns[name] = pl.Series(shapes[i % len(shapes)](by))
    for i, (name, kinds) in enumerate(zip(TEXTS, _KINDS, strict=True)):
        weights = 1.0 / np.arange(1, kinds + 1) ** (0.5 + moved * 0.1 * (i % 2))
        words = pl.Series([f"{name}-{k + moved * (i == 4)}" for k in range(kinds)])
        columns[name] = words.gather(rng.choice(kinds, n, p=weights / weights.sum()))
    frame = pl.DataFrame(columns)
    gone = {name: pl.Series(rng.uniform(size=n) < share) for name, share in _NULLS.items()}
    return frame.with_columns(pl.when(~gone[name]).then(name).alias(name) for name in gone)

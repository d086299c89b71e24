"""Users and their activities, by seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from days import DAYS, START

USERS = 100_000
_CHUNK = 2_000_000


def make(folder: Path, events: int) -> None:
    """Writes ``activities.parquet`` (in the order of time, as a landed table has them) and ``users.parquet``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "activities.parquet"
    if path.exists() and pq.read_metadata(path).num_rows == events:
        return
    rng = np.random.default_rng(7)
    start, span = int(START.timestamp() * 1_000_000), DAYS * 86_400_000_000
    writer = None
    for first in range(0, events, _CHUNK):
        count = min(_CHUNK, events - first)
        low, high = start + span * first // events, start + span * (first + count) // events
        types = np.array(["backend", "frontend", "database", "devops", "testing"])
        others = np.array(["", "u1", "u1,u2", "u3,u4,u5"])
        frame = pl.DataFrame(
            {
                "user_id": pl.Series(rng.integers(0, USERS, count)).cast(pl.String),
                "timestamp": pl.Series(np.sort(rng.integers(low, high, count))).cast(pl.Datetime("us", "UTC")),
                "task_type": types[rng.integers(0, 5, count)],
                "completion_time": rng.gamma(2, 3000, count).round(1),
                "collaborators": others[rng.integers(0, 4, count)],
                "bugs_introduced": rng.poisson(0.2, count),
            }
        )
        table = frame.to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()
    pl.DataFrame(
        {
            "user_id": pl.Series(np.arange(USERS)).cast(pl.String),
            "experience_years": rng.random(USERS) * 20,
            "availability_hours_per_week": np.full(USERS, 40.0),
        }
    ).write_parquet(folder / "users.parquet")

# /// script
# dependencies = ["numpy==2.4.6", "polars==2.1.0"]
# ///
"""The user set at daily as-ofs by hand, from one scan: ``by_hand.py FOLDER user COUNT OUT``.

Written for this set and these events alone: they lie in the order of time, as-ofs and windows begin at midnight, and
there is memory for an array of all users and days. Sums of each day are added to running totals; a window is the
difference of two of them. Each file is written while the next day is computed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))
from beside import write
from days import START, as_ofs

SKILLS = ("backend", "frontend", "database", "devops")
DAY = 86_400_000_000
folder, count, out = Path(sys.argv[1]), int(sys.argv[3]), Path(sys.argv[4])
begun = time.monotonic()
users = pl.read_parquet(folder / "users.parquet").sort("user_id")
numbered = users.lazy().select("user_id", pl.int_range(pl.len(), dtype=pl.Int32).alias("user"))
others = pl.col("collaborators")
start = int(START.timestamp() * 1_000_000)
events = (
    pl.scan_parquet(folder / "activities.parquet")
    .join(numbered, on="user_id", how="inner", maintain_order="left")
    .select(
        "user",
        "completion_time",
        pl.col("bugs_introduced").cast(pl.Int16).alias("bugs"),
        ((pl.col("timestamp").cast(pl.Int64) - start + DAY - 1) // DAY).cast(pl.Int32).alias("day"),
        pl.col("task_type")
        .replace_strict({s: i for i, s in enumerate(SKILLS)}, default=4, return_dtype=pl.Int8)
        .alias("skill"),
        pl.when(others == "")
        .then(0)
        .otherwise(others.str.count_matches(",", literal=True) + 1)
        .cast(pl.Int16)
        .alias("others"),
    )
    .collect()
)
user, seconds, bugs, day, skill, beside = (
    events[c].to_numpy() for c in ("user", "completion_time", "bugs", "day", "skill", "others")
)
n, many = users.height, len(SKILLS) + 1
moments = as_ofs(count)
last = [(moment - START).days for moment in moments]
edges = np.searchsorted(day, np.arange(last[-1] + 2))  # where the events of each day begin
totals = {name: np.zeros(n) for name in ("count", "seconds", "bugs", "others")}
by_skill, of_skill = np.zeros(n * many), np.zeros(n * many)
kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # day: events and seconds until its end


def add(first: int, end: int) -> None:
    """Adds the events of days ``first`` until before ``end`` to the totals."""
    rows = slice(edges[first], edges[end])
    who, took = user[rows], seconds[rows]
    pair = who.astype(np.int64) * many + skill[rows]
    totals["count"] += np.bincount(who, minlength=n)
    totals["seconds"] += np.bincount(who, took, minlength=n)
    totals["bugs"] += np.bincount(who, bugs[rows], minlength=n)
    totals["others"] += np.bincount(who, beside[rows], minlength=n)
    by_skill[:] += np.bincount(pair, took, minlength=n * many)
    of_skill[:] += np.bincount(pair, minlength=n * many)
    kept[end - 1] = totals["count"].copy(), totals["seconds"].copy()


def ratio(a: np.ndarray, b: np.ndarray, otherwise: float) -> np.ndarray:
    return np.divide(a, b, out=np.full(n, otherwise), where=b > 0)


def features(number: int) -> pl.DataFrame:
    until = last[number]
    none = (np.zeros(n), np.zeros(n))
    week, month = kept.get(until - 7, none), kept.get(until - 30, none)
    n7, n30 = totals["count"] - week[0], totals["count"] - month[0]
    all_of, available = totals["count"], users["availability_hours_per_week"].to_numpy()
    columns = {"user_id": users["user_id"]}
    for i, name in enumerate(SKILLS):
        sums, counts = by_skill[i::many], of_skill[i::many]
        columns[f"skill_score_{name}"] = np.where(counts > 0, 1 / (1 + ratio(sums, counts, 0.0) / 3600), 0.0)
    columns |= {
        "current_workload_hours": 2.0 * n7,
        "tasks_completed_7d": n7.astype(np.int64),
        "tasks_completed_30d": n30.astype(np.int64),
        "velocity_tasks_per_week": n30 * 7 / 30.0,
        "avg_completion_time_hours": ratio(totals["seconds"] - week[1], n7, 0.0) / 3600,
        "avg_collaborators": pl.Series(ratio(totals["others"], all_of, np.nan), nan_to_null=True),
        "bug_rate": ratio(totals["bugs"], all_of, 0.0),
        "availability_hours_per_week": available,
        "current_capacity_percentage": np.clip(100 * (1 - 2.0 * n7 / available), 0, 100),
        "experience_years": users["experience_years"],
    }
    frame = pl.DataFrame(columns)
    moment = pl.lit(moments[number]).cast(pl.Datetime("us", "UTC")).alias("event_timestamp")
    return frame.select("user_id", moment, pl.exclude("user_id"))


def frames() -> Iterator[pl.DataFrame]:
    done = 0
    for stop in sorted({0, *(max(0, d - w) for d in last for w in (0, 7, 30))}):
        add(done, stop + 1)
        done = stop + 1
        if stop in last:
            yield features(last.index(stop))


write(frames(), out)
print("inside", time.monotonic() - begun)

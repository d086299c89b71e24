# /// script
# dependencies = ["polars==2.1.0"]
# ///
"""Hand-written Polars (streaming), one query per as-of: ``polars_scan.py FOLDER user COUNT OUT``."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))
from days import as_ofs

folder, count, out = Path(sys.argv[1]), int(sys.argv[3]), Path(sys.argv[4])
begun = time.monotonic()
for i, moment in enumerate(as_ofs(count)):
    events = pl.scan_parquet(folder / "activities.parquet").filter(pl.col("timestamp") <= moment)
    week = pl.col("timestamp") > moment - timedelta(days=7)
    month = pl.col("timestamp") > moment - timedelta(days=30)
    seconds, others = pl.col("completion_time"), pl.col("collaborators")
    skills = ("backend", "frontend", "database", "devops")
    # Columns first and plain sums after: what Polars streams best.
    events = events.select(
        "user_id",
        week.cast(pl.Int64).alias("n7"),
        month.cast(pl.Int64).alias("n30"),
        pl.when(week).then(seconds).alias("mean7"),
        pl.when(others == "").then(0).otherwise(others.str.count_matches(",", literal=True) + 1).alias("others"),
        pl.col("bugs_introduced").alias("bugs"),
        *(pl.when(pl.col("task_type") == skill).then(seconds).alias(skill) for skill in skills),
    )
    totals = events.group_by("user_id").agg(
        pl.len().alias("n"), pl.col("n7", "n30", "bugs").sum(), pl.col("mean7", "others", *skills).mean()
    )
    joined = pl.scan_parquet(folder / "users.parquet").join(totals, on="user_id", how="left")
    n7, n30 = pl.col("n7").fill_null(0), pl.col("n30").fill_null(0)
    joined.select(
        "user_id",
        pl.lit(moment).cast(pl.Datetime("us", "UTC")).alias("event_timestamp"),
        *((1 / (1 + pl.col(skill) / 3600)).fill_null(0.0).alias(f"skill_score_{skill}") for skill in skills),
        (n7 * 2.0).alias("current_workload_hours"),
        n7.alias("tasks_completed_7d"),
        n30.alias("tasks_completed_30d"),
        (n30 * 7 / 30).alias("velocity_tasks_per_week"),
        (pl.col("mean7") / 3600).fill_null(0.0).alias("avg_completion_time_hours"),
        pl.col("others").alias("avg_collaborators"),
        (pl.col("bugs") / pl.col("n")).fill_null(0.0).alias("bug_rate"),
        "availability_hours_per_week",
        (100 * (1 - n7 * 2.0 / pl.col("availability_hours_per_week")))
        .clip(0, 100)
        .alias("current_capacity_percentage"),
        "experience_years",
    ).sort("user_id").sink_parquet(out / f"{i}.parquet", compression="zstd", maintain_order=True)
print("inside", time.monotonic() - begun)

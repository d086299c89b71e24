# /// script
# dependencies = ["featuretools==1.31.0", "pandas==2.3.3", "pyarrow==26.0.1"]
# ///
"""featuretools at one as-of: ``featuretools_dfs.py FOLDER user COUNT OUT``.

A matrix for each window (training_window), as of one cutoff time for all users; conditions as interesting values:
https://featuretools.alteryx.com/en/stable/getting_started/handling_time.html
One cutoff time for all is what its guide to performance advises; types are given, not inferred:
https://featuretools.alteryx.com/en/stable/guides/performance.html
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import featuretools as ft
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from days import as_ofs

warnings.filterwarnings("ignore")
SKILLS = ["backend", "frontend", "database", "devops"]
folder, count, out = Path(sys.argv[1]), int(sys.argv[3]), Path(sys.argv[4])
begun = time.monotonic()


def naive(moments: pd.Series) -> pd.Series:
    """It compares moments without a zone."""
    return moments.dt.tz_localize(None).astype("datetime64[ns]")


events = pd.read_parquet(
    folder / "activities.parquet", read_dictionary=["user_id", "task_type", "collaborators"]
).reset_index(names="id")
texts = events["collaborators"].cat.categories
events["others"] = np.array([len(t.split(",")) if t else 0 for t in texts])[events["collaborators"].cat.codes]
events["timestamp"] = naive(events["timestamp"])
events["user_id"] = events["user_id"].astype(str)
events["task_type"] = events["task_type"].cat.rename_categories(str)
users = pd.read_parquet(folder / "users.parquet").sort_values("user_id")
tables = ft.EntitySet("work")
tables.add_dataframe(
    users,
    "users",
    index="user_id",
    logical_types={"user_id": "Unknown", "experience_years": "Double", "availability_hours_per_week": "Double"},
)
tables.add_dataframe(
    events.drop(columns="collaborators"),
    "activities",
    index="id",
    time_index="timestamp",
    logical_types={
        "id": "Integer",
        "user_id": "Unknown",
        "timestamp": "Datetime",
        "task_type": "Categorical",
        "completion_time": "Double",
        "bugs_introduced": "Integer",
        "others": "Integer",
    },
)
tables.add_relationship("users", "user_id", "activities", "user_id")
tables.add_interesting_values(dataframe_name="activities", values={"task_type": SKILLS})


def matrix(moment: pd.Timestamp, primitives: list[str], where: list[str], window: str | None) -> pd.DataFrame:
    found, _ = ft.dfs(
        entityset=tables,
        target_dataframe_name="users",
        cutoff_time=moment,
        agg_primitives=primitives,
        trans_primitives=[],
        where_primitives=where,
        training_window=window,
        max_depth=1,
    )
    return found.sort_index()


for i, when in enumerate(as_ofs(count)):
    moment = pd.Timestamp(when).tz_localize(None)
    whole = matrix(moment, ["count", "mean", "sum"], ["mean"], None)
    week = matrix(moment, ["count", "mean"], [], "7 days")
    month = matrix(moment, ["count"], [], "30 days")
    n7, n30 = (m["COUNT(activities)"].fillna(0).astype("int64") for m in (week, month))
    available = whole["availability_hours_per_week"]
    found = pd.DataFrame({"event_timestamp": pd.Timestamp(when).as_unit("us")}, index=whole.index)
    for skill in SKILLS:
        mean = whole[f"MEAN(activities.completion_time WHERE task_type = {skill})"]
        found[f"skill_score_{skill}"] = (1 / (1 + mean / 3600)).fillna(0.0)
    found["current_workload_hours"] = n7 * 2.0
    found["tasks_completed_7d"] = n7
    found["tasks_completed_30d"] = n30
    found["velocity_tasks_per_week"] = n30 * 7 / 30
    found["avg_completion_time_hours"] = (week["MEAN(activities.completion_time)"] / 3600).fillna(0.0)
    found["avg_collaborators"] = whole["MEAN(activities.others)"]
    found["bug_rate"] = (whole["SUM(activities.bugs_introduced)"] / whole["COUNT(activities)"].clip(lower=1)).fillna(
        0.0
    )
    found["availability_hours_per_week"] = available
    found["current_capacity_percentage"] = (100 * (1 - n7 * 2.0 / available)).clip(0, 100)
    found["experience_years"] = whole["experience_years"]
    found.reset_index().to_parquet(out / f"{i}.parquet", compression="zstd", index=False)
print("inside", time.monotonic() - begun)

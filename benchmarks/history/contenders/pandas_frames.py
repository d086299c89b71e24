# /// script
# dependencies = ["pandas==2.3.3", "pyarrow==26.0.1"]
# ///
"""pandas at one as-of: ``pandas_frames.py FOLDER user COUNT OUT``.

As its documentation recommends: only the rows that are needed, texts that repeat as categories, plain aggregates of one
groupby instead of functions: https://pandas.pydata.org/docs/user_guide/scale.html
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from days import as_ofs

SKILLS = ["backend", "frontend", "database", "devops"]
folder, count, out = Path(sys.argv[1]), int(sys.argv[3]), Path(sys.argv[4])
begun = time.monotonic()
for i, moment in enumerate(as_ofs(count)):
    events = pd.read_parquet(
        folder / "activities.parquet",
        filters=[("timestamp", "<=", moment)],
        read_dictionary=["user_id", "task_type", "collaborators"],
    )
    texts = events["collaborators"].cat.categories
    others = np.array([len(text.split(",")) if text else 0 for text in texts])
    events["others"] = others[events["collaborators"].cat.codes]
    week = events[events["timestamp"] > moment - pd.Timedelta(days=7)].groupby("user_id", observed=True)
    month = events[events["timestamp"] > moment - pd.Timedelta(days=30)].groupby("user_id", observed=True)
    whole = events.groupby("user_id", observed=True)
    totals = whole.agg(n=("others", "size"), others=("others", "mean"), bugs=("bugs_introduced", "sum"))
    skills = events.pivot_table("completion_time", "user_id", "task_type", "mean", observed=True)
    users = pd.read_parquet(folder / "users.parquet").set_index("user_id").sort_index()
    index = users.index
    n7 = week.size().reindex(index).fillna(0).astype("int64")
    n30 = month.size().reindex(index).fillna(0).astype("int64")
    totals, skills = totals.reindex(index), skills.reindex(index)
    mean7 = week["completion_time"].mean().reindex(index)
    available = users["availability_hours_per_week"]
    found = pd.DataFrame({"event_timestamp": pd.Timestamp(moment).as_unit("us")}, index=index)
    for skill in SKILLS:
        found[f"skill_score_{skill}"] = (1 / (1 + skills[skill] / 3600)).fillna(0.0)
    found["current_workload_hours"] = n7 * 2.0
    found["tasks_completed_7d"] = n7
    found["tasks_completed_30d"] = n30
    found["velocity_tasks_per_week"] = n30 * 7 / 30
    found["avg_completion_time_hours"] = (mean7 / 3600).fillna(0.0)
    found["avg_collaborators"] = totals["others"]
    found["bug_rate"] = (totals["bugs"] / totals["n"]).fillna(0.0)
    found["availability_hours_per_week"] = available
    found["current_capacity_percentage"] = (100 * (1 - n7 * 2.0 / available)).clip(0, 100)
    found["experience_years"] = users["experience_years"]
    found.reset_index().to_parquet(out / f"{i}.parquet", compression="zstd", index=False)
print("inside", time.monotonic() - begun)

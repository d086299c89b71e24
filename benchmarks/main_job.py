"""The main job over 2,000,000 activities and 50,000 users in files: seconds and peak memory of a fresh process.

Without Feast: its own import and materialise would be most of it. Usage: main_job.py [RUNS]
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from harness.measure import measure

SEED = 20251004
ACTIVITIES, USERS, TASKS, PROJECTS, TEAMS = 2_000_000, 50_000, 200_000, 5_000, 5_000
AS_OF = datetime(2025, 10, 4, tzinfo=UTC)
DATA = Path(__file__).parent / ".data" / "main_job"

PIPELINE = """\
version: 1
name: main_job
sources:
  users:
    {type: file, path: users.csv, critical_columns: [user_id], deduplicate: {keys: [user_id], order_by: updated_at}}
  activities: {type: file, path: activities.parquet, critical_columns: [user_id]}
  tasks: {type: file, path: tasks.csv, deduplicate: {keys: [task_id]}}
  projects: {type: file, path: projects.csv}
  teams: {type: file, path: teams.csv}
validation:
  users:
    schema: {user_id: string, experience_years: float}
    required_columns: [user_id, email]
    unique_columns: [user_id, email]
    range_constraints: {experience_years: [0, 60]}
    categorical_constraints: {status: [active, inactive, pending]}
    freshness: {timestamp_column: updated_at, max_age_hours: 24}
    distribution: {experience_years: 15.0}
  activities:
    required_columns: [user_id, timestamp]
    unique_columns: [activity_id]
    range_constraints: {completion_time: [0, 7000]}
    categorical_constraints: {task_type: [backend, frontend, database, devops, docs]}
    freshness: {timestamp_column: timestamp, max_age_hours: 24}
    distribution: {completion_time: 3600}
features: {user_features: {}, task_features: {}, project_features: {normalize: false}, team_features: {}}
"""


def generate() -> None:
    """Writes the world once."""
    if (DATA / "pipeline.yaml").exists():
        return
    DATA.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    start = AS_OF - timedelta(days=90)
    names = np.array([f"user_{i}" for i in range(USERS)])
    kinds = np.array(["backend", "frontend", "database", "devops", "docs"])
    with_whom = rng.integers(0, USERS, (ACTIVITIES, 2))
    pl.DataFrame(
        {
            "activity_id": np.arange(ACTIVITIES),
            "user_id": names[rng.integers(0, USERS, ACTIVITIES)],
            "timestamp": rng.integers(0, 90 * 86_400_000_000, ACTIVITIES),
            "task_type": kinds[rng.integers(0, 5, ACTIVITIES)],
            "completion_time": rng.random(ACTIVITIES) * 7200,
            "bugs_introduced": rng.integers(0, 3, ACTIVITIES),
            "a": names[with_whom[:, 0]],
            "b": names[with_whom[:, 1]],
        }
    ).with_columns(
        (pl.lit(start) + pl.duration(microseconds=pl.col("timestamp"))).alias("timestamp"),
        pl.concat_str("a", "b", separator=",").alias("collaborators"),
    ).drop("a", "b").write_parquet(DATA / "activities.parquet")
    pl.DataFrame(
        {
            "user_id": names,
            "email": [f"user_{i}@example.com" for i in range(USERS)],
            "experience_years": rng.random(USERS) * 30,
            "skills": ["backend,sql"] * USERS,
            "availability_hours_per_week": rng.integers(10, 60, USERS),
            "status": ["active"] * USERS,
            "created_at": ["2024-01-01T00:00:00Z"] * USERS,
            "updated_at": ["2025-10-03 20:00:00"] * USERS,
        }
    ).write_csv(DATA / "users.csv")
    pl.DataFrame(
        {
            "task_id": [f"t{i}" for i in range(TASKS)],
            "project_id": rng.integers(0, PROJECTS, TASKS),
            "description": ["what is to be done, in a few words"] * TASKS,
            "priority": ["high"] * TASKS,
            "estimated_hours": rng.random(TASKS) * 10,
            "required_skills": ["backend,testing"] * TASKS,
            "dependencies": ["t1,t2"] * TASKS,
            "deadline": ["2025-11-01T00:00:00Z"] * TASKS,
            "status": np.array(["completed", "blocked", "in_progress"])[rng.integers(0, 3, TASKS)],
            "completed_at": [None] * TASKS,
            "created_at": ["2025-01-01T00:00:00Z"] * TASKS,
        },
        schema_overrides={"completed_at": pl.String},
    ).write_csv(DATA / "tasks.csv")
    pl.DataFrame(
        {
            "project_id": range(PROJECTS),
            "team_members": ["user_1,user_2"] * PROJECTS,
            "budget": rng.random(PROJECTS) * 1000,
            "spent": rng.random(PROJECTS) * 1000,
        }
    ).write_csv(DATA / "projects.csv")
    members = rng.integers(0, USERS, (TEAMS, 10))
    pl.DataFrame({"team_id": range(TEAMS), "members": [",".join(names[m]) for m in members]}).write_csv(
        DATA / "teams.csv"
    )
    (DATA / "pipeline.yaml").write_text(PIPELINE)


def check() -> None:
    """The published rows, and one user's features against a plain filter of the raw events."""
    expected = {"user": USERS, "task": TASKS, "project": PROJECTS, "team": TEAMS}
    for name, rows in expected.items():
        [part] = (DATA / "features" / f"{name}_features").rglob("*.parquet")
        found = pl.scan_parquet(part, hive_partitioning=False).select(pl.len()).collect().item()
        assert found == rows, (name, found)
    events = pl.scan_parquet(DATA / "activities.parquet").filter(
        pl.col("timestamp") > AS_OF - timedelta(days=7), pl.col("timestamp") <= AS_OF
    )
    counts = events.group_by("user_id").len().collect()
    [part] = (DATA / "features" / "user_features").rglob("*.parquet")
    scaled = pl.read_parquet(part, hive_partitioning=False).join(counts, on="user_id", how="left")
    wanted = scaled["len"].fill_null(0).cast(pl.Float64)
    wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
    assert (scaled["tasks_completed_7d"] - wanted).abs().max() < 1e-9


def once() -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MiB of one fresh run."""
    for folder in ("features", ".maestro"):
        shutil.rmtree(DATA / folder, ignore_errors=True)
    command = [sys.executable, "-m", "engine", "run", str(DATA / "pipeline.yaml"), "--as-of", "2025-10-04", "--quiet"]
    found = measure(command, env=os.environ, cwd=Path(__file__).parents[1], log=DATA / "log")
    return found.wall, found.cpu, found.peak / 2**20


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    generate()
    once()
    check()
    found = [once() for _ in range(runs)]
    for label, values in zip(("wall s", "cpu s", "peak MiB"), zip(*found, strict=True), strict=True):
        print(f"{label:>8}: median {statistics.median(values):.2f}, min {min(values):.2f}, max {max(values):.2f}")


if __name__ == "__main__":
    main()

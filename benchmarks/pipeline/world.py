"""The world of the whole pipeline, by seed: tables for PostgreSQL, activities in Parquet, tasks as pages of JSON."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

SEED = 20_251_004
LAST = datetime(2025, 10, 4, tzinfo=UTC)  # the newest as-of
DAYS = 90  # of events, up to it
FILES = 20
PAGE = 1_000
MEMBERS = 10
KINDS = ["backend", "frontend", "database", "devops", "docs"]
SKILLS = ["backend,sql", "frontend,css", "devops", "backend,frontend,testing", "Database, SQL", "docs"]
REQUIRED = ["backend,testing", "frontend", "database,devops", "backend,frontend", ""]
SCHEMAS = {
    "users": "user_id text PRIMARY KEY, email text NOT NULL, experience_years double precision, skills text, "
    "availability_hours_per_week integer, status text NOT NULL, created_at timestamptz, updated_at timestamptz",
    "projects": "project_id bigint PRIMARY KEY, team_members text, budget double precision, spent double precision",
    "teams": "team_id bigint PRIMARY KEY, members text",
}


@dataclass(frozen=True)
class Size:
    """How much there is, and as of how many days, the last of which is `LAST`."""

    activities: int
    users: int
    tasks: int
    projects: int
    teams: int
    days: int = 30

    @property
    def first(self) -> datetime:
        return LAST - timedelta(days=self.days - 1)


def make(folder: Path, size: Size) -> None:
    """``users.csv`` and the like, ``activities/``, ``pages/``; done once."""
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "activities").mkdir(parents=True)
    (folder / "pages").mkdir()
    rng = np.random.default_rng(SEED)
    names = pl.Series("user_id", [f"user_{i:07}" for i in range(size.users)])
    _users(rng, names).write_csv(folder / "users.csv")
    for name, count, column in (("projects", size.projects, "team_members"), ("teams", size.teams, "members")):
        _groups(rng, names, count, name, column).write_csv(folder / f"{name}.csv")
    edges = np.linspace(0, size.activities, FILES + 1, dtype=np.int64)
    for number, (start, end) in enumerate(pairwise(edges)):
        part = _activities(rng, names, int(start), int(end - start))
        part.write_parquet(folder / "activities" / f"part-{number:02}.parquet")
    for number, start in enumerate(range(0, size.tasks, PAGE), 1):
        rows = _tasks(rng, start, min(PAGE, size.tasks - start), size.projects).write_json()
        (folder / "pages" / f"{number}.json").write_text('{"data":' + rows + "}")
    (folder / "done").touch()


def _users(rng: np.random.Generator, names: pl.Series) -> pl.DataFrame:
    """Most are older than the first as-of, some came since; a few lack experience or availability."""
    n = len(names)
    age = np.where(rng.random(n) < 0.95, rng.integers(40, 900, n), rng.integers(0, 35, n)) * 86_400
    hours = rng.choice([10, 20, 32, 40, 40, 60], n)
    return pl.DataFrame(
        {
            "user_id": names,
            "email": names + "@example.com",
            "experience_years": np.round(rng.random(n) * 30, 1),
            "skills": rng.choice(SKILLS, n),
            "availability_hours_per_week": hours,
            "status": rng.choice(["active", "active", "inactive", "pending"], n),
            "created_at": _moment(LAST, -(age + rng.integers(0, 86_400, n))),
            "updated_at": _moment(LAST, -rng.integers(0, 86_400, n)),
        }
    ).with_columns(
        pl.when(pl.Series(rng.random(n) > 0.02)).then("experience_years"),
        pl.when(pl.Series(rng.random(n) > 0.05)).then("availability_hours_per_week"),
    )


def _groups(rng: np.random.Generator, names: pl.Series, count: int, kind: str, column: str) -> pl.DataFrame:
    members = names.to_numpy()[rng.integers(0, len(names), (count, MEMBERS))]
    frame = pl.DataFrame({f"{kind[:-1]}_id": np.arange(count), column: [",".join(row) for row in members]})
    if kind == "teams":
        return frame
    budget = np.round(rng.random(count) * 1_000, 2)
    return frame.with_columns(budget=budget, spent=np.round(budget * rng.random(count) * 1.2, 2))


def _activities(rng: np.random.Generator, names: pl.Series, start: int, n: int) -> pl.DataFrame:
    """In no order of time; 1 in 2,000 takes longer than allowed, 1 in 100 has no time, 1 in 5 was done alone."""
    users = names.to_numpy()
    slow = rng.random(n) < 0.0005
    return pl.DataFrame(
        {
            "activity_id": np.arange(start, start + n),
            "user_id": users[rng.integers(0, len(users), n)],
            "timestamp": _moment(LAST, -rng.integers(0, DAYS * 86_400, n)),
            "task_type": rng.choice(KINDS, n),
            "completion_time": np.round(np.where(slow, 90_000.0, rng.random(n) * 7_200), 2),
            "bugs_introduced": rng.integers(0, 3, n),
            "a": users[rng.integers(0, len(users), n)],
            "b": users[rng.integers(0, len(users), n)],
        }
    ).select(
        pl.exclude("a", "b", "completion_time"),
        pl.when(pl.Series(rng.random(n) > 0.01)).then("completion_time").alias("completion_time"),
        pl.when(pl.Series(rng.random(n) > 0.2)).then(pl.concat_str("a", "b", separator=",")).alias("collaborators"),
    )


def _tasks(rng: np.random.Generator, start: int, n: int, projects: int) -> pl.DataFrame:
    created = -rng.integers(0, 120 * 86_400, n)
    status = rng.choice(["completed", "blocked", "in_progress"], n)
    dependencies = rng.choice(["", "t1", "t1,t2", "t1, t2,t3"], n)
    iso = "%Y-%m-%dT%H:%M:%SZ"
    finished = pl.when((pl.col("status") == "completed") & (pl.col("completed_at") <= LAST)).then("completed_at")
    return pl.DataFrame(
        {
            "task_id": [f"task_{i:07}" for i in range(start, start + n)],
            "project_id": rng.integers(0, projects, n),
            "description": ["what is to be done, " * k for k in rng.integers(1, 12, n)],
            "priority": rng.choice(["low", "medium", "high", "critical"], n),
            "estimated_hours": np.round(rng.random(n) * 10, 2),
            "required_skills": rng.choice(REQUIRED, n),
            "dependencies": dependencies,
            "deadline": _moment(LAST, created + rng.integers(1, 90 * 86_400, n)),
            "status": status,
            "completed_at": _moment(LAST, created + rng.integers(0, 60 * 86_400, n)),
            "created_at": _moment(LAST, created),
        }
    ).with_columns(
        finished.dt.strftime(iso),
        pl.col("deadline", "created_at").dt.strftime(iso),
        pl.when(pl.Series(rng.random(n) > 0.03)).then("estimated_hours"),
    )


def _moment(origin: datetime, seconds: np.ndarray) -> pl.Series:
    micros = np.int64(origin.timestamp()) * 1_000_000 + seconds * 1_000_000
    return pl.Series(micros).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")

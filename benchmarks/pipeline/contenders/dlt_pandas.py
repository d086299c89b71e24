# /// script
# dependencies = [
#     "dlt[parquet,s3,filesystem]==1.31.0", "connectorx==0.4.6", "sqlalchemy==2.1.9", "psycopg2-binary==2.9.13",
#     "pandas==2.3.3", "pandera[pandas]==0.35.0", "feast[duckdb,redis]==0.67.0", "pyarrow==26.0.1",
# ]
# ///
"""The stack people glue: dlt lands everything as Parquet, pandera checks pandas frames, features in vectorised pandas,
Feast's materialize.

dlt with its fastest settings: tables through connectorx, files as Arrow batches, into its filesystem destination.
https://dlthub.com/docs/dlt-ecosystem/verified-sources/sql_database/configuration#connectorx
https://dlthub.com/docs/dlt-ecosystem/verified-sources/filesystem/basic
https://dlthub.com/docs/dlt-ecosystem/verified-sources/rest_api/basic
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}

import dlt
import numpy as np
import pandas as pd
from dlt.destinations import filesystem as target
from dlt.sources.credentials import AwsCredentials
from dlt.sources.filesystem import filesystem, read_parquet
from dlt.sources.rest_api import rest_api_source
from dlt.sources.sql_database import sql_table
from in_pandas import DAY, SKILLS, elements, publish_days, task_columns, validate
from stages import Stages
from views import materialize, write_store

CHUNK = 100_000


def extract(where: dict, landed: Path, work: Path) -> dict[str, pd.DataFrame]:
    url = where["database"]
    tables = [
        sql_table(
            url.replace("postgresql:", "postgresql+psycopg2:"),
            name,
            chunk_size=CHUNK,
            backend="connectorx",
            reflection_level="full_with_precision",
            backend_kwargs={"conn": url, "return_type": "arrow_stream"},
        )
        for name in ("users", "projects", "teams")
    ]
    credentials = AwsCredentials(
        aws_access_key_id=where["access_key"],
        aws_secret_access_key=where["secret_key"],
        endpoint_url=where["endpoint"],
        region_name="us-east-1",
    )
    files = filesystem(
        bucket_url=f"s3://{where['bucket']}", credentials=credentials, file_glob="activities/*.parquet"
    ) | read_parquet(chunksize=CHUNK, use_pyarrow=True)
    base, _, path = where["tasks"].rpartition("/")
    paginator = {"type": "page_number", "base_page": 1, "page_param": "page", "total_path": None}
    endpoint = {"path": path, "params": {"per_page": where["page"]}, "data_selector": "data"}
    api = rest_api_source(
        {
            "client": {"base_url": base, "paginator": paginator},
            "resources": [{"name": "tasks", "endpoint": endpoint}],
        }
    )
    destination = target(landed.absolute().as_uri())
    pipeline = dlt.pipeline("bench", pipelines_dir=str(work), destination=destination, dataset_name="landed")
    sources = [*tables, files.with_name("activities"), api]
    pipeline.run(sources, loader_file_format="parquet").raise_on_failed_jobs()
    names = ("users", "projects", "teams", "activities", "tasks")
    frames = {name: pd.read_parquet(landed / "landed" / name) for name in names}
    for name, column in (("tasks", "deadline"), ("tasks", "completed_at"), ("tasks", "created_at")):
        frames[name][column] = pd.to_datetime(frames[name][column], utc=True)
    return frames


class Features:
    """What does not depend on the as-of is computed once; users are categories, for group-by's sake."""

    def __init__(self, tables: dict[str, pd.DataFrame]) -> None:
        self.users, self.tasks = tables["users"], task_columns(tables["tasks"])
        activities = tables["activities"]
        alone = activities["collaborators"].fillna("")
        self.events = pd.DataFrame(
            {
                "user": pd.Categorical(activities["user_id"], categories=self.users["user_id"]),
                "timestamp": activities["timestamp"],
                "time": activities["completion_time"],
                "bugs": activities["bugs_introduced"].fillna(0),
                "company": alone.str.count(",") + (alone != ""),
                **{s: activities["completion_time"].where(activities["task_type"] == s) for s in SKILLS},
            }
        )
        members = tables["teams"].assign(user_id=elements(tables["teams"]["members"]))
        self.members = members[["team_id", "user_id"]].explode("user_id").drop_duplicates()
        self.sizes = self.members.groupby("team_id").size()
        skills = self.users[["user_id"]].assign(skill=elements(self.users["skills"].str.lower())).explode("skill")
        self.skills = skills.dropna().merge(self.members, on="user_id")
        self.projects = tables["projects"]
        self.projects["team_size"] = elements(self.projects["team_members"]).map(lambda of: len(set(of)))
        self.together = self._together(activities)

    def _together(self, activities: pd.DataFrame) -> pd.DataFrame:
        """Each event of each team of its user: when, and whether another member had part in it."""
        columns = ["activity_id", "user_id", "timestamp", "collaborators"]
        events = activities[columns].merge(self.members, on="user_id")
        others = events[["activity_id", "user_id", "team_id"]].assign(other=elements(events["collaborators"]))
        others = others.explode("other").query("other != user_id")
        mates = others.merge(self.members.rename(columns={"user_id": "other"}), on=["team_id", "other"])
        mates = mates[["activity_id", "team_id"]].drop_duplicates().assign(mate=1.0)
        events = events.merge(mates, on=["activity_id", "team_id"], how="left")
        return events[["team_id", "timestamp", "mate"]].fillna({"mate": 0.0})

    def at(self, at: pd.Timestamp) -> dict[str, pd.DataFrame]:
        users = self.user_features(at)
        return {
            "user_features": users,
            "task_features": self.task_features(at),
            "project_features": self.project_features(at),
            "team_features": self.team_features(at, users),
        }

    def user_features(self, at: pd.Timestamp) -> pd.DataFrame:
        events = self.events[self.events["timestamp"] <= at]
        grouped = events.groupby("user", observed=False)
        history = grouped[[*SKILLS, "company"]].mean()
        bugs, seen = grouped["bugs"].sum(), grouped.size()
        month = events[events["timestamp"] > at - 30 * DAY]
        week = month[month["timestamp"] > at - 7 * DAY].groupby("user", observed=False)
        users = self.users.set_index("user_id")
        loads = week.size().reindex(users.index) * 2.0
        hours = users["availability_hours_per_week"].fillna(40).astype("float64")
        months = month.groupby("user", observed=False).size()
        made = {f"skill_score_{s}": (1 / (1 + history[s] / 3600)).fillna(0.0) for s in SKILLS}
        made |= {
            "current_workload_hours": loads,
            "tasks_completed_7d": week.size(),
            "tasks_completed_30d": months,
            "velocity_tasks_per_week": months * 7 / 30,
            "avg_completion_time_hours": (week["time"].mean() / 3600).fillna(0.0),
            "avg_collaborators": history["company"],
            "bug_rate": (bugs / seen).fillna(0.0),
            "availability_hours_per_week": hours,
            "current_capacity_percentage": (100 * (1 - loads / hours)).clip(0, 100).where(hours > 0, 0.0),
            "experience_years": users["experience_years"],
        }
        frame = pd.DataFrame({name: values.to_numpy() for name, values in made.items()})
        frame.insert(0, "user_id", users.index)
        there = users["created_at"].isna() | (users["created_at"] <= at)
        return frame[there.to_numpy()]

    def task_features(self, at: pd.Timestamp) -> pd.DataFrame:
        tasks = self.tasks[self.tasks["created_at"].isna() | (self.tasks["created_at"] <= at)]
        days = (tasks["deadline"] - at) // DAY
        return tasks.assign(
            priority=tasks["level"],
            days_until_deadline=days.where(tasks["deadline"].notna()),
            is_urgent=(days < 3).astype("int64"),
        )

    def project_features(self, at: pd.Timestamp) -> pd.DataFrame:
        tasks = self.tasks[self.tasks["created_at"].isna() | (self.tasks["created_at"] <= at)]
        done = (tasks["completed_at"] <= at) | (tasks["completed_at"].isna() & (tasks["status"] == "completed"))
        counts = pd.DataFrame(
            {
                "project_id": tasks["project_id"],
                "total_tasks": 1,
                "completed_tasks": done,
                "in_progress_tasks": (tasks["status"] == "in_progress") & ~done,
                "blocked_tasks": (tasks["status"] == "blocked") & ~done,
                "velocity_tasks_per_week": (tasks["completed_at"] <= at) & (tasks["completed_at"] > at - 7 * DAY),
                "overdue_tasks": (tasks["deadline"] < at) & ~done,
            }
        )
        counts = counts.groupby("project_id").sum()
        made = self.projects.join(counts, on="project_id").fillna(dict.fromkeys(counts.columns, 0))
        total = made["total_tasks"].clip(lower=1)
        used = made["spent"] / made["budget"]
        return made.assign(
            completion_percentage=100 * made["completed_tasks"] / total,
            risk_score=(made["overdue_tasks"] / total).clip(upper=1.0),
            estimated_budget=made["budget"],
            spent_budget=made["spent"],
            budget_utilization=used.where(~(made["budget"] <= 0), 0.0),
        )

    def team_features(self, at: pd.Timestamp, users: pd.DataFrame) -> pd.DataFrame:
        grouped = self.members.merge(users, on="user_id").groupby("team_id")
        years, loads = grouped["experience_years"], grouped["current_workload_hours"]
        skills = self.skills[self.skills["user_id"].isin(users["user_id"])].groupby("team_id")["skill"].nunique()
        when = self.together["timestamp"]
        month = self.together[(when <= at) & (when > at - 30 * DAY)]
        made = pd.DataFrame({"team_size": self.sizes}).join(
            pd.DataFrame(
                {
                    "avg_experience_years": years.mean(),
                    "min_experience_years": years.min(),
                    "max_experience_years": years.max(),
                    "avg_workload_hours": loads.mean(),
                    "workload_std": loads.std().where(loads.size() > 1, 0.0),
                }
            )
        )
        made["skill_diversity"] = skills.reindex(made.index).fillna(0)
        made["is_balanced"] = (made["workload_std"] < 10).astype("int64")
        made["collaboration_score"] = month.groupby("team_id")["mate"].mean().reindex(made.index)
        return made.reset_index()


def main(config: str, out: str) -> None:
    where, folder = json.loads(Path(config).read_text()), Path(out)
    first, last = (pd.Timestamp(where[name]) for name in ("first", "last"))
    stages = Stages()
    tables = extract(where, folder / "landed", folder / "dlt")
    stages.done("extract")
    (folder / "checks.json").write_text(json.dumps(validate(tables, last)))
    stages.done("validate")
    features = Features(tables)
    del tables
    publish_days(features.at, folder / "features", first, last)
    stages.done("features")
    del features
    write_store(folder / "repo", where["redis"])
    materialize(folder / "repo", (folder / "features").absolute(), last)
    stages.done("online")
    stages.write(folder)


if __name__ == "__main__" and sys.argv[1:]:
    np.seterr(all="ignore")
    main(*sys.argv[1:3])

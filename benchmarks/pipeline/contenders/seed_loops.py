# /// script
# dependencies = [
#     "dlt[parquet,s3,filesystem]==1.31.0", "connectorx==0.4.6", "sqlalchemy==2.1.9", "psycopg2-binary==2.9.13",
#     "pandas==2.3.3", "pandera[pandas]==0.35.0", "feast[duckdb,redis]==0.67.0", "pyarrow==26.0.1",
# ]
# ///
"""The seed's way: as the pandas stack, but users, projects, teams are walked row by row, each with its own filters."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import pandas as pd
from dlt_pandas import extract
from in_pandas import DAY, SKILLS, publish_days, task_columns, validate
from views import materialize, write_store


class Loops:
    def __init__(self, tables: dict[str, pd.DataFrame]) -> None:
        self.tables = tables
        self.tasks = task_columns(tables["tasks"])

    def at(self, at: pd.Timestamp) -> dict[str, pd.DataFrame]:
        users = self.users(at)
        tasks = self.tasks[self.tasks["created_at"] <= at]
        days = [(deadline - at) // DAY for deadline in tasks["deadline"]]
        return {
            "user_features": users,
            "task_features": tasks.assign(
                priority=tasks["level"], days_until_deadline=days, is_urgent=[int(d < 3) for d in days]
            ),
            "project_features": self.projects(tasks, at),
            "team_features": self.teams(users, at),
        }

    def users(self, at: pd.Timestamp) -> pd.DataFrame:
        rows, activities = [], self.tables["activities"]
        for _, user in self.tables["users"].iterrows():
            if user["created_at"] > at:
                continue
            mine = activities[activities["user_id"] == user["user_id"]]
            mine = mine[mine["timestamp"] <= at]
            month, week = (mine[mine["timestamp"] > at - n * DAY] for n in (30, 7))
            row = {"user_id": user["user_id"]}
            for skill in SKILLS:
                mean = mine[mine["task_type"] == skill]["completion_time"].mean()
                row[f"skill_score_{skill}"] = 0.0 if pd.isna(mean) else 1 / (1 + mean / 3600)
            hours = user["availability_hours_per_week"]
            hours = 40.0 if pd.isna(hours) else float(hours)
            mean = week["completion_time"].mean()
            row |= {
                "current_workload_hours": len(week) * 2.0,
                "tasks_completed_7d": len(week),
                "tasks_completed_30d": len(month),
                "velocity_tasks_per_week": len(month) * 7 / 30,
                "avg_completion_time_hours": 0.0 if pd.isna(mean) else mean / 3600,
                "avg_collaborators": mine["collaborators"].map(lambda c: len(names(c))).mean(),
                "bug_rate": mine["bugs_introduced"].sum() / max(1, len(mine)),
                "availability_hours_per_week": hours,
                "current_capacity_percentage": min(100, max(0, 100 * (1 - len(week) * 2.0 / hours))),
                "experience_years": user["experience_years"],
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def projects(self, tasks: pd.DataFrame, at: pd.Timestamp) -> pd.DataFrame:
        rows = []
        for _, project in self.tables["projects"].iterrows():
            mine = tasks[tasks["project_id"] == project["project_id"]]
            done = (mine["completed_at"] <= at) | (mine["completed_at"].isna() & (mine["status"] == "completed"))
            late = int(((mine["deadline"] < at) & ~done).sum())
            rows.append(
                {
                    "project_id": project["project_id"],
                    "total_tasks": len(mine),
                    "completed_tasks": int(done.sum()),
                    "in_progress_tasks": int(((mine["status"] == "in_progress") & ~done).sum()),
                    "blocked_tasks": int(((mine["status"] == "blocked") & ~done).sum()),
                    "completion_percentage": 100 * int(done.sum()) / len(mine) if len(mine) else 0.0,
                    "velocity_tasks_per_week": len(
                        mine[(mine["completed_at"] <= at) & (mine["completed_at"] > at - 7 * DAY)]
                    ),
                    "overdue_tasks": late,
                    "risk_score": min(1.0, late / max(1, len(mine))),
                    "team_size": len(set(names(project["team_members"]))),
                    "estimated_budget": project["budget"],
                    "spent_budget": project["spent"],
                    "budget_utilization": project["spent"] / project["budget"] if project["budget"] > 0 else 0.0,
                }
            )
        return pd.DataFrame(rows)

    def teams(self, users: pd.DataFrame, at: pd.Timestamp) -> pd.DataFrame:
        rows, activities = [], self.tables["activities"]
        recent = activities[(activities["timestamp"] <= at) & (activities["timestamp"] > at - 30 * DAY)]
        skills = dict(zip(self.tables["users"]["user_id"], self.tables["users"]["skills"], strict=True))
        for _, team in self.tables["teams"].iterrows():
            members = set(names(team["members"]))
            known = users[users["user_id"].isin(members)]
            theirs = recent[recent["user_id"].isin(members)]
            together = [
                bool((set(names(event["collaborators"])) - {event["user_id"]}) & members)
                for _, event in theirs.iterrows()
            ]
            spread = 0.0 if len(known) == 1 else known["current_workload_hours"].std()
            rows.append(
                {
                    "team_id": team["team_id"],
                    "team_size": len(members),
                    "skill_diversity": len({s.lower() for key in known["user_id"] for s in names(skills[key])}),
                    "avg_experience_years": known["experience_years"].mean(),
                    "min_experience_years": known["experience_years"].min(),
                    "max_experience_years": known["experience_years"].max(),
                    "avg_workload_hours": known["current_workload_hours"].mean(),
                    "workload_std": spread,
                    "is_balanced": int(spread < 10),
                    "collaboration_score": sum(together) / len(together) if together else float("nan"),
                }
            )
        return pd.DataFrame(rows)


def names(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else []


def main(config: str, out: str) -> None:
    where, folder = json.loads(Path(config).read_text()), Path(out)
    first, last = (pd.Timestamp(where[name]) for name in ("first", "last"))
    begun = time.perf_counter()
    tables = extract(where, folder / "landed", folder / "dlt")
    (folder / "checks.json").write_text(json.dumps(validate(tables, last)))
    publish_days(Loops(tables).at, folder / "features", first, last)
    write_store(folder / "repo", where["redis"])
    materialize(folder / "repo", (folder / "features").absolute(), last)
    (folder / "stages.json").write_text(json.dumps({"all": time.perf_counter() - begun}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:3])

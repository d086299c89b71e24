"""What two contenders have in common: reading with connectorx, Polars and httpx, the four feature sets in Polars."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import connectorx as cx
import httpx
import polars as pl
from views import VIEWS, is_count

SKILLS = ("backend", "frontend", "database", "devops")
PRIORITIES = {"low": 1, "medium": 2, "high": 3, "critical": 4}
IN_FLIGHT = 8
DAY = timedelta(days=1)


def extract(where: dict) -> dict[str, pl.DataFrame]:
    tables = {
        name: pl.from_arrow(cx.read_sql(where["database"], f"SELECT * FROM {name}", return_type="arrow"))
        for name in ("users", "projects", "teams")
    }
    options = {
        "aws_access_key_id": where["access_key"],
        "aws_secret_access_key": where["secret_key"],
        "aws_endpoint_url": where["endpoint"],
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    glob = f"s3://{where['bucket']}/activities/*.parquet"
    tables["activities"] = pl.scan_parquet(glob, storage_options=options).collect()
    tables["tasks"] = tasks(where)
    return tables


def tasks(where: dict) -> pl.DataFrame:
    frames: list[pl.DataFrame] = []
    with httpx.Client() as client, ThreadPoolExecutor(IN_FLIGHT) as pool:

        def page(number: int) -> bytes:
            answer = client.get(where["tasks"], params={"page": number, "per_page": where["page"]})
            return answer.raise_for_status().content

        first = 1
        while True:
            bodies = [b for b in pool.map(page, range(first, first + IN_FLIGHT)) if len(b) > 100]
            for body in bodies:
                rows = body[body.index(b"[") : body.rindex(b"]") + 1]
                frames.append(pl.read_json(io.BytesIO(rows), schema_overrides={"completed_at": pl.String}))
            if len(bodies) < IN_FLIGHT:
                break
            first += IN_FLIGHT
    moments = [
        pl.col(c).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
        for c in ("deadline", "completed_at", "created_at")
    ]
    return pl.concat(frames, how="vertical_relaxed").with_columns(moments)


def elements(column: str) -> pl.Expr:
    split = pl.col(column).fill_null("").str.split(",").list.eval(pl.element().str.strip_chars())
    return split.list.eval(pl.element().filter(pl.element() != ""))


class Features:
    """What does not depend on the as-of is computed once."""

    def __init__(self, tables: dict[str, pl.DataFrame]) -> None:
        self.users = tables["users"]
        self.events = tables["activities"].select(
            *("user_id", "timestamp", "task_type", "completion_time", "bugs_introduced"),
            alone=elements("collaborators").list.len(),
        )
        self.tasks = self._tasks(tables["tasks"])
        self.projects = tables["projects"].with_columns(team_size=elements("team_members").list.n_unique())
        members = tables["teams"].select("team_id", user_id=elements("members").list.unique())
        self.sizes = members.select("team_id", team_size=pl.col("user_id").list.len())
        self.members = members.explode("user_id")
        self.skills = (
            self.users.select("user_id", skill=elements("skills").list.eval(pl.element().str.to_lowercase()))
            .explode("skill")
            .drop_nulls()
            .join(self.members, on="user_id")
        )
        self.together = self._together(tables["activities"])

    @staticmethod
    def _tasks(tasks: pl.DataFrame) -> pl.DataFrame:
        length, skills = pl.col("description").fill_null("").str.len_chars().cast(pl.Int64), elements("required_skills")
        return tasks.with_columns(
            description_length=length,
            complexity_score=(length / 1000).clip(upper_bound=1.0),
            level=pl.col("priority").str.strip_chars().str.to_lowercase().replace_strict(PRIORITIES, default=2),
            num_dependencies=elements("dependencies").list.len().cast(pl.Int64),
            **{
                f"requires_{skill}": skills.list.eval(pl.element().str.to_lowercase())
                .list.contains(skill)
                .cast(pl.Int64)
                for skill in (*SKILLS, "testing")
            },
        ).with_columns(has_blockers=(pl.col("num_dependencies") > 0).cast(pl.Int64))

    def _together(self, activities: pl.DataFrame) -> pl.DataFrame:
        """Each event of each team of its user: when, and whether another member had part in it."""
        events = activities.select("activity_id", "user_id", "timestamp", other=elements("collaborators"))
        of_teams = events.join(self.members, on="user_id")
        mates = (
            of_teams.explode("other")
            .filter(pl.col("other") != pl.col("user_id"))
            .join(self.members, left_on=["team_id", "other"], right_on=["team_id", "user_id"], how="semi")
            .select("activity_id", "team_id", mate=1.0)
            .unique()
        )
        joined = of_teams.join(mates, on=["activity_id", "team_id"], how="left")
        return joined.select("team_id", "timestamp", pl.col("mate").fill_null(0.0))

    def user_features(self, at: datetime) -> pl.DataFrame:
        week, time = pl.col("timestamp") > at - 7 * DAY, pl.col("completion_time")
        found = (
            self.events.lazy()
            .filter(pl.col("timestamp") <= at)
            .group_by("user_id")
            .agg(
                *(time.filter(pl.col("task_type") == skill).mean().alias(skill) for skill in SKILLS),
                week=week.sum(),
                month=(pl.col("timestamp") > at - 30 * DAY).sum(),
                hours=time.filter(week).mean() / 3600,
                avg_collaborators=pl.col("alone").mean(),
                bug_rate=pl.col("bugs_introduced").sum() / pl.len(),
            )
        )
        users = self.users.lazy().filter(pl.col("created_at").is_null() | (pl.col("created_at") <= at))
        workload = pl.col("week").fill_null(0) * 2.0
        available = pl.col("availability_hours_per_week").fill_null(40).cast(pl.Float64)
        capacity = (100 * (1 - workload / available)).clip(0, 100)
        return (
            users.join(found, on="user_id", how="left")
            .select(
                "user_id",
                *((1 / (1 + pl.col(s) / 3600)).fill_null(0.0).alias(f"skill_score_{s}") for s in SKILLS),
                current_workload_hours=workload,
                tasks_completed_7d=pl.col("week").fill_null(0).cast(pl.Int64),
                tasks_completed_30d=pl.col("month").fill_null(0).cast(pl.Int64),
                velocity_tasks_per_week=pl.col("month").fill_null(0) * 7 / 30,
                avg_completion_time_hours=pl.col("hours").fill_null(0.0),
                avg_collaborators="avg_collaborators",
                bug_rate=pl.col("bug_rate").fill_null(0.0),
                availability_hours_per_week=available,
                current_capacity_percentage=pl.when(available <= 0).then(0.0).otherwise(capacity),
                experience_years=pl.col("experience_years").cast(pl.Float64),
            )
            .collect()
        )

    def task_features(self, at: datetime) -> pl.DataFrame:
        days = (pl.col("deadline") - at).dt.total_microseconds() // 86_400_000_000
        return self.tasks.filter(pl.col("created_at").is_null() | (pl.col("created_at") <= at)).select(
            *(
                "task_id",
                "description_length",
                "complexity_score",
                "estimated_hours",
                "num_dependencies",
                "has_blockers",
            ),
            *(f"requires_{skill}" for skill in (*SKILLS, "testing")),
            priority="level",
            days_until_deadline=days.cast(pl.Float64),
            is_urgent=(days < 3).fill_null(False).cast(pl.Int64),
        )

    def project_features(self, at: datetime) -> pl.DataFrame:
        done_at, status = pl.col("completed_at"), pl.col("status")
        done = (done_at <= at).fill_null(False) | (done_at.is_null() & (status == "completed"))
        late = (pl.col("deadline") < at).fill_null(False) & ~done
        recent = (done_at <= at) & (done_at > at - 7 * DAY)
        counts = (
            self.tasks.filter(pl.col("created_at").is_null() | (pl.col("created_at") <= at))
            .group_by("project_id")
            .agg(
                total_tasks=pl.len().cast(pl.Int64),
                completed_tasks=done.sum().cast(pl.Int64),
                in_progress_tasks=((status == "in_progress") & ~done).sum().cast(pl.Int64),
                blocked_tasks=((status == "blocked") & ~done).sum().cast(pl.Int64),
                velocity_tasks_per_week=recent.sum().cast(pl.Float64),
                overdue_tasks=late.sum().cast(pl.Int64),
            )
        )
        total, overdue = pl.col("total_tasks"), pl.col("overdue_tasks")
        numbers = [
            *("total_tasks", "completed_tasks", "in_progress_tasks", "blocked_tasks"),
            *("velocity_tasks_per_week", "overdue_tasks"),
        ]
        share = pl.when(total > 0).then(100 * pl.col("completed_tasks") / total).otherwise(0.0)
        return (
            self.projects.join(counts, on="project_id", how="left")
            .with_columns(pl.col(numbers).fill_null(0))
            .select(
                *("project_id", *numbers[:4], share.alias("completion_percentage"), *numbers[4:]),
                (overdue / total.clip(lower_bound=1)).clip(upper_bound=1.0).alias("risk_score"),
                pl.col("team_size").cast(pl.Int64),
                pl.col("budget").alias("estimated_budget"),
                pl.col("spent").alias("spent_budget"),
                pl.when(pl.col("budget") <= 0)
                .then(0.0)
                .otherwise(pl.col("spent") / pl.col("budget"))
                .alias("budget_utilization"),
            )
        )

    def team_features(self, at: datetime, users: pl.DataFrame) -> pl.DataFrame:
        known = self.members.join(users, on="user_id")
        of_team = known.group_by("team_id").agg(
            avg_experience_years=pl.col("experience_years").mean(),
            min_experience_years=pl.col("experience_years").min(),
            max_experience_years=pl.col("experience_years").max(),
            avg_workload_hours=pl.col("current_workload_hours").mean(),
            workload_std=pl.when(pl.len() > 1).then(pl.col("current_workload_hours").std()).otherwise(0.0),
        )
        skills = self.skills.join(users, on="user_id", how="semi").group_by("team_id").agg(pl.col("skill").n_unique())
        month = (pl.col("timestamp") <= at) & (pl.col("timestamp") > at - 30 * DAY)
        score = self.together.filter(month).group_by("team_id").agg(collaboration_score=pl.col("mate").mean())
        found = self.sizes.join(of_team, on="team_id", how="left").join(skills, on="team_id", how="left")
        return found.join(score, on="team_id", how="left").select(
            "team_id",
            pl.col("team_size").cast(pl.Int64),
            pl.col("skill").fill_null(0).cast(pl.Int64).alias("skill_diversity"),
            *("avg_experience_years", "min_experience_years", "max_experience_years"),
            *("avg_workload_hours", "workload_std"),
            (pl.col("workload_std") < 10).fill_null(False).cast(pl.Int64).alias("is_balanced"),
            "collaboration_score",
        )


def fitted(frame: pl.DataFrame, view: str) -> dict[str, tuple[float, float, float]]:
    """Median, least and greatest of each feature, of the first day."""
    of = frame.select(pl.col(VIEWS[view][2]).cast(pl.Float64))
    rows = [of.select(pl.all().median()), of.select(pl.all().min()), of.select(pl.all().max())]
    return {name: tuple(row[name][0] for row in rows) for name in of.columns}


def prepared(frame: pl.DataFrame, view: str, fit: dict[str, tuple[float, float, float]]) -> pl.DataFrame:
    scaled, columns = VIEWS[view][1], []
    for name, (middle, low, high) in fit.items():
        if is_count(view, name):
            columns.append(pl.col(name))
            continue
        value = pl.col(name).cast(pl.Float64).fill_null(middle)
        if scaled:
            value = ((value - low) / (high - low)).clip(0, 1) if high > low else value * 0.0
        columns.append(value.alias(name))
    return frame.select(VIEWS[view][0], *columns)


def publish_days(features: Features, folder: Path, first: datetime, last: datetime) -> None:
    """A file for each view and day, filled and scaled as the first day says."""
    fits: dict[str, dict] = {}
    stamp, created = pl.Datetime("us", "UTC"), datetime.now(first.tzinfo)
    for day in range((last - first).days + 1):
        at = first + day * DAY
        raw = {view: getattr(features, view)(at) for view in list(VIEWS)[:3]}
        raw["team_features"] = features.team_features(at, raw["user_features"])
        for view, frame in raw.items():
            fits.setdefault(view, fitted(frame, view))
            path = folder / view / f"{at:%Y-%m-%d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            moments = {"event_timestamp": pl.lit(at).cast(stamp), "created_timestamp": pl.lit(created).cast(stamp)}
            prepared(frame, view, fits[view]).with_columns(**moments).write_parquet(path)

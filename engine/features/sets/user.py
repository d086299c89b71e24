"""The user set: what a person has worked on, how much, how fast and with whom."""

from __future__ import annotations

from engine.features.definition import Aggregate, Column, Feature, FeatureView, Role, Rows, Settings
from engine.types import Duration

SKILLS = ("backend", "frontend", "database", "devops")
MONTH = Duration("30d")

USERS = Role(
    "users",
    key="user_id",
    columns=(
        Column("user_id", "key", presence="required"),
        Column("experience_years", "number"),
        Column("availability_hours_per_week", "number"),
        Column("created_at", "moment"),
    ),
    unique=True,
)
ACTIVITIES = Role(
    "activities",
    key="user_id",
    timestamp="timestamp",
    columns=(
        Column("user_id", "key", presence="required"),
        Column("timestamp", "moment", presence="required"),
        Column("task_type", "text", presence="required"),
        Column("completion_time", "number", presence="required"),
        Column("collaborators", "list"),
        Column("bugs_introduced", "number"),
    ),
)
ROLES = (USERS, ACTIVITIES)


def view(settings: Settings) -> FeatureView:
    """The user set as of any moment."""
    window = settings.aggregation_window
    workload = f"{settings.hours_per_activity}::DOUBLE * tasks_in_window"
    availability = f"coalesce(availability_hours_per_week, {settings.default_availability_hours}::DOUBLE)"
    in_window = f"tasks_completed_{window}"

    def enough(sql: str) -> str:
        return f"CASE WHEN tasks_in_history < {settings.min_data_points} THEN NULL ELSE {sql} END"

    features = [
        Feature(
            f"skill_score_{skill}",
            enough(f"coalesce(1.0 / (1.0 + mean_time_{skill} / 3600.0), 0.0)"),
            "Float64",
            f"1 / (1 + mean completion time of {skill} tasks in hours); 0 with none",
        )
        for skill in SKILLS
    ]
    features += [
        Feature("current_workload_hours", workload, "Float64", f"hours of work in the last {window}"),
        Feature(in_window, "tasks_in_window", "Int64", f"activities in the last {window}"),
    ]
    if in_window != "tasks_completed_30d":
        features.append(Feature("tasks_completed_30d", "tasks_in_month", "Int64", "activities in the last 30d"))
    features += [
        Feature("velocity_tasks_per_week", "tasks_in_month * 7 / 30.0", "Float64", "activities a week over 30d"),
        Feature(
            "avg_completion_time_hours",
            enough("coalesce(mean_time_in_window / 3600.0, 0.0)"),
            "Float64",
            f"mean completion time in hours over the last {window}; 0 with none",
        ),
        Feature("avg_collaborators", enough("mean_collaborators"), "Float64", "mean number of collaborators"),
        Feature(
            "bug_rate",
            enough("coalesce(bugs, 0.0) / greatest(1, tasks_in_history)"),
            "Float64",
            "bugs introduced per activity; 0 with none",
        ),
        Feature("availability_hours_per_week", availability, "Float64", "the user's own hours, else the default"),
        Feature(
            "current_capacity_percentage",
            f"CASE WHEN {availability} <= 0 THEN 0.0 "
            f"ELSE greatest(0.0, least(100.0, 100.0 * (1.0 - {workload} / {availability}))) END",
            "Float64",
            "free share of the available hours, 0 to 100",
        ),
        Feature("experience_years", "experience_years", "Float64", "as given"),
    ]
    aggregates = [
        Aggregate("tasks_in_history", "count", "activities"),
        Aggregate("tasks_in_window", "count", "activities", window=window),
        Aggregate("tasks_in_month", "count", "activities", window=MONTH),
        Aggregate("mean_time_in_window", "mean", "activities", "completion_time", window=window),
        Aggregate("mean_collaborators", "mean", "activities", "len(collaborators)"),
        Aggregate("bugs", "sum", "activities", "bugs_introduced"),
    ]
    aggregates += [
        Aggregate(f"mean_time_{skill}", "mean", "activities", "completion_time", where=f"task_type = '{skill}'")
        for skill in SKILLS
    ]
    return FeatureView(
        name="user",
        entity=USERS,
        roles=ROLES,
        rows=(Rows("activities", "activities"),),
        aggregates=tuple(aggregates),
        features=tuple(features),
        settings={
            "aggregation_window": window.text,
            "min_data_points": settings.min_data_points,
            "hours_per_activity": settings.hours_per_activity,
            "default_availability_hours": settings.default_availability_hours,
        },
    )

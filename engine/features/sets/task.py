"""The task set: how big, how urgent and how entangled a task is."""

from __future__ import annotations

from engine.features.definition import Column, Feature, FeatureView, Role, Settings

SKILLS = ("backend", "frontend", "database", "devops", "testing")

TASKS = Role(
    "tasks",
    key="task_id",
    columns=(
        Column("task_id", "key", presence="required"),
        Column("description", "text"),
        Column("priority", "text"),
        Column("estimated_hours", "number"),
        Column("required_skills", "labels"),
        Column("dependencies", "list"),
        Column("deadline", "moment"),
        Column("created_at", "moment"),
    ),
    unique=True,
)
ROLES = (TASKS,)


def view(_settings: Settings) -> FeatureView:
    """The task set as of any moment; it has no settings."""
    length = "coalesce(length(description), 0)"
    days = "whole_days(deadline, as_of())"
    features = (
        Feature("description_length", length, "Int64", "Unicode code points of the description"),
        Feature(
            "complexity_score",
            f"least(1.0, {length} / 1000.0)",
            "Float64",
            "description_length / 1000, at most 1",
        ),
        Feature(
            "priority",
            "CASE lower(strip(priority)) WHEN 'low' THEN 1 WHEN 'high' THEN 3 WHEN 'critical' THEN 4 ELSE 2 END",
            "Int64",
            "low 1, medium 2, high 3, critical 4; anything else 2",
        ),
        Feature("estimated_hours", "estimated_hours", "Float64", "as given"),
        *(
            Feature(
                f"requires_{skill}",
                f"CAST(list_contains(required_skills, '{skill}') AS INTEGER)",
                "Int64",
                f"1 if {skill} is required",
            )
            for skill in SKILLS
        ),
        Feature("num_dependencies", "len(dependencies)", "Int64", "number of dependencies"),
        Feature("has_blockers", "CAST(len(dependencies) > 0 AS INTEGER)", "Int64", "1 with any dependency"),
        Feature("days_until_deadline", days, "Float64", "whole days until the deadline, floored; may be negative"),
        Feature(
            "is_urgent",
            f"CAST(coalesce({days} < 3, false) AS INTEGER)",
            "Int64",
            "1 if fewer than 3 days are left",
        ),
    )
    return FeatureView("task", TASKS, ROLES, rows=(), aggregates=(), features=features, settings={})

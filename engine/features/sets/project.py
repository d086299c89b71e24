"""The project set: how far a project is, how fast it moves, and what is late."""

from __future__ import annotations

from engine.features.definition import Aggregate, Column, Feature, FeatureView, Role, Rows, Settings
from engine.types import Duration

PROJECTS = Role(
    "projects",
    key="project_id",
    columns=(
        Column("project_id", "key", presence="required"),
        Column("team_members", "list", presence="expected"),
        Column("budget", "number", presence="expected"),
        Column("spent", "number", presence="expected"),
        Column("created_at", "moment"),
    ),
    unique=True,
)
TASKS = Role(
    "tasks",
    key="project_id",
    columns=(
        Column("project_id", "key", presence="required"),
        Column("status", "text", presence="expected", known_at="updated_at"),
        Column("completed_at", "moment", presence="expected", known_at="completed_at"),
        Column("deadline", "moment", presence="expected"),
        Column("created_at", "moment"),
        Column("updated_at", "moment", known_at="updated_at"),
    ),
)
ROLES = (PROJECTS, TASKS)

# A status is known at T when nothing says that it was set later.
STATUS_KNOWN = "(updated_at IS NULL OR updated_at <= as_of())"
COMPLETED = (
    "coalesce(completed_at <= as_of(), false) OR "
    f"coalesce(status = 'completed' AND completed_at IS NULL AND {STATUS_KNOWN}, false)"
)


def view(_settings: Settings) -> FeatureView:
    """The project set as of any moment; it has no settings."""
    aggregates = (
        Aggregate("total", "count", "tasks"),
        Aggregate("done", "count", "tasks", where="completed"),
        *(
            Aggregate(name, "count", "tasks", where=f"NOT completed AND {STATUS_KNOWN} AND status = '{status}'")
            for name, status in (("in_progress", "in_progress"), ("blocked", "blocked"))
        ),
        Aggregate("done_in_week", "count", "tasks", window=Duration("7d"), timestamp="completed_at"),
        Aggregate("overdue", "count", "tasks", where="NOT completed AND deadline < as_of()"),
    )
    features = (
        Feature("total_tasks", "total", "Int64", "tasks that exist"),
        Feature("completed_tasks", "done", "Int64", "tasks completed"),
        Feature("in_progress_tasks", "in_progress", "Int64", "tasks in progress"),
        Feature("blocked_tasks", "blocked", "Int64", "tasks blocked"),
        Feature(
            "completion_percentage",
            "CASE WHEN total = 0 THEN 0.0 ELSE 100.0 * done / total END",
            "Float64",
            "completed share of the tasks, 0 to 100",
        ),
        Feature("velocity_tasks_per_week", "done_in_week", "Float64", "tasks completed in the last 7d"),
        Feature("overdue_tasks", "overdue", "Int64", "tasks past their deadline and not completed"),
        Feature("risk_score", "least(1.0, overdue / greatest(1, total))", "Float64", "overdue share of the tasks"),
        Feature("team_size", "len(list_distinct(team_members))", "Int64", "distinct team members"),
        Feature("estimated_budget", "budget", "Float64", "as given"),
        Feature("spent_budget", "spent", "Float64", "as given"),
        Feature(
            "budget_utilization",
            "CASE WHEN budget IS NULL OR spent IS NULL THEN NULL WHEN budget <= 0 THEN 0.0 ELSE spent / budget END",
            "Float64",
            "spent / budget; 0 without a positive budget",
        ),
    )
    return FeatureView(
        name="project",
        entity=PROJECTS,
        roles=ROLES,
        rows=(
            Rows(
                "tasks",
                "tasks",
                where="created_at IS NULL OR created_at <= as_of()",
                columns={"completed": COMPLETED},
            ),
        ),
        aggregates=aggregates,
        features=features,
        settings={},
    )

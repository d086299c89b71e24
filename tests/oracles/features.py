"""The four built-in feature sets once more: slow, plain Python, one small function per feature.

The rules of the specification, read independently of ``engine/features``: rows are dicts, a missing dict key
is a null, sums and spreads are exact fractions, nothing is vectorised. The property tests hold the engine to
these answers.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

Row = Mapping[str, Any]
Features = dict[str, Any]

DAY = timedelta(days=1)
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SKILLS = ("backend", "frontend", "database", "devops")
REQUIRED = (*SKILLS, "testing")
PRIORITIES = {"low": 1, "medium": 2, "high": 3, "critical": 4}
NOT_FEATURES = ("user_id", "task_id", "project_id", "team_id", "event_timestamp", "created_timestamp")


# Terms ------------------------------------------------------------------------


def known(value: Any) -> Any:
    """The value; None for null and for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def moment(value: Any) -> datetime | None:
    """An aware UTC datetime: no zone is UTC, a date is its midnight."""
    value = known(value)
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        assert isinstance(value, date)
        value = datetime(value.year, value.month, value.day)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def at(as_of: Any) -> datetime:
    """The as-of, which is never null."""
    result = moment(as_of)
    assert result is not None
    return result


def span(text: str) -> timedelta:
    """``7d`` as a timedelta."""
    return timedelta(**{UNITS[text[-1]]: int(text[:-1])})


def elements(value: Any) -> list[str]:
    """The elements of a list column or of comma-separated text: stripped, blanks and nulls dropped."""
    value = known(value)
    if value is None:
        return []
    parts = value.split(",") if isinstance(value, str) else value
    stripped = [str(part).strip() for part in parts if known(part) is not None]
    return [part for part in stripped if part]


def skill_set(value: Any) -> set[str]:
    return {skill.lower() for skill in elements(value)}


def happened(row: Row, column: str, as_of: datetime) -> bool:
    """Whether the row's timestamp is there and not after T."""
    stamp = moment(row.get(column))
    return stamp is not None and stamp <= as_of


def in_window(row: Row, column: str, as_of: datetime, window: timedelta) -> bool:
    stamp = moment(row.get(column))
    return stamp is not None and as_of - window < stamp <= as_of


def exists(row: Row, as_of: datetime) -> bool:
    """Whether an entity or a task has come into being at T (no created_at: it always was)."""
    created = moment(row.get("created_at"))
    return created is None or created <= as_of


def entities(rows: Iterable[Row], key: str, as_of: datetime) -> dict[Any, Row]:
    """The rows that exist at T, by key as in the source; two rows with one key are an error."""
    rows = [row for row in rows if known(row.get(key)) is not None]
    repeated = [name for name, count in Counter(str(row[key]) for row in rows).items() if count > 1]
    if repeated:
        raise ValueError(f"more than one row for {key} {repeated[0]}")
    return {row[key]: row for row in rows if exists(row, as_of)}


def history_of(activities: Iterable[Row], as_of: datetime) -> list[Row]:
    """Events at or before T that have a key and a timestamp."""
    return [
        event for event in activities if known(event.get("user_id")) is not None and happened(event, "timestamp", as_of)
    ]


def by(events: Iterable[Row], key: str, value: Any) -> list[Row]:
    return [event for event in events if str(event[key]) == str(value)]


def within(events: Iterable[Row], as_of: datetime, window: str) -> list[Row]:
    return [event for event in events if in_window(event, "timestamp", as_of, span(window))]


def exact(values: Iterable[Any]) -> list[Fraction]:
    """The numbers among the values, without rounding."""
    return [Fraction(value) for value in values if known(value) is not None]


def mean(values: Iterable[Any]) -> float | None:
    numbers = exact(values)
    return float(sum(numbers) / len(numbers)) if numbers else None


# user -------------------------------------------------------------------------


def skill_score(history: list[Row], skill: str) -> float:
    seconds = mean(event.get("completion_time") for event in history if event.get("task_type") == skill)
    return 0.0 if seconds is None else 1 / (1 + seconds / 3600)


def workload_hours(history: list[Row], as_of: datetime, window: str, hours_per_activity: float) -> float:
    return hours_per_activity * len(within(history, as_of, window))


def velocity(history: list[Row], as_of: datetime) -> float:
    return len(within(history, as_of, "30d")) * 7 / 30


def avg_completion_time_hours(history: list[Row], as_of: datetime, window: str) -> float:
    seconds = mean(event.get("completion_time") for event in within(history, as_of, window))
    return 0.0 if seconds is None else seconds / 3600


def avg_collaborators(history: list[Row]) -> float | None:
    return mean(len(elements(event.get("collaborators"))) for event in history)


def bug_rate(history: list[Row]) -> float:
    bugs = sum(exact(event.get("bugs_introduced") for event in history))
    return float(bugs / max(1, len(history)))


def availability(user: Row, default: float) -> float:
    given = known(user.get("availability_hours_per_week"))
    return float(default if given is None else given)


def capacity(workload: float, hours: float) -> float:
    if hours <= 0:
        return 0.0
    return min(100.0, max(0.0, 100 * (1 - workload / hours)))


def experience(user: Row) -> float | None:
    years = known(user.get("experience_years"))
    return None if years is None else float(years)


def user_features(
    users: Iterable[Row],
    activities: Iterable[Row],
    as_of: Any,
    *,
    aggregation_window: str = "7d",
    hours_per_activity: float = 2.0,
    default_availability_hours: float = 40.0,
    min_data_points: int = 0,
) -> dict[Any, Features]:
    as_of = at(as_of)
    events = history_of(activities, as_of)
    result = {}
    for key, user in entities(users, "user_id", as_of).items():
        history = by(events, "user_id", key)
        workload = workload_hours(history, as_of, aggregation_window, hours_per_activity)
        hours = availability(user, default_availability_hours)
        result[key] = {
            **{f"skill_score_{skill}": skill_score(history, skill) for skill in SKILLS},
            "current_workload_hours": workload,
            f"tasks_completed_{aggregation_window}": len(within(history, as_of, aggregation_window)),
            "tasks_completed_30d": len(within(history, as_of, "30d")),
            "velocity_tasks_per_week": velocity(history, as_of),
            "avg_completion_time_hours": avg_completion_time_hours(history, as_of, aggregation_window),
            "avg_collaborators": avg_collaborators(history),
            "bug_rate": bug_rate(history),
            "availability_hours_per_week": hours,
            "current_capacity_percentage": capacity(workload, hours),
            "experience_years": experience(user),
        }
        if len(history) < min_data_points:
            result[key] |= dict.fromkeys(
                [
                    *(f"skill_score_{skill}" for skill in SKILLS),
                    "avg_completion_time_hours",
                    "avg_collaborators",
                    "bug_rate",
                ]
            )
    return result


# task -------------------------------------------------------------------------


def description_length(task: Row) -> int:
    return len(task.get("description") or "")


def priority(task: Row) -> int:
    return PRIORITIES.get(str(task.get("priority")).strip().lower(), 2)


def estimated_hours(task: Row) -> float | None:
    hours = known(task.get("estimated_hours"))
    return None if hours is None else float(hours)


def days_until_deadline(task: Row, as_of: datetime) -> float | None:
    deadline = moment(task.get("deadline"))
    return None if deadline is None else float((deadline - as_of) // DAY)


def is_urgent(task: Row, as_of: datetime) -> int:
    days = days_until_deadline(task, as_of)
    return int(days is not None and days < 3)


def task_features(tasks: Iterable[Row], as_of: Any) -> dict[Any, Features]:
    as_of = at(as_of)
    return {
        key: {
            "description_length": description_length(task),
            "complexity_score": min(1.0, description_length(task) / 1000),
            "priority": priority(task),
            "estimated_hours": estimated_hours(task),
            **{f"requires_{s}": int(s in skill_set(task.get("required_skills"))) for s in REQUIRED},
            "num_dependencies": len(elements(task.get("dependencies"))),
            "has_blockers": int(len(elements(task.get("dependencies"))) > 0),
            "days_until_deadline": days_until_deadline(task, as_of),
            "is_urgent": is_urgent(task, as_of),
        }
        for key, task in entities(tasks, "task_id", as_of).items()
    }


# project ----------------------------------------------------------------------


def is_completed(task: Row, as_of: datetime) -> bool:
    """Finished by its time; or, where no time was noted, by a status that is known to hold at T."""
    if moment(task.get("completed_at")) is not None:
        return happened(task, "completed_at", as_of)
    return task.get("status") == "completed" and status_is_known(task, as_of)


def status_is_known(task: Row, as_of: datetime) -> bool:
    return moment(task.get("updated_at")) is None or happened(task, "updated_at", as_of)


def open_with(tasks: list[Row], status: str, as_of: datetime) -> int:
    return sum(
        task.get("status") == status and not is_completed(task, as_of) and status_is_known(task, as_of)
        for task in tasks
    )


def is_overdue(task: Row, as_of: datetime) -> bool:
    deadline = moment(task.get("deadline"))
    return deadline is not None and deadline < as_of and not is_completed(task, as_of)


def budget_utilization(project: Row) -> float | None:
    budget, spent = known(project.get("budget")), known(project.get("spent"))
    if budget is None or spent is None:
        return None
    return 0.0 if budget <= 0 else float(spent) / float(budget)


def as_float(value: Any) -> float | None:
    value = known(value)
    return None if value is None else float(value)


def project_features(projects: Iterable[Row], tasks: Iterable[Row], as_of: Any) -> dict[Any, Features]:
    as_of = at(as_of)
    counting = [t for t in tasks if known(t.get("project_id")) is not None and exists(t, as_of)]
    result = {}
    for key, project in entities(projects, "project_id", as_of).items():
        mine = by(counting, "project_id", key)
        completed = sum(is_completed(task, as_of) for task in mine)
        overdue = sum(is_overdue(task, as_of) for task in mine)
        result[key] = {
            "total_tasks": len(mine),
            "completed_tasks": completed,
            "in_progress_tasks": open_with(mine, "in_progress", as_of),
            "blocked_tasks": open_with(mine, "blocked", as_of),
            "completion_percentage": 100 * completed / len(mine) if mine else 0.0,
            "velocity_tasks_per_week": float(sum(in_window(t, "completed_at", as_of, 7 * DAY) for t in mine)),
            "overdue_tasks": overdue,
            "risk_score": min(1.0, overdue / max(1, len(mine))),
            "team_size": len(set(elements(project.get("team_members")))),
            "estimated_budget": as_float(project.get("budget")),
            "spent_budget": as_float(project.get("spent")),
            "budget_utilization": budget_utilization(project),
        }
    return result


# team -------------------------------------------------------------------------


def spread(values: Sequence[float]) -> Fraction | None:
    """The sample variance, exact; 0 for a single value, None for none."""
    numbers = exact(values)
    if not numbers:
        return None
    return statistics.variance(numbers) if len(numbers) > 1 else Fraction(0)


def with_team_mate(event: Row, members: set[str]) -> bool:
    others = set(elements(event.get("collaborators"))) - {str(event["user_id"])}
    return bool(others & members)


def collaboration_score(events: list[Row], members: set[str], as_of: datetime) -> float | None:
    theirs = [event for event in within(events, as_of, "30d") if str(event["user_id"]) in members]
    return mean(int(with_team_mate(event, members)) for event in theirs)


def team_features(
    teams: Iterable[Row],
    users: Iterable[Row],
    activities: Iterable[Row] | None,
    as_of: Any,
    *,
    aggregation_window: str = "7d",
    hours_per_activity: float = 2.0,
) -> dict[Any, Features]:
    as_of = at(as_of)
    existing = {str(key): user for key, user in entities(users, "user_id", as_of).items()}
    events = None if activities is None else history_of(activities, as_of)

    def workload(key: str) -> float | None:
        if events is None:
            return as_float(existing[key].get("current_workload_hours"))
        return workload_hours(by(events, "user_id", key), as_of, aggregation_window, hours_per_activity)

    result = {}
    for team_key, team in entities(teams, "team_id", as_of).items():
        members = set(elements(team.get("members")))
        here = sorted(members & existing.keys())
        years = [y for key in here if (y := experience(existing[key])) is not None]
        loads = [load for key in here if (load := workload(key)) is not None]
        variance = spread(loads)
        result[team_key] = {
            "team_size": len(members),
            "skill_diversity": len(set().union(*(skill_set(existing[key].get("skills")) for key in here))),
            "avg_experience_years": mean(years),
            "min_experience_years": min(years, default=None),
            "max_experience_years": max(years, default=None),
            "avg_workload_hours": mean(loads),
            "workload_std": None if variance is None else math.sqrt(variance),
            "is_balanced": int(variance is not None and variance < 100),
            "collaboration_score": None if events is None else collaboration_score(events, members, as_of),
        }
    return result


# Missing values and normalisation ---------------------------------------------


def feature_columns(columns: Iterable[str]) -> list[str]:
    return [column for column in columns if column not in NOT_FEATURES]


def median(values: Sequence[Any]) -> float:
    """The middle value; of two middle values the half-way point."""
    return float(statistics.median(exact(values)))


def mode(values: Sequence[str]) -> str:
    """The most frequent text; of several the smallest."""
    return min(values, key=lambda text: (-values.count(text), text))


def fill_for(values: Sequence[Any], how: str) -> Any:
    """What stands in for a null of a column with these values: 0, or its median or mode (all null: null)."""
    present = [value for value in values if known(value) is not None]
    is_text = any(isinstance(value, str) for value in present)
    if how == "zero":
        return None if is_text else 0
    if not present:
        return None
    return mode(present) if is_text else median(present)


def handle_missing(rows: Sequence[Row], columns: Sequence[str], how: str) -> list[Features]:
    """The rows after ``impute``, ``zero``, ``drop`` or ``keep`` over the feature columns."""
    names = feature_columns(columns)
    rows = [{**row, **{name: known(row[name]) for name in names}} for row in rows]
    if how == "keep":
        return rows
    if how == "drop":
        return [row for row in rows if all(row[name] is not None for name in names)]
    fills = {name: fill_for([row[name] for row in rows], how) for name in names}
    return [{**row, **{name: fills[name] if row[name] is None else row[name] for name in names}} for row in rows]


def finite(value: Any) -> Any:
    value = known(value)
    return None if isinstance(value, float) and math.isinf(value) else value


def scaled(values: Sequence[Any]) -> list[Any]:
    """Min-max to [0, 1]; a constant column is 0.0; null, NaN and ±inf are null; text stays."""
    values = [finite(value) for value in values]
    present = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in present):
        return values
    low, high = (Fraction(min(present)), Fraction(max(present))) if present else (Fraction(0), Fraction(0))
    width = high - low
    return [None if value is None else float((Fraction(value) - low) / width) if width else 0.0 for value in values]


def normalize(rows: Sequence[Row], columns: Sequence[str]) -> list[Features]:
    names = feature_columns(columns)
    new = {name: scaled([row[name] for row in rows]) for name in names}
    return [{**row, **{name: new[name][i] for name in names}} for i, row in enumerate(rows)]


# Comparing ----------------------------------------------------------------------


def same(got: Any, expected: Any) -> bool:
    """Whether the engine's value is the oracle's: fractions to a relative 1e-9, all else exactly."""
    if isinstance(expected, float):
        return isinstance(got, float) and math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12)
    return type(got) is type(expected) and got == expected

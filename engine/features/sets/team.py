"""The team set: who is on a team, what they know, and how they share the work."""

from __future__ import annotations

from dataclasses import replace

from engine.features.definition import Aggregate, Column, Feature, FeatureView, Role, Rows, Settings
from engine.features.sets import user

BALANCED_BELOW_HOURS = 10

TEAMS = Role(
    "teams",
    key="team_id",
    columns=(
        Column("team_id", "key", presence="required"),
        Column("members", "list", presence="expected"),
        Column("created_at", "moment"),
    ),
    unique=True,
)
USERS = replace(
    user.USERS,
    columns=(
        *user.USERS.columns,
        Column("skills", "labels", presence="expected"),
        Column("current_workload_hours", "number"),  # serves where there are no activities
    ),
)
ACTIVITIES = replace(
    user.ACTIVITIES,
    columns=tuple(
        replace(c, presence="required" if c.name in ("user_id", "timestamp") else "optional")
        for c in user.ACTIVITIES.columns
    ),
    optional=True,
)
ROLES = (TEAMS, USERS, ACTIVITIES)

EXISTS = "created_at IS NULL OR created_at <= as_of()"


def view(settings: Settings, *, with_activities: bool = True) -> FeatureView:
    """The team set as of any moment.

    Without activities a ``current_workload_hours`` column of users serves; collaboration is then unknown.
    """
    members = Rows("known_members", "users", via="members", where=EXISTS)
    rows = [members, Rows("member_skills", "users", via="members", where=EXISTS, unnest="skills")]
    workload = "current_workload_hours"
    aggregates = [
        Aggregate("skill_count", "count_distinct", "member_skills", "element"),
        Aggregate("mean_experience", "mean", "known_members", "experience_years"),
        Aggregate("least_experience", "min", "known_members", "experience_years"),
        Aggregate("most_experience", "max", "known_members", "experience_years"),
    ]
    collaboration = "NULL"
    if with_activities:
        workload = "workload_at_as_of"
        users_own = user.view(settings).select(["current_workload_hours"])
        renamed = tuple(replace(f, name=workload) for f in users_own.features)
        rows[0] = replace(members, lookup=(replace(users_own, features=renamed), (workload,)))
        rows.append(Rows("member_activities", "activities", via="members"))
        together = "list_has_any(list_filter(collaborators, lambda c: c <> user_id), entity.members)"
        aggregates += [
            Aggregate("activities_in_month", "count", "member_activities", window=user.MONTH),
            Aggregate("shared_in_month", "count", "member_activities", window=user.MONTH, where=together),
        ]
        collaboration = "shared_in_month / nullif(activities_in_month, 0)"
    aggregates += [
        Aggregate("mean_workload", "mean", "known_members", workload),
        Aggregate("std_workload", "std", "known_members", workload),
        Aggregate("known_workloads", "count", "known_members", workload),
    ]
    std = "CASE known_workloads WHEN 0 THEN NULL WHEN 1 THEN 0.0 ELSE std_workload END"
    features = (
        Feature("team_size", "len(list_distinct(members))", "Int64", "distinct members, known or not"),
        Feature("skill_diversity", "skill_count", "Int64", "distinct skills of the known members"),
        Feature("avg_experience_years", "mean_experience", "Float64", "over the known members"),
        Feature("min_experience_years", "least_experience", "Float64", "over the known members"),
        Feature("max_experience_years", "most_experience", "Float64", "over the known members"),
        Feature("avg_workload_hours", "mean_workload", "Float64", "mean workload of the known members"),
        Feature("workload_std", std, "Float64", "sample standard deviation of the workload; 0 with one member"),
        Feature(
            "is_balanced",
            f"CAST(coalesce(({std}) < {BALANCED_BELOW_HOURS}, false) AS INTEGER)",
            "Int64",
            f"1 if workload_std is below {BALANCED_BELOW_HOURS} hours",
        ),
        Feature(
            "collaboration_score",
            collaboration,
            "Float64",
            "share of the members' activities in 30d that another member took part in",
        ),
    )
    return FeatureView(
        name="team",
        entity=TEAMS,
        roles=ROLES if with_activities else ROLES[:2],
        rows=tuple(rows),
        aggregates=tuple(aggregates),
        features=features,
        settings={
            "aggregation_window": settings.aggregation_window.text,
            "hours_per_activity": settings.hours_per_activity,
        },
    )

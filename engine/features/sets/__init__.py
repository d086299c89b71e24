"""The four built-in feature sets, written in the same terms as a user's own views."""

from __future__ import annotations

from engine.features.definition import FeatureView, Role, Settings
from engine.features.sets import project, task, team, user

_ROLES = {"user": user.ROLES, "task": task.ROLES, "project": project.ROLES, "team": team.ROLES}
_VIEWS = {"user": user.view, "task": task.view, "project": project.view, "team": team.view}


def roles_of(name: str) -> tuple[Role, ...]:
    """The roles that a set reads, its entity first."""
    return _ROLES[name]


def view_of(name: str, settings: Settings, absent: frozenset[str] = frozenset()) -> FeatureView:
    """The view of a built-in set.

    Args:
        name: user, task, project or team.
        settings: the constants to define it with.
        absent: optional roles that are not given.
    """
    if name == "team":
        return team.view(settings, with_activities="activities" not in absent)
    return _VIEWS[name](settings)

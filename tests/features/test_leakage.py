"""Nothing later than an as-of moves a row as of it; a view that leaks is found out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.features.definition import Aggregate, Column, Feature, FeatureView, Role, Rows, Settings
from engine.features.inputs import Inputs
from engine.features.leakage import find_leakage, moments_within
from engine.features.sets import view_of
from tests.features.strategies import project_worlds, task_worlds, team_worlds, user_worlds
from tests.features.test_history import START, as_features, views, world

FIXTURE = [HealthCheck.function_scoped_fixture]


@settings(deadline=None, max_examples=10, suppress_health_check=FIXTURE)
@given(view=views(), seed=st.integers(0, 10**6))
def test_no_aggregate_leaks(tmp_path: Path, view: FeatureView, seed: int) -> None:
    view = as_features(view)
    with Inputs(view, world(seed, 6, 150)) as inputs:
        found = find_leakage(view, "f", inputs, START, tmp_path)
    assert found.changed["events"] > 10
    assert found.moved == {}


WORLDS = {"user": user_worlds, "task": task_worlds, "project": project_worlds, "team": team_worlds}


@pytest.mark.parametrize("name", WORLDS)
@settings(deadline=None, max_examples=6, suppress_health_check=FIXTURE)
@given(data=st.data())
def test_no_built_in_set_leaks(tmp_path: Path, name: str, data: st.DataObject) -> None:
    made: Any = data.draw(WORLDS[name]())
    tables = {role: table.frame().to_arrow() for role, table in made.tables.items()}
    view = view_of(name, Settings(), frozenset({"activities"} - tables.keys()))
    with Inputs(view, {role.name: tables[role.name] for role in view.roles}) as inputs:
        assert find_leakage(view, name, inputs, made.as_of, tmp_path).moved == {}


def leaky(role: Role, value: str) -> FeatureView:
    """Of a table whose moments the view does not look at."""
    entity = Role("people", "person", (Column("person", "key"), Column("created_at", "moment")), unique=True)
    return FeatureView(
        "leaky",
        entity,
        (entity, role),
        (Rows("events", "events"),),
        (Aggregate("a", "sum", "events", value), Aggregate("n", "count", "events")),
        (Feature("total", "a", "Float64", ""), Feature("rows", "n", "Int64", "")),
        {},
    )


def test_a_leak_is_found(tmp_path: Path) -> None:
    columns = (Column("person", "key"), Column("ts", "moment", known_at="ts"), Column("x", "number", known_at="ts"))
    view = leaky(Role("events", "person", columns), "coalesce(nullif(x, 'inf'), 0)")
    with Inputs(view, world(1, 6, 150)) as inputs:
        found = find_leakage(view, "leaky", inputs, START, tmp_path)
    assert not found.ok
    assert found.moved.keys() == {"total"}
    assert found.changed["events"] > 10


def test_moments_lie_within_the_data() -> None:
    view = view_of("user", Settings())
    made = {"users": world(1, 3, 0)["people"].rename_columns(["user_id", "created_at"])}
    events = world(1, 3, 80)["events"].rename_columns(["user_id", "timestamp", "completion_time", "task_type"])
    with Inputs(view, {**made, "activities": events}) as inputs:
        found = moments_within(view, inputs)
    assert len(found) == 3
    assert START - timedelta(days=11) < found[0] < found[1] < found[2] < START + timedelta(days=8)

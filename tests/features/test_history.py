"""Many as-ofs at once give what one query per as-of gives, for every aggregate, window and plan."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine.features.compute import compute
from engine.features.definition import Aggregate, Column, Feature, FeatureView, Role, Rows
from engine.features.history import History
from engine.features.inputs import Inputs
from engine.features.ways import ways
from engine.types import Duration

START = datetime(2025, 3, 1, tzinfo=UTC)
ENTITY = Role("people", "person", (Column("person", "key"), Column("created_at", "moment")), unique=True)
EVENTS = Role(
    "events",
    "person",
    (Column("person", "key"), Column("ts", "moment"), Column("x", "number"), Column("label", "text")),
    timestamp="ts",
)
FUNCTIONS = ("count", "count_distinct", "sum", "mean", "min", "max", "std", "var", "first", "last", "quantile", "mode")
SPANS: list[dict[str, Any]] = [
    {},
    {"offset": Duration("36h")},
    *({"window": Duration(text)} for text in ("90s", "6h", "1d", "7d", "4w")),
    {"window": Duration("7d"), "offset": Duration("7d")},
    {"window": Duration("1d"), "tumbling": True},
    {"window": Duration("1w"), "tumbling": True, "offset": Duration("1d")},
]
NUMBERS = ("x", "CAST(x AS INTEGER)", "x / 3")
ORDERED = ("x", "CAST(x AS INTEGER)", "label", "ts", "CAST(ts AS DATE)", "x > 2")


@st.composite
def views(draw: st.DrawFn) -> FeatureView:
    aggregates = []
    for i in range(draw(st.integers(1, 5))):
        function: Any = draw(st.sampled_from((*FUNCTIONS, "last_n")))
        numeric = function in ("sum", "mean", "std", "var", "quantile")
        value = draw(st.sampled_from(NUMBERS if numeric else ORDERED))
        if function == "count":
            value = draw(st.sampled_from((None, "x", "label")))
        aggregates.append(
            Aggregate(
                f"a{i}",
                function,
                "events",
                value,
                where=draw(st.sampled_from((None, "x > 1", "label = 'b'", "x IS NULL"))),
                n=3 if function == "last_n" else None,
                q=draw(st.sampled_from((0.0, 0.5, 0.9, 1.0))) if function == "quantile" else None,
                error=draw(st.sampled_from((None, 0.02, 0.25))) if function in ("count_distinct", "quantile") else None,
                **draw(st.sampled_from(SPANS)),
            )
        )
    return FeatureView("f", ENTITY, (ENTITY, EVENTS), (Rows("events", "events"),), tuple(aggregates), (), {})


def as_features(view: FeatureView) -> FeatureView:
    """The view with each aggregate published as a number or text that can be compared."""
    features = tuple(
        Feature(a.name, f"hash(CAST({a.name} AS VARCHAR)) % 1000003", "Int64", "")
        if a.function in ("first", "last", "min", "max", "mode", "last_n")
        else Feature(a.name, a.name, "Float64", "")
        for a in view.aggregates
    )
    return replace(view, features=features)


def world(seed: int, people: int, rows: int) -> dict[str, Any]:
    rng = random.Random(seed)
    day = timedelta(days=1)
    steps = [timedelta(0), timedelta(microseconds=1), timedelta(microseconds=-1)]

    def moment() -> datetime | None:
        if rng.random() < 0.05:
            return None
        whole = START + rng.randrange(-40, 30) * day / 4
        return whole + (rng.choice(steps) if rng.random() < 0.5 else timedelta(seconds=rng.randrange(86_400)))

    keys = [f"p{i}" for i in range(people)]
    events = [
        {
            "person": rng.choice([*keys, "stranger", None]),
            "ts": moment(),
            "x": rng.choice([None, float("nan"), 0.0, 1.0, 2.5, 7.0, -3.0, 1e9, rng.random()]),
            "label": rng.choice([None, "", "a", "b", "B", "é", "zz"]),
        }
        for _ in range(rows)
    ]
    people_rows = [{"person": k, "created_at": rng.choice([None, START, START + day])} for k in keys]
    schema = {"person": pl.String, "ts": pl.Datetime("us", "UTC"), "x": pl.Float64, "label": pl.String}
    return {
        "people": pl.DataFrame(
            people_rows, schema={"person": pl.String, "created_at": pl.Datetime("us", "UTC")}, strict=False
        ).to_arrow(),
        "events": pl.DataFrame(events, schema=schema, strict=False).to_arrow(),
    }


def compare(view: FeatureView, tables: dict[str, Any], as_ofs: list[datetime], folder: Path, budget: int) -> None:
    with Inputs(view, tables) as inputs:
        expected = [pl.DataFrame(compute(inputs, view, t)) for t in as_ofs]
    with Inputs(view, tables) as inputs:
        found = list(History(inputs, view, as_ofs, folder=folder, budget=budget))
    assert [t for t, _ in found] == as_ofs
    for (_, table), one in zip(found, expected, strict=True):
        assert_frame_equal(pl.DataFrame(table), one, rel_tol=1e-9, abs_tol=1e-9)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    view=views(),
    seed=st.integers(0, 10**6),
    people=st.integers(1, 9),
    rows=st.sampled_from((0, 5, 60, 200)),
    count=st.integers(1, 7),
    step=st.sampled_from((timedelta(days=1), timedelta(hours=7), timedelta(seconds=90))),
    start=st.sampled_from((START, START - timedelta(days=11))),
    budget=st.sampled_from((10**9, 40_000, 1_000)),
)
def test_equals_one_query_per_as_of(
    tmp_path: Path,
    view: FeatureView,
    seed: int,
    people: int,
    rows: int,
    count: int,
    step: timedelta,
    start: datetime,
    budget: int,
) -> None:
    as_ofs = [start + i * step for i in range(count)]
    compare(as_features(view), world(seed, people, rows), as_ofs, tmp_path, budget)


def test_fractions_stay_where_the_first_as_of_has_no_rows(tmp_path: Path) -> None:
    """Few entities are walked at a time, and what they come to at each as-of is kept in one file."""
    aggregate = Aggregate("mean", "mean", "events", "x", window=Duration("1d"))
    view = replace(
        FeatureView("f", ENTITY, (ENTITY, EVENTS), (Rows("events", "events"),), (aggregate,), (), {}),
        features=(Feature("mean", "mean", "Float64", ""),),
    )
    compare(view, world(3, 40, 800), [START + i * timedelta(days=1) for i in (-20, -2, 1)], tmp_path, budget=1_000)


def test_without_numba_what_does_not_add_up_is_queried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = ("count_distinct", "mode", "sum")
    aggregates = tuple(Aggregate(f, f, "events", "x", window=Duration("3d")) for f in functions)
    view = replace(
        FeatureView("f", ENTITY, (ENTITY, EVENTS), (Rows("events", "events"),), aggregates, (), {}),
        features=tuple(Feature(f, f, "Float64", "") for f in functions),
    )
    as_ofs = [START + i * timedelta(days=1) for i in range(-1, 4)]
    assert ways(view, as_ofs) == {"running": ["sum"], "by entity": ["count_distinct", "mode"]}
    monkeypatch.setattr("engine.features.ways._compiles", lambda: False)
    monkeypatch.setitem(sys.modules, "engine.features.history.kernels", None)
    assert ways(view, as_ofs) == {"running": ["sum"], "per as-of": ["count_distinct", "mode"]}
    compare(view, world(5, 20, 300), as_ofs, tmp_path, budget=10**9)

"""Aggregates with a stated error against exact ones, at one as-of and at many."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features import FeatureExtractor
from engine.features.compute import compute
from engine.features.definition import Aggregate, Column, Feature, FeatureView, Role, Rows
from engine.features.history import History
from engine.features.history.sketches import Cells, Hashes
from engine.features.history.states import Seen
from engine.features.inputs import Inputs
from engine.spec import ViewSpec

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PEOPLE = Role("people", "person", (Column("person", "key"), Column("created_at", "moment")), unique=True)
EVENTS = Role("events", "person", (Column("person", "key"), Column("ts", "moment"), Column("x", "number")), "ts")


def view(**aggregates: Aggregate) -> FeatureView:
    features = tuple(Feature(name, name, "Float64", "") for name in aggregates)
    return FeatureView(
        "v", PEOPLE, (PEOPLE, EVENTS), (Rows("events", "events"),), tuple(aggregates.values()), features, {}
    )


def tables(events: pl.DataFrame) -> dict[str, Any]:
    return {"people": pa.table({"person": events["person"].unique().sort().to_arrow()}), "events": events.to_arrow()}


def test_distinct_counts_are_within_the_error_and_exact_where_they_are_few(tmp_path: Path) -> None:
    """60 people with 100 to 3,000 distinct values, every one twice; k is 402."""
    rng = np.random.default_rng(1)
    counts = rng.integers(100, 3_000, 60)
    person, value = np.repeat(np.arange(60), counts), np.concatenate([np.arange(n) for n in counts])
    order = rng.permutation(np.repeat(np.arange(len(value)), 2))
    seconds = pl.Series(rng.integers(0, 10 * 86_400, len(order))).cast(pl.Duration("ms")) * 1_000
    frame = {"person": [f"p{i:02}" for i in person[order]], "x": value[order].astype(float)}
    events = pl.DataFrame(frame).with_columns((pl.lit(START) + seconds).alias("ts"))
    wanted = view(n=Aggregate("n", "count_distinct", "events", "x", error=0.05))
    with Inputs(wanted, tables(events)) as inputs:
        found = pl.DataFrame(compute(inputs, wanted, START + 20 * DAY))["n"].to_numpy()
    few = counts < 402
    assert 3 < few.sum() < 57
    assert (found[few] == counts[few]).all()
    errors = found[~few] / counts[~few] - 1
    assert np.sqrt((errors**2).mean()) < 0.05 * 1.3
    assert abs(errors.mean()) < 0.05
    as_ofs = [START + i * DAY for i in range(1, 12)]
    with Inputs(wanted, tables(events)) as inputs:
        history = list(History(inputs, wanted, as_ofs, folder=tmp_path, budget=2**20))
    assert (pl.DataFrame(history[-1][1])["n"].to_numpy() == found).all()
    with Inputs(wanted, tables(events)) as inputs:
        for as_of, table in history[:3]:
            assert pl.DataFrame(table)["n"].to_list() == pl.DataFrame(compute(inputs, wanted, as_of))["n"].to_list()


NUMBERS = st.floats(allow_nan=False) | st.integers(-(10**6), 10**6).map(float) | st.sampled_from((0.0, -0.0, 5e-324))


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.floats(0, 1), st.sampled_from((0.005, 0.02, 0.25)))
@settings(max_examples=60, deadline=None)
def test_quantiles_are_within_the_error_of_a_value_of_their_rank(values: list[float], q: float, error: float) -> None:
    wanted = view(v=Aggregate("v", "quantile", "events", "x", q=q, error=error))
    events = pl.DataFrame({"person": "p", "ts": START, "x": values})
    with Inputs(wanted, tables(events)) as inputs:
        [found] = pl.DataFrame(compute(inputs, wanted, START))["v"].to_list()
    ordered = sorted(values)
    exact = {ordered[max(math.ceil(q * len(values) + slack), 1) - 1] for slack in (-1e-9, 0)}
    assert any(found == x or abs(found - x) <= (error + 1e-9) * abs(x) for x in exact) or _overflows(found, exact)


def _overflows(found: float, exact: set[float]) -> bool:
    return math.isinf(found) and any(abs(x) > 1.7e308 / 2 for x in exact)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60), st.integers(0, 2)), max_size=60))
def test_the_state_of_two_sets_is_that_of_both_in_any_order(rows: list[tuple[int, int, int]]) -> None:
    for kind in (Hashes(7), Cells()):

        def state(chosen: list[tuple[int, int, int]], kind: Any = kind) -> Any:
            ids, values = (np.array([row[i] for row in chosen], np.int64) for i in (0, 1))
            return kind.of(Seen(ids, values, values), 5)

        parts = [state([row for row in rows if row[2] == part]) for part in range(3)]
        for one, two, three in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
            merged = kind.merge(kind.merge(parts[one], parts[two]), parts[three])
            for found, expected in zip(merged, state(rows), strict=True):
                assert found.tolist() == expected.tolist()


def test_it_is_declared_with_an_error() -> None:
    events = pl.DataFrame(
        {"who": ["a", "a", "b"], "at": START, "what": ["x", "y", None], "size": [1.0, float("nan"), 3.0]}
    )
    declaration = {
        "entity": "who",
        "source": "events",
        "timestamp": "at",
        "aggregates": {
            "kinds": {"function": "count_distinct", "value": "what", "error": 0.02},
            "middle": {"function": "quantile", "value": "size", "q": 0.5, "error": 0.01, "window": "7d"},
            "exact": {"function": "count_distinct", "value": "size"},
        },
    }
    for spec in (declaration, ViewSpec(**declaration)):
        found = FeatureExtractor().extract(spec, {"events": events}, as_of=START)
        assert found.schema["kinds"] == pl.Int64
        assert found["kinds"].to_list() == [2, 0]
        assert found["exact"].to_list() == [1, 1]
        assert found["middle"].to_list() == pytest.approx([1.0, 3.0], rel=0.01)


@pytest.mark.parametrize(
    ("aggregate", "says"),
    [
        ({"function": "sum", "value": "size", "error": 0.02}, "takes no error"),
        ({"function": "count_distinct", "value": "size", "error": 0.5}, "error"),
        ({"function": "quantile", "value": "what", "q": 0.5, "error": 0.02}, "varchar"),
    ],
)
def test_an_error_where_none_belongs_is_refused(aggregate: dict[str, Any], says: str) -> None:
    declaration = {"entity": "who", "source": "events", "timestamp": "at", "aggregates": {"a": aggregate}}
    events = pl.DataFrame({"who": ["a"], "at": START, "what": ["x"], "size": [1.0]})
    with pytest.raises(Exception, match=says):
        FeatureExtractor().extract(declaration, {"events": events}, as_of=START)


def test_what_is_exact_has_the_fingerprint_of_before() -> None:
    assert "error" not in repr(view(a=Aggregate("a", "count", "events")).aggregates).replace(", error=None", "")
    exact, about = (view(a=Aggregate("a", "count_distinct", "events", "x", error=e)) for e in (None, 0.02))
    assert exact.fingerprint("a") != about.fingerprint("a")

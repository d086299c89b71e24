"""Random declarations over random worlds against the slow oracle; at many as-ofs at once; and nothing leaks."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine.features import FeatureExtractor
from engine.features.compute import compute
from engine.features.declared import declared
from engine.features.history import History
from engine.features.inputs import Inputs
from engine.spec import view_spec
from tests.features.strategies import column
from tests.oracles import declared as oracle

T = datetime(2025, 3, 30, 1, 0, 0, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
UTC_US = pl.Datetime("us", "UTC")
KEYS: dict[Any, list[Any]] = {
    pl.Int64: [0, 1, -7],
    pl.String: ["", "a", "é:1", "1:"],
    pl.Float64: [0.0, 1.0, 12.0, float("nan")],
    pl.Date: [date(2024, 2, 29), date(1969, 12, 31)],
    pl.Boolean: [True, False],
}
SPANS: list[dict[str, Any]] = [
    {},
    {"offset": "36h"},
    *({"window": text} for text in ("90s", "15m", "6h", "1d", "7d", "4w")),
    {"window": "7d", "offset": "7d"},
    {"window": "1d", "tumbling": True},
    {"window": "2w", "tumbling": True, "offset": "1d"},
]
BY = {"column": "kind", "values": ["a", "B", "c"]}
TEXTS_TOO = ("first", "last", "last_n", "min", "max", "mode", "count_distinct", "count")


def sometimes(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values, values, values)


def moments() -> st.SearchStrategy[datetime]:
    edges = [T - span * timedelta(hours=1) for span in (0, 6, 24, 36, 25, 168, 336, 672, -24)]
    edges += [T - timedelta(seconds=90), datetime(2025, 3, 29, tzinfo=UTC), datetime(2025, 3, 17, tzinfo=UTC)]
    steps = st.sampled_from([-US, 0 * US, US])
    near = st.builds(lambda e, s: e + s, st.sampled_from(edges), steps)
    return st.one_of(near, st.datetimes(datetime(2025, 2, 1), datetime(2025, 4, 5), timezones=st.just(UTC)))


@st.composite
def aggregates(draw: st.DrawFn) -> dict[str, Any]:
    function = draw(
        st.sampled_from([*TEXTS_TOO, "sum", "mean", "std", "var", "quantile", "share", "ratio", "time_since", "rate"])
    )
    spec: dict[str, Any] = {"function": function, **draw(st.sampled_from(SPANS))}
    if function == "rate":
        spec = {"function": function, "window": "7d", **draw(st.sampled_from([{}, {"per": "1h"}, {"offset": "1d"}]))}
    if function in TEXTS_TOO:
        spec["value"] = draw(st.sampled_from(list(oracle.VALUES)))
    elif function == "share":
        spec["value"] = draw(st.sampled_from(list(oracle.CONDITIONS)))
    elif function not in ("time_since", "rate"):
        spec["value"] = draw(st.sampled_from(oracle.NUMBERS))
    if function == "ratio":
        spec["divisor"] = draw(st.sampled_from(oracle.NUMBERS))
    if function == "last_n":
        spec["n"] = draw(st.integers(1, 4))
    if function == "quantile":
        spec["q"] = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    spec |= draw(st.sampled_from([{}, {}, {"where": draw(st.sampled_from(list(oracle.CONDITIONS)))}, {"by": BY}]))
    if function in ("mean", "std", "ratio", "time_since"):
        spec |= draw(st.sampled_from([{}, {"default": -1.5}]))
    return spec


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, pl.DataFrame], dict[str, list[dict[str, Any]]]]:
    """A declaration, its frames, and the rows that they hold."""
    dtypes = draw(st.lists(st.sampled_from(list(KEYS)), min_size=1, max_size=2))
    keys = {f"k{i}": dtype for i, dtype in enumerate(dtypes)}
    spec: dict[str, Any] = {"entity": list(keys), "source": "events", "timestamp": "seen"}
    spec["aggregates"] = {f"x{i}": draw(aggregates()) for i in range(draw(st.integers(3, 9)))}
    spec["aggregates"] |= {"n": {"function": "count"}, "late": {"function": "count", "window": "1d"}}
    spec["derive"] = {f"d{i}": text for i, text in enumerate(draw(st.sets(st.sampled_from(list(oracle.DERIVED)))))}
    if draw(st.booleans()):
        spec["where"] = draw(st.sampled_from(list(oracle.CONDITIONS)))
    if draw(st.booleans()):
        spec["entities"] = "entities"
    if draw(st.booleans()):
        tier = {"source": "tiers", "timestamp": "since"}
        spec["attributes"] = {"tier": tier, "seats": {**tier, **draw(st.sampled_from([{}, {"default": 7}]))}}
    key = st.fixed_dictionaries({name: sometimes(st.sampled_from(KEYS[dtype])) for name, dtype in keys.items()})
    columns: dict[str, dict[str, Any]] = {
        "events": {
            "seen": sometimes(moments()),
            "amount": sometimes(st.sampled_from([0.0, 1.5, -2.25, 1e6, math.nan, math.inf, -math.inf, 1.0])),
            "qty": sometimes(st.integers(-5, 5)),
            "kind": sometimes(st.sampled_from(["a", "B", "é", ""])),
            "flag": sometimes(st.booleans()),
        },
        "entities": {"created_at": sometimes(moments())},
        "tiers": {
            "since": sometimes(moments()),
            "tier": sometimes(st.sampled_from(["gold", "silver"])),
            "seats": sometimes(st.integers(0, 9)),
        },
    }
    stamp = draw(st.sampled_from([UTC_US, pl.Datetime("us"), pl.Datetime("ns", "UTC")]))
    kinds = {"amount": pl.Float64, "qty": pl.Int32, "kind": pl.String, "flag": pl.Boolean, "tier": pl.String}
    frames, rows = {}, {}
    for name, own in columns.items():
        drawn = draw(st.lists(st.builds(lambda k, c: k | c, key, st.fixed_dictionaries(own)), max_size=25))
        if name == "entities":
            drawn = list({oracle.key_of(oracle.clean(r), list(keys)): r for r in drawn}.values())
        rows[name] = drawn
        types = {**keys, **{c: kinds.get(c, pl.Int64 if c == "seats" else stamp) for c in own}}
        frames[name] = pl.DataFrame([column(c, drawn, dtype) for c, dtype in types.items()])
    return spec, frames, rows


def extracted(spec: Mapping[str, Any], frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    found = FeatureExtractor().extract(spec, frames, as_of=T)
    assert isinstance(found, pl.DataFrame)
    return found


@settings(deadline=None, max_examples=30)
@given(worlds())
def test_agrees_with_the_oracle(world: Any) -> None:
    spec, frames, rows = world
    wanted = oracle.features(spec, rows, T)
    found = extracted(spec, frames)
    schema = frames["entities" if "entities" in spec else "events"].schema
    assert {name: found.schema[name] for name in spec["entity"]} == {name: schema[name] for name in spec["entity"]}
    by_key = {oracle.key_of(row, spec["entity"]): row for row in found.iter_rows(named=True)}
    assert len(by_key) == found.height
    assert set(by_key) == set(wanted)
    for who, features in wanted.items():
        for name, value in features.items():
            assert same(by_key[who][name], value), f"{name} of {who}: {by_key[who][name]!r}, not {value!r}: {spec}"


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float | Fraction) and found is not None:
        return math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9)
    return type(found) is type(wanted) and bool(found == wanted)


@settings(deadline=None, max_examples=10)
@given(worlds(), worlds())
def test_what_comes_later_changes_nothing(world: Any, other: Any) -> None:
    spec, frames, _ = world
    stamps = {"events": "seen", "tiers": "since", "entities": "created_at"}
    later = {}
    for name, frame in frames.items():
        own, dtype = stamps[name], frame.schema[stamps[name]]
        strange = other[1][name].drop(spec["entity"], strict=False)
        added = pl.concat([frame, frame]).select(spec["entity"]).head(strange.height)
        extra = (
            pl.concat([added, strange.head(added.height)], how="horizontal").select(
                pl.lit(T + US)
                .cast(UTC_US)
                .dt.replace_time_zone(None)
                .cast(pl.Datetime(dtype.time_unit))
                .dt.replace_time_zone(dtype.time_zone)
                .alias(c)
                if c == own
                else pl.col(c)
                for c in frame.columns
            )
            if added.height and isinstance(dtype, pl.Datetime)
            else frame.clear()
        )
        later[name] = frame if name == "entities" else pl.concat([frame, extra])
    assert_frame_equal(extracted(spec, later), extracted(spec, frames))


@settings(deadline=None, max_examples=10)
@given(worlds())
def test_many_as_ofs_at_once_give_the_same(world: Any) -> None:
    spec, frames, _ = world
    found = declared("v", view_spec("v", spec), {name: {} for name in frames})
    assert found.view is not None
    tables = {role: frames[source].to_arrow() for role, source in found.sources.items()}
    as_ofs = [T + i * timedelta(hours=7) for i in range(-2, 2)]
    with Inputs(found.view, tables) as inputs:
        wanted = [pl.DataFrame(compute(inputs, inputs.view, t)) for t in as_ofs]
    with tempfile.TemporaryDirectory() as folder, Inputs(found.view, tables) as inputs:
        many = [
            pl.DataFrame(t) for _, t in History(inputs, inputs.view, as_ofs, folder=Path(folder) / "h", budget=10**8)
        ]
    for one, other in zip(wanted, many, strict=True):
        assert_frame_equal(other, one, rel_tol=1e-9, abs_tol=1e-9)

"""Declared views: what each key of a declaration means, by small examples, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from engine import Pipeline, run_pipeline
from engine.errors import ConfigError, DataError, MaestroError, UsageError
from engine.features import FeatureExtractionConfig, FeatureExtractor
from engine.plan import compile_plan

T = datetime(2025, 10, 4, tzinfo=UTC)
DAY = timedelta(days=1)
UTC_US = pl.Datetime("us", "UTC")
EVENTS = pl.DataFrame(
    {
        "user": [1, 1, 2, 3, 2, None],
        "seen": [T - DAY, T - 20 * DAY, T - 3 * DAY, T + DAY, T - 8 * DAY, T],
        "kind": ["a", "b", "a", "a", None, "a"],
        "Amount": [1.5, float("nan"), 2.0, 3.0, 4.0, 5.0],
        "qty": [1, 2, 3, 4, 5, 6],
    },
    schema_overrides={"seen": UTC_US},
)
USERS = pl.DataFrame(
    {"user": [1, 2, 3, 4], "plan": ["x", "y", "x", "z"], "created_at": [T - 30 * DAY, T - 9 * DAY, T + DAY, None]},
    schema_overrides={"created_at": UTC_US},
)
TIERS = pl.DataFrame(
    {
        "user": [1, 1, 2, 4],
        "since": [T - 2 * DAY, T - DAY, T + DAY, T - DAY],
        "tier": ["gold", None, "silver", "basic"],
        "seats": [1, 2, 3, 4],
    },
    schema_overrides={"since": UTC_US},
)


def pipeline(folder: Path, view: dict[str, Any], **more: Any) -> Pipeline:
    for name, frame in (("events", EVENTS), ("users", USERS), ("tiers", TIERS)):
        frame.write_parquet(folder / f"{name}.parquet")
    sources = {name: {"type": "file", "path": f"{name}.parquet"} for name in ("events", "users", "tiers")}
    return Pipeline(base=folder, name="small", sources=sources, features={"v": view}, **more)


def published(folder: Path, view: dict[str, Any], as_of: datetime = T) -> pl.DataFrame:
    run_pipeline(pipeline(folder, view), as_of=as_of)
    frame = pl.read_parquet(folder / "features" / "v" / "**/*.parquet", hive_partitioning=False)
    return frame.filter(pl.col("event_timestamp") == as_of).drop("event_timestamp", "created_timestamp")


def events(aggregates: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"entity": "user", "source": "events", "timestamp": "seen", "aggregates": aggregates, **more}


FUNCTIONS: list[tuple[Any, list[Any]]] = [
    ("count", [2, 2]),
    ("count(amount)", [1, 2]),
    ("count over 7d", [1, 1]),
    ("count_distinct(kind)", [2, 1]),
    ("sum(qty)", [3, 8]),
    ("sum(amount)", [1.5, 6.0]),
    ("mean(qty) over 30d", [1.5, 4.0]),
    ("min(kind)", ["a", "a"]),
    ("max(seen)", [T - DAY, T - 3 * DAY]),
    ("std(qty)", [0.5**0.5, 2**0.5]),
    ("var(qty)", [0.5, 2.0]),
    ("first(qty)", [2, 5]),
    ("last(amount)", [1.5, 2.0]),
    ({"function": "last_n", "value": "qty", "n": 2}, [[1, 2], [3, 5]]),
    ({"function": "quantile", "value": "qty", "q": 0.25}, [1.25, 3.5]),
    ("mode(kind)", ["a", "a"]),
    ("share(qty > 1)", [0.5, 1.0]),
    ({"function": "ratio", "value": "qty", "divisor": "amount"}, [2.0, 8 / 6]),
    ("time_since", [86_400.0, 3 * 86_400.0]),
    ("rate over 7d", [1 / 7, 1 / 7]),
    ({"function": "rate", "window": "1w", "per": "7d"}, [1.0, 1.0]),
    ({"function": "sum", "value": "qty", "window": "7d", "offset": "7d"}, [None, 5]),
    ({"function": "sum", "value": "qty", "window": "7d", "default": 0, "offset": "7d"}, [0, 5]),
    ({"function": "count", "window": "2d", "tumbling": True}, [0, 1]),
    ({"function": "sum", "value": "qty * 2", "where": "kind = 'a' -- so"}, [2, 6]),
]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    aggregates = {f"x{i}": aggregate for i, (aggregate, _) in enumerate(FUNCTIONS)}
    return published(tmp_path_factory.mktemp("functions"), events(aggregates))


@pytest.mark.parametrize("number", range(len(FUNCTIONS)), ids=[f"{f}"[:40] for f, _ in FUNCTIONS])
def test_functions(computed: pl.DataFrame, number: int) -> None:
    assert computed[f"x{number}"].to_list() == FUNCTIONS[number][1]


def test_dtypes_are_those_of_the_values(tmp_path: Path) -> None:
    frame = published(
        tmp_path,
        events(
            {
                "n": "count",
                "qty": "sum(qty)",
                "amount": "sum(amount)",
                "kinds": {"function": "last_n", "value": "kind", "n": 3},
                "day": "max(CAST(seen AS DATE))",
                "money": "max(CAST(qty AS DECIMAL(9, 2)))",
                "is_big": "last(qty > 2)",
            },
            derive={"twice": "n * 2", "half": "n / 2", "label": "'n' || n"},
        ),
    )
    assert dict(frame.schema) == {
        "user": pl.Int64,
        "n": pl.Int64,
        "qty": pl.Int64,
        "amount": pl.Float64,
        "kinds": pl.List(pl.String),
        "day": UTC_US,
        "money": pl.Float64,
        "is_big": pl.Boolean,
        "twice": pl.Int64,
        "half": pl.Float64,
        "label": pl.String,
    }


def test_by_gives_a_feature_per_value(tmp_path: Path) -> None:
    by = {"function": "count", "by": {"column": "kind", "values": ["a", "b"]}}
    frame = published(tmp_path, events({"n": by, "m": {**by, "by": {"column": "qty", "values": {"one": 1}}}}))
    assert frame.rows() == [(1, 1, 1, 1), (2, 1, 0, 0)]
    assert frame.columns == ["user", "n_a", "n_b", "m_one"]


def test_entities_are_those_with_an_event_or_those_that_exist(tmp_path: Path) -> None:
    view = events({"n": "count"}, where="qty <> 3 AND qty <> 5")
    assert published(tmp_path, view).rows() == [(1, 2)]
    view |= {"entities": "users", "derive": {"plans": "upper(plan)", "age": "whole_days(as_of(), created_at)"}}
    assert published(tmp_path, view).rows() == [(1, 2, "X", 30), (2, 0, "Y", 9), (4, 0, "Z", None)]


def test_entities_without_events(tmp_path: Path) -> None:
    view = {"entity": "user", "entities": "users", "derive": {"plan_length": "length(plan)"}}
    assert published(tmp_path, view).rows() == [(1, 1), (2, 1), (4, 1)]


def test_attributes_are_those_of_the_newest_row(tmp_path: Path) -> None:
    tier = {"source": "tiers", "timestamp": "since"}
    view = events({}, entities="users", attributes={"tier": tier, "places": {**tier, "value": "seats", "default": 0}})
    assert published(tmp_path, view).rows() == [(1, None, 2), (2, None, 0), (4, "basic", 4)]
    assert published(tmp_path, view, T - 2 * DAY).rows() == [(1, "gold", 1), (2, None, 0), (4, None, 0)]


def test_derived_features_rest_on_all_others(tmp_path: Path) -> None:
    tier = {"source": "tiers", "timestamp": "since", "value": "seats"}
    view = events(
        {"n": "count", "order": "rate over 7d"},
        attributes={"seats": tier},
        derive={"b": "a + n", "a": '"order" * 7 + seats', "s": "'n and seats'"},
        defaults={"a": -1.0},
    )
    assert published(tmp_path, view).select("a", "b", "s").rows() == [
        (3.0, 5.0, "n and seats"),
        (-1.0, 1.0, "n and seats"),
    ]


def test_compound_keys(tmp_path: Path) -> None:
    view = events({"n": "count"}) | {"entity": {"user": "user", "sort": "kind"}}
    assert published(tmp_path, view).rows() == [(1, "a", 1), (1, "b", 1), (2, "a", 1)]


def test_compound_keys_do_not_collide(tmp_path: Path) -> None:
    pl.DataFrame({"a": ["1:", "1", "x", None], "b": ["2", ":2", None, "y"], "seen": [T] * 4}).write_parquet(
        tmp_path / "e.parquet"
    )
    view = {"entity": ["a", "b"], "source": "e", "timestamp": "seen", "aggregates": {"n": "count"}}
    source = {"e": {"type": "file", "path": "e.parquet"}}
    report = run_pipeline(Pipeline(base=tmp_path, name="s", sources=source, features={"v": view}), as_of=T)
    frame = pl.read_parquet(tmp_path / "features" / "v" / "**/*.parquet", hive_partitioning=False)
    assert frame.select("a", "b", "n").rows() == [("1", ":2", 1), ("1:", "2", 1)]
    assert report.views[0].left_out == {"events": {"null_keys": 2, "null_timestamps": 0}}


MISTAKES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"set": "user"}, "v.set", ["built-in sets"]),
    ({"source": "event"}, "v.source", ["'event'", "did you mean 'events'"]),
    ({"source": None}, "v", ["'source' is missing"]),
    ({"timestamp": None}, "v", ["'timestamp' is missing"]),
    ({"entity": None}, "v", ["'entity' is missing"]),
    ({"entity": ["user", "User"]}, "v.entity", ["cannot be published as 'user'"]),
    ({"entity": "event_timestamp"}, "v.entity", ["cannot be published as 'event_timestamp'", "{NAME: column}"]),
    ({"where": "sum(qty) > 1"}, "v.where", ["sum is an aggregate"]),
    ({"where": "qty > (SELECT 1)"}, "v.where", ["a subquery"]),
    ({"where": "seen < now()"}, "v.where", ["now does not give the same", "as_of()"]),
    ({"aggregates": {"x": "last(seen < current_timestamp)"}}, "v.aggregates.x.value", ["current_timestamp"]),
    ({"aggregates": {"x": "sum(randm())"}}, "v.aggregates.x.value", ["no function randm", "'random'"]),
    ({"aggregates": {"x": "sum(row_number() OVER ())"}}, "v.aggregates.x.value", ["a window function"]),
    ({"aggregates": {"x": "sum"}}, "v.aggregates.x.function", ["sum needs a value"]),
    ({"aggregates": {"x": "time_since(seen)"}}, "v.aggregates.x.value", ["takes no value"]),
    ({"aggregates": {"x": "rate"}}, "v.aggregates.x.function", ["needs a window"]),
    ({"aggregates": {"x": {"function": "last_n", "value": "qty"}}}, "v.aggregates.x.function", ["needs n"]),
    ({"aggregates": {"x": {"function": "count", "q": 0.5}}}, "v.aggregates.x.q", ["takes no q", "quantile"]),
    ({"aggregates": {"x": "summ(qty)"}}, "v.aggregates.x", ["'summ'", "did you mean 'sum'"]),
    ({"aggregates": {"x": "sum(qty) ovr 7d"}}, "v.aggregates.x", ["mean(amount) over 30d"]),
    ({"aggregates": {"x": {"function": "count", "tumbling": True}}}, "v.aggregates.x.tumbling", ["has no window"]),
    ({"aggregates": {"user": "count"}}, "v.aggregates.user", ["'user' is the name of another column"]),
    ({"aggregates": {"a": "count", "A": "count"}}, "v.aggregates.A", ["stands twice"]),
    ({"derive": {"y": "m + 1"}}, "v.derive.y", ["unknown feature 'm'", "allowed: n, y, user"]),
    ({"derive": {"y": "z + 1", "z": "y + 1"}}, "v.derive.y", ["rests on itself: y → z → y"]),
    ({"defaults": {"m": 0}}, "v.defaults.m", ["no feature 'm'", "allowed: n"]),
    ({"features": ["n", "m"]}, "v.features[1]", ["no feature 'm'"]),
    ({"attributes": {"t": {"source": "tier", "timestamp": "since"}}}, "v.attributes.t.source", ["did you mean 'tiers'"]),
    ({"entities": {"source": "users", "key": ["a", "b"]}}, "v.entities.key", ["2 columns"]),
    ({"created_at": "born"}, "v.created_at", ["column of entities"]),
    ({"aggregates": {}}, "v", ["no feature"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "where", "said"), MISTAKES, ids=[f"{c}"[:40] for c, _, _ in MISTAKES])
def test_mistakes_are_named(tmp_path: Path, change: dict[str, Any], where: str, said: list[str]) -> None:
    view = {k: v for k, v in (events({"n": "count"}) | change).items() if v is not None}
    with pytest.raises(ConfigError) as caught:
        compile_plan(pipeline(tmp_path, view), T)
    assert caught.value.where == f"features.{where}"
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"aggregates": {"x": "sum(qtty)"}}, "features.missing_column", ["'qtty', which features.v.x reads", "'qty'"]),
        ({"where": "qtty > 1"}, "features.missing_column", ["'qtty', which features.v reads"]),
        ({"aggregates": {"n": "count", "x": "sum(kind)"}}, "features.not_a_number", ["features.v.x: sum of (kind)"]),
        ({"aggregates": {"n": "count", "x": "sum(upper(qty))"}}, "features.expression", ["features.v.x: it cannot"]),
        ({"aggregates": {"x": {"function": "count", "where": "qty"}}}, "features.condition", ["features.v.x: its"]),
        ({"derive": {"y": "n + seen"}, "entities": "users"}, "features.missing_column", ["features.v.y reads"]),
        ({"derive": {"y": "upper(n, 1)"}}, "features.expression", ["features.v.y: it cannot"]),
        ({"derive": {"y": "{'a': n}"}}, "features.type", ["features.v.y: it is of type struct"]),
    ],
)
def test_what_only_the_data_show_is_named_too(
    tmp_path: Path, change: dict[str, Any], code: str, said: list[str]
) -> None:
    with pytest.raises(MaestroError) as caught:
        run_pipeline(pipeline(tmp_path, events({"n": "count"}) | change), as_of=T)
    assert caught.value.code == code, caught.value
    for text in said:
        assert text in str(caught.value)


def test_definitions_of_a_config_are_extracted_by_name() -> None:
    definitions = {"spending": events({"spent": "sum(amount)", "n": "count"})}
    extractor = FeatureExtractor(FeatureExtractionConfig(feature_definitions=definitions))
    found = extractor.extract("spending", {"events": EVENTS.to_pandas()}, as_of=T)
    assert isinstance(found, pd.DataFrame)
    assert found[["user", "spent", "n"]].to_numpy().tolist() == [[1, 1.5, 2], [2, 6.0, 2]]
    scaled = extractor.normalize_features(extractor.handle_missing_values(found))
    assert scaled[["user", "spent", "n"]].to_numpy().tolist() == [[1, 0.0, 0.0], [2, 1.0, 0.0]]
    with pytest.raises(UsageError, match="did you mean 'spending'"):
        extractor.extract("spendin", {"events": EVENTS})
    with pytest.raises(ConfigError, match=r"features\.view\.source: unknown source 'events'"):
        extractor.extract(definitions["spending"], {"event": EVENTS})
    with pytest.raises(ConfigError, match=r"features\.x\.aggregates\.n\.function"):
        FeatureExtractionConfig(feature_definitions={"x": {"entity": "a", "aggregates": {"n": {"function": "cnt"}}}})


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (pl.Series([b"a", b"a", None]), [b"a"]),
        (pl.Series([date(2020, 1, 1), date(2020, 1, 1), None]), [date(2020, 1, 1)]),
        (pl.Series(["1.5", "1.5", None]).cast(pl.Decimal(10, 2)), [Decimal("1.50")]),
        (pl.Series(["x", "x", None], dtype=pl.Categorical), ["x"]),
        (pl.Series([3.0, 3.0, float("nan")]), [3.0]),
        (pl.Series([T, T, None], dtype=pl.Datetime("ns", "UTC")), [T]),
        (pl.Series([7, 7, None], dtype=pl.UInt8), [7]),
    ],
)
def test_keys_are_of_any_type(keys: pl.Series, wanted: list[Any]) -> None:
    frame = pl.DataFrame({"k": keys, "seen": [T] * 3})
    view = {"entity": "k", "source": "e", "timestamp": "seen", "aggregates": {"n": "count"}}
    found = FeatureExtractor().extract(view, {"e": frame}, as_of=T)
    assert found["k"].to_list() == wanted
    assert found.schema["k"] == keys.dtype
    assert found["n"].to_list() == [2]


def test_a_sum_beyond_64_bits_names_its_feature() -> None:
    frame = pl.DataFrame({"user": [1, 1], "seen": [T, T], "qty": [2**62, 2**62]})
    with pytest.raises(DataError, match=r"features\.view\.total: it is beyond what 64-bit integers hold"):
        FeatureExtractor().extract(events({"n": "count", "total": "sum(qty)"}), {"events": frame}, as_of=T)


def test_columns_are_found_whatever_their_case_unless_two_differ_only_in_it() -> None:
    frame = pl.DataFrame({"user": [1], "seen": [T], "Amount": [2], "amount": [3]})
    found = FeatureExtractor().extract(events({"a": "sum(amount)"}), {"events": frame}, as_of=T)
    assert found["a"].to_list() == [3]
    with pytest.raises(DataError, match="cannot tell the columns 'Amount' and 'amount' apart"):
        FeatureExtractor().extract(events({"a": "sum(AMOUNT)"}), {"events": frame}, as_of=T)


def test_an_empty_source_and_a_column_of_nulls(tmp_path: Path) -> None:
    aggregates = {"n": "count", "s": "sum(x)", "m": "mean(x)", "l": "last(x)"}
    none = pl.DataFrame({"user": [1], "seen": [T], "x": [None]})
    found = FeatureExtractor().extract(events(aggregates), {"events": none}, as_of=T)
    assert found.drop("event_timestamp").rows() == [(1, 1, None, None, None)]
    found = FeatureExtractor().extract(events(aggregates), {"events": none.clear()}, as_of=T)
    assert found.height == 0

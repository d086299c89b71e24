"""Transforms: by hand, against plain Python, pinned, exported, and published by a run."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine import Pipeline, run_pipeline, training_set, transforms
from engine.config import load_pipeline
from engine.errors import ConfigError, DataError, UsageError
from engine.features.fit import Fit, apply, learn
from engine.spec import ViewSpec
from engine.spec.transforms import Step
from tests.cli.conftest import Maestro, maestro  # noqa: F401 - the fixture
from tests.features.strategies import PROPERTY
from tests.run.world import DAY, T, pipeline, published, run, write_world

NAN, INF = float("nan"), float("inf")


def steps_of(given: Any) -> tuple[Step, ...]:
    found: tuple[Step, ...] = ViewSpec(transforms={"x": given}).transforms["x"]
    return found


def transformed(values: Any, given: Any, dtype: Any = None, missing: Any = "keep", later: Any = None) -> pl.DataFrame:
    """``later`` (default: the same) by a fit on ``values``."""
    frame = pl.DataFrame({"x": pl.Series(values, dtype=dtype)})
    fit = learn(frame.lazy(), ["x"], handle_missing=missing, normalize=False, transforms={"x": steps_of(given)})
    fit = Fit.from_dict(json.loads(json.dumps(fit.to_dict())))
    other = frame if later is None else pl.DataFrame({"x": pl.Series(later, dtype=dtype)})
    return apply(other.lazy(), fit, ["x"])[0].collect()


@pytest.mark.parametrize(
    ("given", "values", "expected"),
    [
        ("log1p", [0.0, math.e - 1, -1.0, -3.0, None, INF], [0.0, 1.0, None, None, None, None]),
        ({"clip": [0, 5]}, [-1.0, 2.5, 9.0, None, NAN, -INF], [0.0, 2.5, 5.0, None, None, None]),
        ({"clip": [None, 5]}, [-1.0, 9.0], [-1.0, 5.0]),
        ("standard", [1.0, 3.0, None, INF], [-1.0, 1.0, None, None]),
        ("standard", [4, 4], [0.0, 0.0]),
        ("robust", [0.0, 1.0, 2.0, 3.0, 100.0], [-1.0, -0.5, 0.0, 0.5, 49.0]),
        ("robust", [1.0, 1.0, 1.0, 1.0, 9.0], [0.0, 0.0, 0.0, 0.0, 8.0]),
        ("minmax", [0, 5, 10, None], [0.0, 0.5, 1.0, None]),
        ([{"clip": [0, 3]}, "log1p", "minmax"], [-5.0, 0.0, 3.0, 50.0], [0.0, 0.0, 1.0, 1.0]),
        (["standard"], [None, None], [None, None]),
        ([], [1, None], [1, None]),
    ],
)
def test_numbers_by_hand(given: Any, values: list[Any], expected: list[Any]) -> None:
    found = transformed(values, given, pl.Float64 if isinstance(values[0], float | None) else None)
    assert found["x"].to_list() == [None if v is None else pytest.approx(v, abs=1e-15) for v in expected]
    assert found["x"].dtype == (pl.Float64 if given else pl.Int64)


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["b", "a", "c"])])
def test_categories_by_hand(dtype: Any) -> None:
    values, later = ["b", "a", None, "b"], ["c", "a", None, "b"]
    found = transformed(values, "one_hot", dtype, later=later)
    assert found.to_dict(as_series=False) == {"x_a": [0, 1, 0, 0], "x_b": [0, 0, 0, 1]}
    assert transformed(values, "ordinal", dtype, later=later)["x"].to_list() == [-1, 0, None, 1]
    assert transformed(values, {"ordinal": ["c", "b"]}, dtype, later=later)["x"].to_list() == [0, -1, None, 1]
    assert transformed(values, ["ordinal", "minmax"], dtype)["x"].to_list() == [1.0, 0.0, None, 1.0]
    imputed = transformed(values, "one_hot", dtype, "impute", [None, "a"])
    assert imputed.rows() == [(0, 1), (1, 0)], "the most frequent one"
    assert transformed([None], "one_hot", dtype).width == 0
    assert transformed([None], "ordinal", dtype)["x"].to_list() == [None]


def test_whole_numbers_and_truth_values_are_categories_too() -> None:
    assert transformed([3, 1, 3, None], "one_hot", missing="impute").columns == ["x_1", "x_3"]
    assert transformed([3, 1, 3, None], "one_hot", missing="impute").row(3) == (0, 1)
    found = transformed([True, False, None], {"one_hot": [True, False]})
    assert found.to_dict(as_series=False) == {"x_true": [1, 0, 0], "x_false": [0, 1, 0]}


def test_what_is_unknown_or_clipped_is_counted() -> None:
    frame = pl.DataFrame({"level": ["a", "b", "zz", None], "n": [1.0, 2.0, 9.0, -9.0], "user_id": range(4)})
    names = ["level", "n"]
    how = {"level": steps_of("one_hot"), "n": steps_of(["minmax"])}
    fit = learn(frame[:2].lazy(), names, handle_missing="keep", normalize=False, transforms=how)
    made, applied = apply(frame.lazy(), fit, names)
    assert (applied.unknown, applied.clipped) == ({"level": 1}, {"n": 2})
    assert made.collect().columns == ["level_a", "level_b", "n", "user_id"]


def test_columns_of_one_name_and_too_many_categories_are_refused() -> None:
    frame = pl.DataFrame({"x": ["a"], "x_a": [1]}).lazy()
    how: dict[str, Any] = {"handle_missing": "keep", "normalize": False}
    with pytest.raises(DataError, match="'x_a'"):
        learn(frame, ["x", "x_a"], **how, transforms={"x": steps_of("one_hot")})
    with pytest.raises(DataError, match="more than 100"):
        transformed([f"c{i}" for i in range(101)], "one_hot")
    with pytest.raises(DataError, match="has no value 1"):
        transformed(["a"], {"one_hot": [1]})


NUMBERS = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=12)
NUMERIC = st.lists(
    st.sampled_from(["log1p", "minmax", "standard", "robust", {"clip": [-10, 10]}, {"clip": [None, 100.5]}]), max_size=3
)


@PROPERTY
@given(NUMBERS, NUMBERS, NUMERIC)
def test_chains_equal_plain_python(values: list[float | None], later: list[float | None], given: list[Any]) -> None:
    """Fitted on some rows, applied to others."""
    fitted, expected = values, later
    for step in given:
        known = [v for v in fitted if v is not None]
        fitted, expected = ([None if v is None else one(step, v, known) for v in rows] for rows in (fitted, expected))
    found = transformed(values, given, pl.Float64, later=later)["x"].to_list()
    assert found == [None if v is None else pytest.approx(v, rel=1e-6, abs=1e-6) for v in expected]


def one(step: Any, value: float, known: list[float]) -> float | None:
    if step == "log1p":
        return math.log1p(value) if value > -1 else None
    if isinstance(step, dict):
        low, high = (default if end is None else end for end, default in zip(step["clip"], (-INF, INF), strict=True))
        return min(max(value, low), high)
    if not known:
        return None
    if step == "minmax":
        low, high = min(known), max(known)
        return 0.0 if low == high else (min(max(value, low), high) - low) / (high - low)
    if step == "standard":
        spread = statistics.pstdev(known)
        return (value - statistics.fmean(known)) / (spread or 1.0)
    low, high = np.quantile(known, [0.25, 0.75])
    return (value - statistics.median(known)) / (float(high - low) or 1.0)


ROWS = st.lists(
    st.fixed_dictionaries({"n": st.none() | st.integers(-5, 5), "level": st.none() | st.sampled_from("abcd")}),
    max_size=8,
)


@PROPERTY
@given(ROWS, ROWS, st.sampled_from(["impute", "zero", "keep", "drop"]), st.sampled_from(["one_hot", "ordinal"]))
def test_later_rows_change_nothing_under_a_pin(
    first: list[dict[str, Any]], later: list[dict[str, Any]], missing: Any, kind: str
) -> None:
    """What a fit does to rows is the same alone and beside others; and a pinned fit stays as it is."""
    schema = {"n": pl.Float64, "level": pl.String}
    how: dict[str, Any] = {"handle_missing": missing, "normalize": "standard"}
    how["transforms"] = {"level": steps_of(kind)}
    early, whole = pl.LazyFrame(first, schema=schema), pl.LazyFrame([*first, *later], schema=schema)
    fit = learn(early, ["n", "level"], **how)
    once = apply(early, fit, ["n", "level"])[0].collect()
    both = apply(whole, fit, ["n", "level"])[0].collect()
    assert_frame_equal(both[: once.height], once, check_exact=True)
    if not fit.unfitted(["n", "level"], pl.Schema(schema), {}):
        assert learn(whole, ["n", "level"], **how, pinned=fit) == fit


# In a pipeline


FEATURES = {
    "user_features": {
        "handle_missing": "impute",
        "normalize": "robust",
        "features": ["experience_years", "tasks_completed_7d", "tasks_completed_30d", "bug_rate"],
        "transforms": {"bug_rate": ["log1p", {"clip": [0, 1]}, "standard"], "tasks_completed_30d": "one_hot"},
    }
}


def test_an_export_gives_what_a_run_published_to_the_bit(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, T, features=FEATURES)
    report = run(tmp_path, T + 3 * DAY, features=FEATURES)
    assert report.views[0].fit_version == 1
    assert report.views[0].to_dict()["unknown"] == [{"tasks_completed_30d": 1}]
    made = published(tmp_path)
    assert (
        made.columns[2:]
        == [*("experience_years", "tasks_completed_7d", "tasks_completed_30d_1", "tasks_completed_30d_2", "bug_rate")]
        or made.columns
    )
    document = json.loads(json.dumps(transforms.export(pipeline(tmp_path, features=FEATURES), "user_features")))
    raw_features = {
        "user_features": {**FEATURES["user_features"], "handle_missing": "keep", "normalize": False, "transforms": {}}
    }
    for folder in (tmp_path / "raw",):
        write_world(folder)
        run(folder, [T, T + 3 * DAY], features=raw_features)
        for moment in (T, T + 3 * DAY):
            raw = published(folder).filter(pl.col("event_timestamp") == moment)
            served = transforms.load(document).apply(raw)
            assert_frame_equal(served, made.filter(pl.col("event_timestamp") == moment), check_exact=True)
    with pytest.raises(UsageError, match="no feature 'bug_rate'"):
        transforms.load(document).apply(raw.drop("bug_rate"))


def test_a_changed_transform_is_fitted_anew_and_earlier_as_ofs_follow(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, T, features=FEATURES)
    before = published(tmp_path)
    changed = {"user_features": {**FEATURES["user_features"], "transforms": {"bug_rate": ["log1p"]}}}
    report = run(tmp_path, T + DAY, features=changed)
    assert (report.views[0].fit_version, len(report.views[0].again)) == (2, 1)
    after = published(tmp_path).filter(pl.col("event_timestamp") == T)
    assert_frame_equal(after.select("experience_years"), before.select("experience_years"))
    assert transforms.export(pipeline(tmp_path, features=changed), "user_features", 1)["fit_version"] == 1


def test_min_max_of_a_whole_view_is_exported_too(tmp_path: Path) -> None:
    write_world(tmp_path)
    view = {"user_features": {"normalize": "minmax", "features": ["experience_years"]}}
    run(tmp_path, features=view)
    [feature] = transforms.export(pipeline(tmp_path, features=view), "user_features")["features"]
    assert feature == {"name": "experience_years", "fill": 3.5, "steps": [{"step": "minmax", "low": 1.0, "high": 6.0}]}


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maestro: Maestro) -> None:  # noqa: F811
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    sources = "users: {type: file, path: data/users.parquet, column_mapping: {id: user_id}, critical_columns: [user_id], deduplicate: {keys: [user_id]}}"
    sources += ", activities: {type: file, path: data/activities/*.parquet}"
    features = "user_features: {transforms: {bug_rate: [log1p, {clip: [0, 100]}, standard], priority: []}}"
    Path("p.yaml").write_text(f"version: 1\nname: small\nsources: {{{sources}}}\nfeatures: {{{features}}}\n")
    said = maestro("check", "p.yaml", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (2, "config.unknown_feature")
    Path("p.yaml").write_text(Path("p.yaml").read_text().replace(", priority: []", ""))
    said = maestro("fit", "export", "p.yaml", "--view", "user_features")
    assert (said.code, "has not run yet" in said.err) == (2, True)
    assert maestro("run", "p.yaml").code == 0
    said = maestro("fit", "export", "p.yaml", "--view", "user_features")
    assert said.code == 0
    assert maestro("fit", "export", "p.yaml", "--view", "user_features", "--out", "fit.json").code == 0
    assert json.loads(Path("fit.json").read_text()) == json.loads(said.out)
    assert transforms.load("fit.json").view == "user_features"
    assert maestro("fit", "export", "p.yaml", "--view", "user_features", "--fit-version", "9").code == 2
    with pytest.raises(UsageError):
        transforms.load("p.yaml")
    assert load_pipeline("p.yaml").features["user_features"].transforms["bug_rate"] == (
        Step("log1p"),
        Step("clip", 0.0, 100.0),
        Step("standard"),
    )


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ({"transforms": {"bug_rate": ["log1"]}}, "did you mean 'log1p'?"),
        ({"transforms": {"bug_rate": {"clip": [2, 1]}}}, "the lower one first"),
        ({"transforms": {"bug_rate": {"clip": [None, None]}}}, "two numbers"),
        ({"transforms": {"bug_rate": ["one_hot", "log1p"]}}, "one_hot stands alone"),
        ({"transforms": {"bug_rate": ["log1p", "ordinal"]}}, "ordinal comes first"),
        ({"transforms": {"bug_rate": {"one_hot": ["a", 1]}}}, "one kind"),
        ({"transforms": {"bug_rate": [{"clip": [0, 1], "log1p": []}]}}, "a name with what it takes"),
        ({"normalize": "standart"}, "did you mean 'standard'?"),
        ({"normalize": 1}, "true or false"),
    ],
)
def test_mistakes(view: dict[str, Any], words: str) -> None:
    sources = {name: {"type": "file", "path": "a.csv"} for name in ("users", "activities")}
    with pytest.raises(ConfigError) as caught:
        Pipeline(name="p", sources=sources, features={"user_features": view})
    assert words in str(caught.value)


def test_a_declared_view_with_texts_and_a_key_of_two_columns(tmp_path: Path) -> None:
    """Published, exported, and joined to a training set by both columns."""
    events = {
        "user": [1, 1, 2, 2, 2],
        "region": ["eu", "us", "eu", "eu", "eu"],
        "at": [T - DAY, T - DAY, T - 2 * DAY, T - DAY, T + DAY],
        "level": ["junior", "senior", "senior", "lead", "junior"],
        "amount": [1.0, 2.0, None, 8.0, 1.0],
    }
    pl.DataFrame(events).write_parquet(tmp_path / "events.parquet")
    view: dict[str, Any] = {
        "entity": ["user", "region"],
        "source": "events",
        "timestamp": "at",
        "aggregates": {"level": "last(level)", "usual": "mode(level)", "spent": "sum(amount)", "events": "count"},
        "ttl": "2d",
    }
    how = {
        "handle_missing": "impute",
        "normalize": "standard",
        "transforms": {"level": "one_hot", "usual": {"ordinal": ["junior", "senior"]}, "events": []},
    }
    sources = {"events": {"type": "file", "path": "events.parquet"}}

    def declared(**more: Any) -> Pipeline:
        return Pipeline(base=tmp_path, name="levels", sources=sources, features={"seen": {**view, **more}})

    run_pipeline(declared(), as_of=T)
    raw = published(tmp_path, "seen")
    report = run_pipeline(declared(**how), as_of=[T, T + 2 * DAY]).views[0]
    made = published(tmp_path, "seen")
    assert made.columns[3:] == ["level_junior", "level_lead", "level_senior", "usual", "spent", "events"]
    assert [dict(done.unknown) for done in report.applied] == [{"usual": 1}, {}]
    served = transforms.load(transforms.export(declared(**how), "seen")).apply(raw)
    assert_frame_equal(served, made.filter(pl.col("event_timestamp") == T), check_exact=True)
    rows = {
        "user": ["2", "2", "1", "1"],
        "region": ["eu", "us", "us", "eu"],
        "event_timestamp": [T, T, T + DAY, T + 9 * DAY],
    }
    asked = pl.DataFrame(rows)
    joined = training_set(declared(**how), asked, features="seen:level_lead,seen:events,seen:usual").collect()
    assert joined.rows() == [
        (*row, *found)
        for row, found in zip(asked.rows(), [(1, 2, -1), (None,) * 3, (0, 1, 1), (None,) * 3], strict=True)
    ]

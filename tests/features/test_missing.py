"""Missing values and normalisation on one frame, against the slow oracle and by hand-computed examples."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from polars.testing import assert_frame_equal

from engine.errors import MaestroError
from engine.features import FeatureExtractionConfig, FeatureExtractor
from tests.features.strategies import PROPERTY, UTC_US, Table, feature_tables
from tests.oracles import features as oracle
from tests.oracles.features import same

T = datetime(2025, 10, 4, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")
MODES = ["impute", "zero", "drop", "keep"]


def fill(frame: Any, how: str) -> Any:
    return FeatureExtractor(FeatureExtractionConfig(handle_missing=how)).handle_missing_values(frame)


def scale(frame: Any, *, normalize: bool = True) -> Any:
    return FeatureExtractor(FeatureExtractionConfig(normalize=normalize)).normalize_features(frame)


def assert_rows(frame: pl.DataFrame, expected: list[dict[str, Any]]) -> None:
    """The same columns and rows in the same order; a whole number may have become a fraction."""
    got = frame.to_dicts()
    assert len(got) == len(expected)
    for row, wanted in zip(got, expected, strict=True):
        assert list(row) == list(wanted)
        wrong = {name: (row[name], value) for name, value in wanted.items() if not alike(row[name], value)}
        assert not wrong, f"column: (engine, oracle) = {wrong}"


def alike(got: Any, expected: Any) -> bool:
    """Equal as numbers, or the same; NaN may stand for null in what was to be kept."""
    number = isinstance(got, int | float) and isinstance(expected, int | float)
    return same(float(got), float(expected)) if number else same(oracle.known(got), expected)


# Against the oracle ------------------------------------------------------------


@pytest.mark.parametrize("how", MODES)
@PROPERTY
@given(table=feature_tables())
def test_handle_missing_equals_the_oracle(how: str, table: Table) -> None:
    if how == "zero":  # what zero means for text, or for a column of no type, is not written down
        table = table.without(*(name for name, dtype in table.dtypes.items() if dtype in (pl.String, pl.Null)))
    frame = table.frame()
    assert_rows(fill(frame, how), oracle.handle_missing(table.rows, frame.columns, how))


@PROPERTY
@given(table=feature_tables(infinite=True))
def test_normalisation_equals_the_oracle(table: Table) -> None:
    frame = table.frame()
    result = scale(frame)
    assert_rows(result, oracle.normalize(table.rows, frame.columns))
    numeric = [name for name in ("whole", "fraction", "constant") if frame.schema[name] != pl.Null]
    assert [result.schema[name] for name in numeric] == [pl.Float64] * len(numeric)


@PROPERTY
@given(table=feature_tables(infinite=True))
def test_without_normalisation_the_values_are_unchanged(table: Table) -> None:
    frame = table.frame()
    assert_frame_equal(scale(frame, normalize=False), frame)


# Missing values by example -----------------------------------------------------


def column(values: list[Any], how: str, **series: Any) -> list[Any]:
    """One feature column after handling its missing values."""
    return fill(pl.DataFrame({"x": pl.Series(values, **series)}), how)["x"].to_list()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, None, 9.0, 2.0], [1.0, 2.0, 9.0, 2.0]),  # the median of 1, 2, 9
        ([1.0, None, 2.0], [1.0, 1.5, 2.0]),
        ([1.0, NAN, 2.0, None], [1.0, 1.5, 2.0, 1.5]),  # NaN counts as null, in the fit and in the fill
        ([1, None, 2], [1, 1.5, 2]),
        ([4, None], [4, 4]),
        (["b", None, "a", "b"], ["b", "b", "a", "b"]),
        (["b", "a", None], ["b", "a", "a"]),  # a tie goes to the smallest
        (["ä", "z", "B", None], ["ä", "z", "B", "B"]),  # by code point
        (["", "", "a", None], ["", "", "a", ""]),
    ],
)
def test_impute(values: list[Any], expected: list[Any]) -> None:
    assert column(values, "impute", strict=False) == expected


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Int64, pl.String, pl.Null])
def test_an_all_null_column_has_nothing_to_impute(dtype: Any) -> None:
    assert column([None, None], "impute", dtype=dtype) == [None, None]
    assert column([None, None], "keep", dtype=dtype) == [None, None]
    assert column([None, None], "drop", dtype=dtype) == []


def test_an_all_nan_column_has_nothing_to_impute() -> None:
    assert [oracle.known(value) for value in column([NAN, NAN], "impute")] == [None, None]


@pytest.mark.parametrize(
    ("values", "expected"), [([1.5, None, NAN], [1.5, 0, 0]), ([3, None], [3, 0]), ([None, 2.0], [0, 2.0])]
)
def test_zero(values: list[Any], expected: list[Any]) -> None:
    assert column(values, "zero") == expected


def test_zero_fills_an_all_null_number_column() -> None:
    assert column([None, None], "zero", dtype=pl.Float64) == [0, 0]
    assert column([None, None], "zero", dtype=pl.Int64) == [0, 0]


def test_drop_leaves_the_rows_without_a_null_feature() -> None:
    frame = pl.DataFrame(
        {"user_id": [1, 2, 3, 4, None], "x": [1.0, None, NAN, 4.0, 5.0], "y": ["a", "b", "c", None, "e"]}
    )
    assert fill(frame, "drop").rows() == [(1, 1.0, "a"), (None, 5.0, "e")]


def test_keep_keeps() -> None:
    assert column([1.0, None, 3.0], "keep") == [1.0, None, 3.0]
    assert column(["a", None], "keep") == ["a", None]


# Normalisation by example ------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0, 4.0, 10.0], [0.0, 0.25, 1.0]),
        ([-1, 0, 3], [0.0, 0.25, 1.0]),
        ([5.0, 5.0], [0.0, 0.0]),
        ([5, None], [0.0, None]),  # constant where there is a value; a null stays one
        ([0.0, NAN, None, 2.0], [0.0, None, None, 1.0]),
        ([-INF, 0.0, 5.0, 10.0, INF], [None, 0.0, 0.5, 1.0, None]),
        ([INF, 3.0, -INF], [None, 0.0, None]),
        ([INF, -INF], [None, None]),
    ],
)
def test_min_max(values: list[Any], expected: list[Any]) -> None:
    assert scale(pl.DataFrame({"x": values}))["x"].to_list() == expected


@pytest.mark.parametrize(
    "values", [[0.0, 5e-324], [0.0, 1e-310, 2e-310], [-1.7e308, 0.0, 1.7e308], [2.8e-08, 5.47e-07]]
)
def test_min_max_of_any_width_stays_in_0_to_1(values: list[float]) -> None:
    result = scale(pl.DataFrame({"x": values}))["x"].to_list()
    expected = [row["x"] for row in oracle.normalize([{"x": v} for v in values], ["x"])]
    assert all(map(same, result, expected)), result
    assert all(0 <= value <= 1 for value in result), result


def test_decimals_are_numbers() -> None:
    frame = pl.DataFrame({"x": [Decimal("1.5"), None, Decimal("2.5")]})
    assert fill(frame, "impute")["x"].to_list() == [1.5, 2.0, 2.5]
    assert scale(frame)["x"].to_list() == [0.0, None, 1.0]


def test_text_and_empty_columns_are_not_scaled() -> None:
    frame = pl.DataFrame({"word": ["b", None], "empty": pl.Series([None, None], dtype=pl.Float64)})
    assert scale(frame).rows() == [("b", None), (None, None)]


def test_each_column_has_its_own_range() -> None:
    frame = pl.DataFrame({"x": [0.0, 10.0], "y": [200, 100]})
    assert scale(frame).rows() == [(0.0, 1.0), (1.0, 0.0)]


# Both --------------------------------------------------------------------------

OUTSIDE = pl.DataFrame(
    {
        "user_id": [10, None, 30],
        "task_id": [1, None, 3],
        "project_id": [2.0, None, 9.0],
        "team_id": ["a", None, "a"],
        "event_timestamp": [T, None, T],
        "x": [1.0, 2.0, 4.0],
        "created_timestamp": [T, None, T],
    },
    schema_overrides={"event_timestamp": UTC_US, "created_timestamp": UTC_US},
)


@pytest.mark.parametrize("how", MODES)
def test_keys_and_timestamps_are_untouched_by_filling(how: str) -> None:
    assert_frame_equal(fill(OUTSIDE, how), OUTSIDE)


def test_keys_and_timestamps_are_untouched_by_scaling() -> None:
    assert_frame_equal(scale(OUTSIDE).drop("x"), OUTSIDE.drop("x"))


FRAME = pl.DataFrame(
    {"user_id": ["u1", "u2", "u3"], "event_timestamp": [T, T, T], "x": [1.0, None, 4.0], "n": [1, 2, 5]},
    schema_overrides={"event_timestamp": UTC_US},
)
KINDS = pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (lambda f: f.lazy(), pl.LazyFrame),
        (lambda f: f, pl.DataFrame),
        (lambda f: f.to_arrow(), pa.Table),
        (lambda f: f.to_pandas(), pd.DataFrame),
    ],
    ids=["lazy", "polars", "arrow", "pandas"],
)
STEPS = pytest.mark.parametrize("step", [*(lambda f, h=h: fill(f, h) for h in MODES), scale], ids=[*MODES, "scale"])


@KINDS
@STEPS
def test_the_same_kind_of_frame_comes_out(convert: Callable[[Any], Any], kind: type, step: Any) -> None:
    result = step(convert(FRAME))
    assert isinstance(result, kind)
    assert_frame_equal(as_polars(result), step(FRAME))


def as_polars(frame: Any) -> pl.DataFrame:
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    frame = pl.from_pandas(frame) if isinstance(frame, pd.DataFrame) else pl.from_arrow(frame)
    assert isinstance(frame, pl.DataFrame)
    return frame.cast({"event_timestamp": UTC_US})


@STEPS
def test_an_empty_frame_stays_empty(step: Any) -> None:
    result = step(FRAME.clear())
    assert result.height == 0
    assert result.columns == FRAME.columns


def test_each_step_does_its_own_part_alone() -> None:
    extractor = FeatureExtractor(FeatureExtractionConfig(handle_missing="impute", normalize=True))
    assert extractor.normalize_features(FRAME)["x"].to_list() == [0.0, None, 1.0]
    assert extractor.handle_missing_values(FRAME)["x"].to_list() == [1.0, 2.5, 4.0]
    both = extractor.normalize_features(extractor.handle_missing_values(FRAME))
    assert both["x"].to_list() == [0.0, 0.5, 1.0]


def test_a_call_fits_on_its_own_frame() -> None:
    extractor = FeatureExtractor(FeatureExtractionConfig())
    assert extractor.handle_missing_values(FRAME)["x"].to_list() == [1.0, 2.5, 4.0]
    other = FRAME.with_columns(x=pl.Series([None, 10.0, 30.0]))
    assert extractor.handle_missing_values(other)["x"].to_list() == [20.0, 10.0, 30.0]
    assert extractor.normalize_features(other)["x"].to_list() == [None, 0.0, 1.0]


def test_the_defaults_are_impute_and_normalise() -> None:
    extractor = FeatureExtractor(FeatureExtractionConfig())
    done = extractor.normalize_features(extractor.handle_missing_values(FRAME))
    assert done["x"].to_list() == [0.0, 0.5, 1.0]


def test_an_unknown_mode_is_an_error_that_lists_the_modes() -> None:
    with pytest.raises(MaestroError, match="impute") as caught:
        fill(FRAME, "imputed")
    assert all(how in str(caught.value) for how in MODES)


def test_the_input_frame_is_left_as_it_was() -> None:
    frame = FRAME.clone()
    for how in MODES:
        fill(frame, how)
    scale(frame)
    assert_frame_equal(frame, FRAME)

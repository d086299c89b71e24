"""Texts, distinct values, types, and profiles as a whole: against plain counting."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine import Profile, profile_of
from engine.errors import DataError
from engine.profile import Profiler, categories, distinct, together
from engine.profile.categories import Categories
from engine.profile.column import ColumnProfile
from engine.profile.distinct import ERROR, Distinct

TEXTS = st.lists(st.lists(st.sampled_from("aaaaaaaabbbbccdefghijklmnopqrstuvwxyz"), max_size=80), max_size=5)


def texts(chunks: list[list[str]]) -> Categories:
    found = Categories()
    for chunk in chunks:
        values = pl.Series(chunk, dtype=pl.String)
        if found.exact:
            found.count(values)
        else:
            found.sift(values, values.hash().to_numpy())
    return found


@given(TEXTS, st.booleans())
def test_texts_are_counted_low_by_what_is_missed_at_most(chunks: list[list[str]], merge: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(categories, "KEPT", 4)
        patch.setattr(categories, "_BUCKETS", 8)
        found = reduce(Categories.merged, (texts([c]) for c in chunks), Categories()) if merge else texts(chunks)
    true = Counter(text for chunk in chunks for text in chunk)
    if found.exact:
        assert found.counts == true
        assert found.missed == 0
    assert len(found.counts) <= 4
    for text, count in true.items():
        kept = found.counts.get(text, 0)
        assert kept <= count <= kept + found.missed
    again = Categories.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.top(9) == found.top(9)


@pytest.mark.parametrize("count", [1, 10, 1_000, 20_000, 300_000])
def test_distinct_values_are_estimated_within_four_standard_errors(count: int) -> None:
    hashes = pl.int_range(count, eager=True).hash().to_numpy()
    found = Distinct()
    for part in np.array_split(np.concatenate([hashes, hashes]), 7):
        found.add(part)
    assert abs(found.estimate() - count) <= max(1, 4 * ERROR * count)
    halves = [Distinct(), Distinct()]
    halves[0].add(hashes[: count // 2])
    halves[1].add(hashes[count // 3 :])
    assert halves[0].merged(halves[1]).ranks.tolist() == found.ranks.tolist()


def test_hashes_of_another_version_of_polars_are_not_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = Distinct(), Distinct()
    here.add(pl.int_range(1_000, eager=True).hash().to_numpy())
    monkeypatch.setattr(there, "way", "0-0-0")
    found = here.merged(there)
    assert not found.known
    assert found.estimate() == here.estimate()
    assert distinct.hashing() == here.way


MOMENT = datetime(2025, 10, 4, 12, 30, tzinfo=UTC)
COLUMNS: dict[str, tuple[list[Any], pl.DataType | None, dict[str, Any]]] = {
    "float": ([1.0, float("nan"), None, -0.0, 0.0], None, {"kind": "number", "count": 3, "nulls": 2, "distinct": 2, "min": 0.0, "max": 1.0}),
    "whole": ([3, None, 2**40], None, {"kind": "whole", "count": 2, "min": 3, "max": 2**40, "mean": (3 + 2**40) / 2}),
    "unsigned": ([2**64 - 1, 5], pl.UInt64(), {"kind": "whole", "distinct": 2, "min": 5}),
    "bool": ([True, None, True, False], None, {"kind": "bool", "distinct": 2, "top": [{"value": "true", "count": 2}, {"value": "false", "count": 1}]}),
    "text": (["b", "a", "b", None], None, {"kind": "text", "count": 3, "distinct": 2, "top": [{"value": "b", "count": 2}, {"value": "a", "count": 1}]}),
    "category": (["x", "y"], pl.Categorical(), {"kind": "text", "distinct": 2}),
    "date": ([date(2025, 1, 1), date(2025, 1, 3)], None, {"kind": "date", "min": "2025-01-01", "max": "2025-01-03", "mean": "2025-01-02"}),
    "moment": ([MOMENT, MOMENT + timedelta(hours=2)], pl.Datetime("ms", "UTC"), {"kind": "moment", "min": "2025-10-04T12:30:00Z", "mean": "2025-10-04T13:30:00Z"}),
    "naive": ([MOMENT.replace(tzinfo=None)], pl.Datetime("ns"), {"min": "2025-10-04T12:30:00", "std": None}),
    "duration": ([timedelta(seconds=90), timedelta(seconds=30)], None, {"kind": "duration", "min": 30.0, "mean": 60.0}),
    "time": ([time(1, 2, 3)], None, {"kind": "time", "min": "1:02:03"}),
    "decimal": ([Decimal("1.5"), Decimal("2.5")], None, {"kind": "number", "mean": 2.0}),
    "list": ([[1], None], None, {"kind": "other", "count": 1, "nulls": 1, "distinct": None}),
    "null": ([None, None], pl.Null(), {"kind": "other", "count": 0, "nulls": 2, "null_fraction": 1.0}),
    "empty": ([], pl.Float64(), {"count": 0, "nulls": 0, "null_fraction": None, "min": None, "mean": None, "histogram": {"edges": [], "counts": []}}),
    "infinite": ([1.0, float("inf")], None, {"max": "inf", "mean": "inf", "std": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_values_of_every_type(name: str) -> None:
    values, dtype, expected = COLUMNS[name]
    profile = profile_of(pl.DataFrame({name: pl.Series(values, dtype=dtype)}))
    told = profile[name].summary()
    assert {key: told[key] for key in expected} == expected
    again = Profile.from_dict(json.loads(json.dumps(profile.to_dict(), allow_nan=False)))
    assert again.to_dict() == profile.to_dict()
    twice = profile.merged(again)[name].summary()
    assert (twice["count"], twice["nulls"]) == (2 * told["count"], 2 * told["nulls"])
    assert (twice["distinct"], twice.get("min")) == (told["distinct"], told.get("min"))


def test_whole_numbers_beyond_floats_are_told_apart_by_the_count_of_distinct_ones() -> None:
    frame = pl.DataFrame({"id": pl.int_range(2**60, 2**60 + 5_000, eager=True)})
    found = profile_of(frame)["id"]
    assert found.distinct_error == ERROR
    assert abs((found.distinct or 0) - 5_000) < 4 * ERROR * 5_000
    assert profile_of(frame, exact=True)["id"].distinct == 5_000


@pytest.mark.parametrize(
    "dtype", [pl.Float64, pl.Int32, pl.String, pl.Datetime("us"), pl.Decimal(20, 3), pl.Categorical]
)
def test_exact_counts_of_distinct_values(dtype: Any) -> None:
    numbers = pl.Series("v", [*range(3_000), *range(500), None])
    frame = pl.DataFrame({"v": numbers.cast(pl.String).cast(dtype) if dtype == pl.Categorical else numbers.cast(dtype)})
    estimated, exact = profile_of(frame)["v"], profile_of(frame, exact=True)["v"]
    assert (estimated.distinct_error, exact.distinct_error) == (ERROR, 0.0)
    assert exact.distinct == 3_000


def days(count: int) -> list[pl.DataFrame]:
    random = np.random.default_rng(3)
    frames = []
    for day in range(count):
        n = 3_000 + day
        frame = {
            "x": random.normal(day, 1, n),
            "id": [f"u{i % 1_700}" for i in range(n)],
            "kind": ["a", "b", None] * (n // 3) + [None] * (n % 3),
        }
        frames.append(pl.DataFrame(frame))
    return frames


def test_profiles_of_days_add_up_to_that_of_all_rows() -> None:
    parts = days(4)
    whole, merged = profile_of(pl.concat(parts)), together(map(profile_of, parts))
    assert (merged.rows, list(merged.columns)) == (whole.rows, list(whole.columns))
    for name in ("x", "id", "kind"):
        one, other = whole[name].summary(), merged[name].summary()
        for key in ("count", "nulls", "distinct", "min", "max"):
            assert one.get(key) == other.get(key), (name, key)
    assert merged["x"].summary()["mean"] == pytest.approx(whole["x"].summary()["mean"], rel=1e-12)
    assert merged["kind"].summary()["top"] == whole["kind"].summary()["top"]


def test_a_column_that_some_days_lack_is_null_there() -> None:
    a, b = pl.DataFrame({"x": [1.0, 2.0]}), pl.DataFrame({"x": [3], "y": ["new"]})
    found = profile_of(a).merged(profile_of(b))
    assert (found["x"].kind, found["x"].distinct, found["x"].count) == ("number", 3, 3)
    assert (found["y"].count, found["y"].nulls) == (1, 2)
    odd = profile_of(a).merged(profile_of(pl.DataFrame({"x": ["text"]})))
    assert (odd["x"].kind, odd["x"].count, odd["x"].distinct) == ("other", 3, None)


def test_nothing_is_kept_by_which_a_tagged_value_could_be_known() -> None:
    secret = {
        "salary": [91234.5, 87654.25],
        "email": ["ann@example.com", "bob@example.com"],
        "born": [date(1961, 2, 3)] * 2,
    }
    profile = profile_of(pl.DataFrame(secret | {"open": ["yes", "no"]}), pii=secret)
    text = json.dumps(profile.to_dict())
    for value in ("91234", "87654", "example.com", "1961-02-03"):
        assert value not in text
    assert "yes" in text
    for name in secret:
        told = profile[name].summary()
        assert (told["count"], told["nulls"], told["pii"]) == (2, 0, True)
        assert not {"min", "max", "mean", "top", "quantiles", "histogram"} & set(told)
        assert (profile[name].numbers, profile[name].categories) == (None, None)
    assert profile["email"].distinct == Profile.from_dict(profile.to_dict())["email"].distinct == 2
    assert profile.merged(profile)["email"].pii


def test_a_profile_as_a_table() -> None:
    found = profile_of(pl.DataFrame({"x": [1.0, 2.0, None], "k": ["a", "a", "b"]})).to_frame()
    expected = pl.DataFrame(
        {"name": ["x", "k"], "count": [2, 3], "nulls": [1, 0], "distinct": [2, 2], "median": ["1.5", None]}
    )
    assert_frame_equal(found.select(expected.columns), expected)


@pytest.mark.parametrize(
    "wrong", [{}, {"version": 99, "rows": 1, "columns": []}, {"version": 1, "rows": 1, "columns": [{}]}]
)
def test_what_is_no_profile_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        Profile.from_dict(wrong)
    assert caught.value.code == "profile.unreadable"


def test_anything_that_is_a_table_has_a_profile(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0]})
    frame.write_parquet(tmp_path / "a.parquet")
    kinds = [
        frame,
        frame.lazy(),
        frame.to_arrow(),
        frame.to_arrow().to_reader(),
        frame.to_pandas(),
        tmp_path / "a.parquet",
    ]
    assert {json.dumps(profile_of(kind).summary()) for kind in kinds} == {json.dumps(profile_of(frame).summary())}


def test_batches_of_any_size_count_the_same() -> None:
    frame = days(1)[0]
    whole = profile_of(frame)
    parts = Profiler(frame.schema)
    for start in range(0, frame.height, 100):
        parts.add(frame[start : start + 100])
    found = parts.profile()
    for name in frame.columns:
        one, other = whole[name], found[name]
        assert (one.count, one.nulls, one.distinct) == (other.count, other.nulls, other.distinct)
    assert isinstance(whole["x"], ColumnProfile)

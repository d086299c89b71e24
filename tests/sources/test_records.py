"""JSON records to frames: exact, or an error that names the column."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SourceError
from engine.sources import records


def frame(found: list[dict[str, Any]]) -> pl.DataFrame:
    return records.frame(found, where="sources.s", origin="page 1")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, None, -(2**63)], pl.Int64),
        ([2**64 - 1, 0, None], pl.UInt64),
        ([1, 0.5, 2**53], pl.Float64),
        ([2**53 + 2, 0.5, -(2**70)], pl.Float64),
        ([[{"x": 2**53 + 2}, {"x": 0.5}], None], pl.List(pl.Struct({"x": pl.Float64}))),
        ([True, None, False], pl.Boolean),
        (["a", "", None], pl.String),
        ([None, None], pl.Null),
        ([[1], [], None, [None]], pl.List(pl.Int64)),
        ([[{"x": 1}], None], pl.List(pl.Struct({"x": pl.Int64}))),
    ],
)
def test_each_kind(values: list[Any], dtype: Any) -> None:
    made = frame([{"c": v} for v in values])
    assert made.schema == {"c": dtype}
    assert made["c"].to_list() == values


def test_absent_keys_are_null_and_objects_hold_the_fields_of_all() -> None:
    made = frame([{"a": 1}, {"b": {"x": 1}}, {"b": {"y": "s"}}])
    assert made.rows() == [(1, None), (None, {"x": 1, "y": None}), (None, {"x": None, "y": "s"})]


def test_objects_without_fields_are_null() -> None:
    made = frame([{"a": {}, "b": [{}], "c": {"x": {}, "y": 1}}, {"a": None, "c": {}}])
    assert made.schema == {"a": pl.Null, "b": pl.Null, "c": pl.Struct({"y": pl.Int64})}
    assert made.rows() == [(None, None, {"y": 1}), (None, None, {"y": None})]


def test_records_that_have_no_field_keep_their_number() -> None:
    assert frame([{}, {}]).shape == (2, 0)
    assert frame([{}, {"a": 1}]).rows() == [(None,), (1,)]


def test_a_byte_order_mark_does_not_count() -> None:
    assert records.parse(b'\xef\xbb\xbf{"a": "\xef\xbb\xbf"}') == {"a": "\ufeff"}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([2**53 + 1, 0.5], "column 'c' mixes fractions with integers beyond"),
        ([2**64], "column 'c' holds an integer beyond 64 bits"),
        ([-1, 2**63], "column 'c' holds an integer beyond 64 bits"),
        ([1, "x"], "column 'c' mixes numbers and texts"),
        ([["a"], "a,b"], "column 'c' mixes lists and texts"),
        ([True, 1], "column 'c' mixes numbers and true/false"),
        ([[1], ["x"]], r"column 'c\[\]' mixes numbers and texts"),
        ([{"x": 1}, {"x": []}], r"column 'c\.x' mixes lists and numbers"),
    ],
)
def test_what_has_no_exact_type(values: list[Any], text: str) -> None:
    with pytest.raises(SourceError, match=text) as caught:
        frame([{"c": v} for v in values])
    assert caught.value.where == "sources.s"
    assert "page 1" in caught.value.message


leaves = [st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text()]
kinds = st.sampled_from(leaves + [st.lists(st.none() | leaf, max_size=3) for leaf in leaves])


@given(st.data())
@settings(deadline=None)
def test_any_columns_come_back(data: st.DataObject) -> None:
    of = {name: data.draw(kinds) for name in ("a", "b")}
    found = [{n: data.draw(st.none() | kind) for n, kind in of.items()} for _ in range(data.draw(st.integers(1, 6)))]
    assert frame(found).to_dicts() == found

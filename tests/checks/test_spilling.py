"""Uniqueness and frequencies stay exact when hashes collide, and when nothing fits into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.checks import Result, Suite, frequencies, groups, keys, suite, table
from engine.spec import ValidationSpec

from . import oracle
from .test_rows import KINDS, frames

REAL_HASH = keys.hash_of


def colliding(columns: list[str]) -> pl.Expr:
    """All hashes equal."""
    return (REAL_HASH(columns) * 0).alias("hash")


def crowded(columns: list[str]) -> pl.Expr:
    """Three hashes, in different parts."""
    return ((REAL_HASH(columns) % 3) * 2**62).alias("hash")


@contextmanager
def forced(
    hashes: Any = REAL_HASH, spill: bool = False, worth: float = 2, at_once: int = 500_000, size: int = 3
) -> Iterator[None]:
    """Uniqueness on one of its ways.

    Args:
        hashes: what a key's hash is.
        spill: whether each batch of hashes goes to disk.
        worth: up to which share of repeated hashes rows are filtered by them.
        at_once: how many rows are grouped in memory, the others by DuckDB.
        size: rows per batch.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "hash_of", hashes)
        patch.setattr(table, "hash_of", hashes)
        patch.setattr(keys, "_WORTH_FILTERING", worth)
        patch.setattr(groups, "_AT_ONCE", at_once)
        patch.setattr("engine.frames.BATCH_ROWS", size)
        if spill:
            patch.setattr(suite, "_bytes", lambda _: 0)
        yield


WAYS: dict[str, dict[str, Any]] = {
    "all hashes collide": {"hashes": colliding},
    "few hashes": {"hashes": crowded},
    "few hashes, spilled": {"hashes": crowded, "spill": True},
    "spilled": {"spill": True, "size": 1},
    "spilled, many repeats": {"spill": True, "worth": 0.02},
    "no filter": {"worth": -1},
    "DuckDB": {"worth": -1, "at_once": 0},
    "DuckDB and a filter": {"at_once": 0, "size": 2},
    "DuckDB, collisions, spilled": {"hashes": colliding, "spill": True, "at_once": 0, "size": 7},
}


def unique(frame: pl.DataFrame, key: list[str], spill: Path | None = None, **config: Any) -> Result:
    result = Suite(ValidationSpec(unique_columns=[key], **config), spill=spill).validate(frame).results[0]
    assert "cannot_run" not in result.details, result.message
    return result


def assert_unique(result: Result, rows: oracle.Rows, key: list[str], judged: list[bool] | None = None) -> None:
    about = [r for i, r in enumerate(rows) if judged is None or judged[i]]
    expected = oracle.uniqueness(about, tuple(key))
    assert (result.passed, result.failed_records) == (expected.pop("passed"), expected.pop("failed_records"))
    assert {name: result.details[name] for name in expected} == expected
    values = [tuple(oracle.identity(oracle.known(r[c])) for c in key) for r in rows]
    places: dict[Any, list[int]] = {}
    for i, value in enumerate(values):
        if (judged is None or judged[i]) and None not in value:
            places.setdefault(value, []).append(i)
    repeated = sorted(p for p in places.values() if len(p) > 1)[:5]
    found = [(s["first_row"], s["last_row"], s["rows"]) for s in result.details["sample"]]
    assert found == [(p[0], p[-1], len(p)) for p in repeated]
    assert [row["row"] for row in result.sample] == [p[-1] for p in repeated]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_uniqueness(way: str, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=2))
    frame = data.draw(frames(**{f"a{i}": kind for i, kind in enumerate(kinds)}))
    with forced(**WAYS[way]):
        assert_unique(unique(frame, frame.columns), frame.to_dicts(), frame.columns)


@pytest.mark.parametrize("way", WAYS)
def test_nearly_all_rows_repeat_another(way: str, tmp_path: Path) -> None:
    values = [7] * 40 + [None, 1, 2, 7, 3, 1]
    frame = pl.DataFrame({"a": values, "b": ["x"] * len(values)})
    with forced(**WAYS[way]):
        for key in (["a"], ["a", "b"], ["b", "a"]):
            assert_unique(unique(frame, key, tmp_path), frame.to_dicts(), key)
    assert not list(tmp_path.rglob("*.arrow"))  # what was spilled is given back


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_left_or_are_not_judged_repeat_nothing(way: str) -> None:
    frame = pl.DataFrame({"a": [1, 1, 2, 2, 3, 3, 3, 4, 4], "b": [0, 1, 1, 1, 1, 1, 1, 5, 1], "c": list("xyxyxyxyx")})
    rows = frame.to_dicts()
    with forced(**WAYS[way]):
        where = unique(frame, ["a"], where={"uniqueness": "c = 'x'"})
        assert_unique(where, rows, ["a"], [r["c"] == "x" for r in rows])
        spec = ValidationSpec(
            unique_columns=["a"],
            range_constraints={"b": (1, 4)},
            on_violation={"range": "drop"},
            where={"uniqueness": "c = 'x' OR a = 3"},
            max_failed={"uniqueness": "50%"},
        )
        result = Suite(spec).validate(frame).results[0]
    stays = [r["b"] == 1 for r in rows]
    judged = [s and (r["c"] == "x" or r["a"] == 3) for s, r in zip(stays, rows, strict=True)]
    assert (result.details["rows_judged"], result.failed_records) == (sum(judged), 2)
    assert result.passed
    assert [s["first_row"] for s in result.details["sample"]] == [4]


def test_many_keys_share_the_budget(tmp_path: Path) -> None:
    frame = pl.DataFrame({f"c{i}": [(j * (i + 1)) % 97 for j in range(300)] for i in range(20)})
    spec = ValidationSpec(unique_columns=[*frame.columns, ["c0", "c1"]])
    with forced(spill=True, size=50):
        found = Suite(spec, spill=tmp_path).validate(frame).results
    for result, key in zip(found, [*([c] for c in frame.columns), ["c0", "c1"]], strict=False):
        assert_unique(result, frame.to_dicts(), key)
    assert not list(tmp_path.rglob("*.arrow"))


VALUES: dict[str, pl.Series] = {
    "text": pl.Series([f"v{i % 31}" for i in range(100)]),
    "category": pl.Series([f"v{i % 31}" for i in range(100)], dtype=pl.Categorical),
    "int": pl.Series([i % 31 - 9 for i in range(100)], dtype=pl.Int8),
    "huge": pl.Series([2**64 - 1 - i % 31 for i in range(100)], dtype=pl.UInt64),
    "float": pl.Series([(i % 31) / 3 - 2 for i in range(90)] + [float("inf"), float("-inf"), float("nan"), -0.0] * 3),
    "date": pl.Series([date(1969, 12, 20) + timedelta(i % 31) for i in range(100)]),
    "moment": pl.Series([i % 31 - 9 for i in range(100)]).cast(pl.Datetime("us", "Europe/Berlin")),
    "time": pl.Series([time(i % 24, 0, 0, i % 2) for i in range(100)]),
    "span": pl.Series([timedelta(i % 31 - 9, microseconds=1) for i in range(100)]),
    "decimal": pl.Series([Decimal(i % 31) / 100 for i in range(100)], dtype=pl.Decimal(38, 2)),
    "bool": pl.Series([i % 3 == 0 for i in range(100)]),
    "bytes": pl.Series([bytes([i % 31]) for i in range(100)]),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("held", [1, 5, 200_000])
def test_frequencies_that_spill(kind: str, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequencies, "_HELD", held)
    monkeypatch.setattr("engine.frames.BATCH_ROWS", 7)
    frame = pl.DataFrame({"a": VALUES[kind]})
    spec = ValidationSpec(categorical_constraints={"a": ["none of them"]})
    result = Suite(spec).validate(frame).results[0]
    values = [v for r in frame.to_dicts() if (v := oracle.known(r["a"])) is not None]
    expected = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:20]
    assert [(item["value"], item["count"]) for item in result.details["invalid_values"]] == expected
    assert result.failed_records == len(values)


def test_frequencies_of_several_columns_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequencies, "_HELD", 1)
    monkeypatch.setattr("engine.frames.BATCH_ROWS", 2)
    frame = pl.DataFrame({"a": ["x", "y", "x", "z"], "b": [1, 2, 3, 3]})
    spec = ValidationSpec(categorical_constraints={"a": ["x"], "b": [1]}, unique_columns=["b"])
    unique_, a, b, _ = Suite(spec).validate(frame).results
    assert a.details["invalid_values"] == [{"value": "y", "count": 1}, {"value": "z", "count": 1}]
    assert b.details["invalid_values"] == [{"value": 3, "count": 2}, {"value": 2, "count": 1}]
    assert unique_.failed_records == 1


@pytest.mark.parametrize("held", [1, 200_000])
@pytest.mark.parametrize("dtype", [pl.List(pl.Int64), pl.Struct({"k": pl.Int64})], ids=str)
def test_ties_of_nested_values_have_one_order(dtype: Any, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which twenty of thirty are shown is no matter of chance."""
    monkeypatch.setattr(frequencies, "_HELD", held)
    values: list[Any] = [[i] if dtype == pl.List else {"k": i} for i in range(30)]
    frame = pl.DataFrame({"a": pl.Series(values, dtype=dtype)})
    spec = ValidationSpec(categorical_constraints={"a": [1]})
    found = []
    for size in (1, 3, 7, 200_000):
        monkeypatch.setattr("engine.frames.BATCH_ROWS", size)
        found.append([v["value"] for v in Suite(spec).validate(frame).results[0].details["invalid_values"]])
    assert found == [values[:20]] * 4

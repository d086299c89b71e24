"""Exact drift equals SciPy on the same samples: ties, nulls, constants, infinities, tiny and large, in memory or not."""

from __future__ import annotations

import math
import random as randoms
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, kstwo

from engine import drift_of
from engine.drift import rows
from engine.drift.chance import chi_square, kolmogorov
from engine.drift.column import ColumnDrift
from engine.errors import DataError, SinkError
from tests.drift import oracle

VALUES = st.one_of(
    st.floats(-1e9, 1e9),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.0, 3.5, -7.0]),
    st.integers(-3, 3).map(float),
    st.floats(1e-300, 1e-290),
)
SAMPLES = st.lists(VALUES, min_size=1, max_size=80)
ENDLESS = st.lists(st.one_of(VALUES, st.sampled_from([math.inf, -math.inf])), min_size=1, max_size=40)


def column(a: Sequence[Any], b: Sequence[Any], **how: Any) -> ColumnDrift:
    frames = [pl.DataFrame({"x": pl.Series(values, strict=False)}) for values in (a, b)]
    return drift_of(*frames, columns=["x"], **how).columns["x"]


def same(found: ColumnDrift, expected: dict[str, float]) -> None:
    assert found.by == "rows"
    for name, value in expected.items():
        if not math.isnan(value):
            assert found.statistics[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert not any(found.errors.values())


@settings(max_examples=60)
@given(SAMPLES, SAMPLES)
def test_numbers_equal_scipy(a: list[float], b: list[float]) -> None:
    same(column(a, b), oracle.numbers(a, b))


@settings(max_examples=40)
@given(ENDLESS, ENDLESS)
def test_infinities_are_the_least_and_the_greatest(a: list[float], b: list[float]) -> None:
    found = column(a, b)
    assert found.statistics["ks"] == pytest.approx(oracle.d(a, b), rel=1e-9)
    shares = [[sum(v == end for v in s) / len(s) for end in (math.inf, -math.inf)] for s in (a, b)]
    finite = [[v for v in s if math.isfinite(v)] for s in (a, b)]
    if shares[0] != shares[1]:
        assert found.statistics["wasserstein"] == math.inf
    elif not any(shares[0]):
        assert found.statistics["wasserstein"] == pytest.approx(oracle.numbers(*finite)["wasserstein"], rel=1e-9)
    assert sum(share for _, share, _ in found.bins) == pytest.approx(1)


@settings(max_examples=30)
@given(SAMPLES, SAMPLES, st.integers(2, 20))
def test_any_number_of_bins(a: list[float], b: list[float], bins: int) -> None:
    expected = oracle.numbers(a, b, bins)
    found = column(a, b, bins=bins)
    assert found.statistics["psi"] == pytest.approx(expected["psi"], rel=1e-9, abs=1e-12)


CATEGORIES = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "", "é"]), min_size=1, max_size=60)


@settings(max_examples=40)
@given(CATEGORIES, CATEGORIES)
def test_categories_equal_scipy(a: list[str], b: list[str]) -> None:
    same(column(a, b), oracle.categories(a, b))


def test_many_categories_are_counted_on_disk() -> None:
    random = randoms.Random(4)
    a, b = ([f"u{random.randrange(n)}" for _ in range(4_000)] for n in (1_500, 1_700))
    found = column(a, b)
    same(found, oracle.categories(a, b))
    assert len(found.new) == 20
    assert sum(share for _, share, _ in found.bins) == pytest.approx(1)
    unasked = drift_of(pl.DataFrame({"x": a}), pl.DataFrame({"x": b})).columns["x"]
    assert (unasked.statistics.get("js"), "more than 1,000" in str(unasked.note)) == (None, True)


def test_nulls_and_nan_are_left_out() -> None:
    a: list[Any] = [1.0, None, 2.0, float("nan"), 5.0]
    b: list[Any] = [None, 2.0, 2.5, 9.0]
    found = column(a, b)
    same(found, oracle.numbers([1.0, 2.0, 5.0], [2.0, 2.5, 9.0]))
    assert (found.baseline, found.current) == (3, 3)
    assert found.statistics["null_change"] == pytest.approx(1 / 4 - 2 / 5)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 100_000), (3, 5_000), (100_000, 70_000)])
@pytest.mark.parametrize("kind", ["normal", "ties", "constant", "large"])
def test_tiny_and_large_samples(n: int, m: int, kind: str) -> None:
    random = np.random.default_rng(n + m)
    a, b = random.normal(size=n), random.normal(0.03, 1.1, size=m)
    if kind == "ties":
        a, b = np.round(a), np.round(b)
    elif kind == "constant":
        a, b = np.full(n, 0.1), np.full(m, 0.1)
    elif kind == "large":
        a, b = a * 1e150, b * 1e150
    same(column(a, b), oracle.numbers(a.tolist(), b.tolist()))


TYPES = [pl.Int8, pl.UInt64, pl.Float32, pl.Decimal(12, 2), pl.Datetime("ms"), pl.Date, pl.Duration("us"), pl.Time]


@pytest.mark.parametrize("dtype", TYPES)
def test_values_of_other_types_are_compared_as_numbers(dtype: Any) -> None:
    a, b = [1, 5, 5, 9, 100], [2, 5, 7, 120, 120]
    frames = [pl.DataFrame({"x": pl.Series(values).cast(dtype)}) for values in (a, b)]
    found = drift_of(*frames, columns=["x"]).columns["x"]
    expected = oracle.numbers([float(v) for v in a], [float(v) for v in b])
    scale = 1_000 if dtype == pl.Datetime("ms") else 1
    same(found, expected | {"wasserstein": expected["wasserstein"] * scale})


@settings(max_examples=40)
@example([math.inf, -math.inf], [0.0], 1)
@example([0, 1, 2, *[7] * 4, 11, 12, 13], [*np.linspace(0, 2, 30), *[7] * 40, *np.linspace(11, 13, 30)], 4)
@given(ENDLESS, ENDLESS, st.integers(1, 7))
def test_what_does_not_fit_into_memory_gives_the_same(a: list[float], b: list[float], at_once: int) -> None:
    whole = column(a, b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_NEEDED", 2**40)
        patch.setattr(rows, "_FEWEST", at_once)
        patch.setattr("engine.profile.numbers.CELLS", 8)
        patch.setattr("engine.profile.numbers._AIM", 4)
        parts = column(a, b)
    for name, value in whole.statistics.items():
        assert parts.statistics[name] == (value if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)), name
    assert parts.bins == whole.bins


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows, "_NEEDED", 2**40)
    monkeypatch.setattr("engine.profile.numbers.CELLS", 8)
    monkeypatch.setattr(rows, "_split", full)
    with pytest.raises(SinkError, match="No space left") as caught:
        column(list(np.random.default_rng(1).normal(size=100)), [1.0, 2.0])
    assert caught.value.code == "drift.spill"


def test_p_values_equal_scipy() -> None:
    random = np.random.default_rng(2)
    for n in (1, 2, 7, 50, 139, 140, 141, 300, 5_000, 99_999, 100_001, 20_000_000):
        for d in [*np.sqrt(random.uniform(0, 12, 4) / n), 0.3 / n, 0.8 / n, 1.2 / n, 1 - 0.5 / n, 0.49, 0.5]:
            if 0 < d < 1:
                expected = float(kstwo.sf(d, n))
                assert kolmogorov(n, float(d)) == pytest.approx(expected, rel=1e-9, abs=1e-13), (n, d)
    for freedom in (1, 2, 9, 60, 3_000):
        for x in random.uniform(0, 3 * freedom + 20, 20):
            assert chi_square(float(x), freedom) == pytest.approx(float(chi2.sf(x, freedom)), rel=1e-9, abs=1e-300)


def test_columns_that_cannot_be_compared() -> None:
    a = pl.DataFrame({"x": [1.0, 2.0], "none": [None, None], "list": [[1], [2]], "mixed": ["a", "b"], "old": [1, 2]})
    b = pl.DataFrame({"x": [1.0, 2.0], "none": [1.0, 2.0], "list": [[1], [2]], "mixed": [1, 2], "young": [1, 2]})
    found = drift_of(a, b)
    assert (list(found.columns), list(found.added), list(found.removed)) == (["x", "mixed"], ["young"], ["old"])
    named = drift_of(a, b, columns=["none", "list", "mixed"]).columns
    assert {name: drift.statistics.get("ks") for name, drift in named.items()} == dict.fromkeys(named)
    assert "String" in str(named["mixed"].note)
    with pytest.raises(DataError, match="the data has no column 'old'"):
        drift_of(a, b, columns=["old"])
    empty = drift_of(a.select("x"), b.select("x").clear())
    assert (empty.row_change, empty.columns["x"].note, empty.drifted) == (
        -1.0,
        "one side has no value: only nulls are compared",
        {},
    )

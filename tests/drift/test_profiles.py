"""Drift from profiles: exact for its bins, and no further off than it says; and verdicts that do not hang on sizes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Profile, drift_of, profile_of
from engine.drift.column import ColumnDrift
from engine.profile import numbers, together
from engine.spec import DriftThresholds
from tests.drift import oracle

ROOT = Path(__file__).parents[2]
VALUES = st.one_of(
    st.floats(-1e6, 1e6), st.floats(-2, 2), st.sampled_from([0.0, 1.0, 2.5]), st.integers(-20, 20).map(float)
)
SAMPLES = st.lists(VALUES, min_size=1, max_size=120)


@pytest.fixture
def few_cells() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "CELLS", 12)
        patch.setattr(numbers, "_AIM", 8)
        yield


def profile(values: Sequence[Any]) -> Profile:
    return profile_of(pl.DataFrame({"x": pl.Series(values, strict=False)}))


def compared(a: Profile, b: Profile) -> ColumnDrift:
    return drift_of(a, b, columns=["x"]).columns["x"]


def bounded(found: ColumnDrift, a: list[float], b: list[float]) -> None:
    """Asserts that nothing is further off than is said, and that bins count exactly."""
    expected = oracle.numbers(a, b)
    assert found.by == "profile"
    for name in ("ks", "wasserstein"):
        off = abs((found.statistics[name] or 0.0) - expected[name])
        assert off <= found.errors[name] + 1e-9 * max(1.0, expected[name]), name
    p, q = (np.array(side) for side in zip(*((b, c) for _, b, c in found.bins), strict=True))
    assert p.sum() == pytest.approx(1)
    assert q.sum() == pytest.approx(1)
    assert (np.abs(p * len(a) - np.round(p * len(a))) < 1e-6).all()
    assert found.statistics["psi"] == pytest.approx(oracle.psi(p, q), rel=1e-9, abs=1e-12)
    assert found.statistics["js"] == pytest.approx(oracle.js(p, q), rel=1e-9, abs=1e-7)


@pytest.mark.usefixtures("few_cells")
@settings(max_examples=120)
@given(SAMPLES, SAMPLES, st.integers(0, 119))
def test_errors_hold(a: list[float], b: list[float], cut: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "CELLS", 12)
        patch.setattr(numbers, "_AIM", 8)
        baseline = together(profile(part) for part in (a[:cut], a[cut:]) if part)
        bounded(compared(baseline, profile(b)), a, b)


@settings(max_examples=60)
@given(SAMPLES, SAMPLES)
def test_of_few_values_all_is_exact(a: list[float], b: list[float]) -> None:
    found = compared(profile(a), profile(b))
    for name, value in oracle.numbers(a, b).items():
        if not math.isnan(value):
            assert found.statistics[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert found.errors["ks"] == 0.0
    assert found.errors["wasserstein"] <= 1e-9 * max(1.0, found.statistics["wasserstein"] or 0.0)


@pytest.mark.parametrize("name", ["normal", "lognormal", "halves", "moments"])
def test_errors_are_small_for_usual_distributions(name: str) -> None:
    random = np.random.default_rng(11)
    draw = {
        "normal": lambda n, by: random.normal(by, 1, n),
        "lognormal": lambda n, by: np.exp(random.normal(by, 1, n)),
        "halves": lambda n, by: np.where(random.uniform(size=n) < 0.5, 0.0, random.normal(by, 1, n)),
        "moments": lambda n, by: 1.7e15 + 1e9 * random.normal(by, 1, n),
    }[name]
    a, b = draw(20_000, 0.0), draw(50_000, 0.1)
    found = compared(profile(a), profile(b))
    bounded(found, a.tolist(), b.tolist())
    assert found.errors["ks"] < 0.005
    assert found.errors["wasserstein_sigma"] < 0.02
    exact = oracle.numbers(a.tolist(), b.tolist())
    assert found.statistics["psi"] == pytest.approx(exact["psi"], rel=0.1)


SIZES = (150, 1_000, 20_000, 200_000)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("shift", "wide", "verdict"), [(0.0, 1.0, False), (0.02, 1.0, False), (0.4, 1.0, True), (0.0, 2.5, True)]
)
def test_the_verdict_on_two_distributions_does_not_hang_on_the_sizes(
    shift: float, wide: float, verdict: bool, exact: bool
) -> None:
    random = np.random.default_rng(8)
    for n in SIZES:
        for m in (n, n // 3):
            a, b = random.normal(size=n), random.normal(shift, wide, size=m)
            found = drift_of(pl.DataFrame({"x": a}), pl.DataFrame({"x": b}), exact=exact)
            assert bool(found.drifted) is verdict, (n, m, found.columns["x"].effects)


@pytest.mark.parametrize("kinds", [3, 40, 400])
def test_the_verdict_on_categories_does_not_hang_on_the_sizes(kinds: int) -> None:
    random = np.random.default_rng(9)
    for n in SIZES:
        a, b = (random.integers(0, kinds, size).astype(str) for size in (n, n // 2))
        other = random.integers(kinds // 2, kinds + kinds // 2, n).astype(str)
        same, moved = (drift_of(pl.DataFrame({"x": a}), pl.DataFrame({"x": x})) for x in (b, other))
        assert (bool(same.drifted), bool(moved.drifted)) == (False, n // 2 >= 8 * kinds), n


def test_a_single_odd_value_is_no_drift() -> None:
    random = np.random.default_rng(10)
    a, b = random.normal(size=10_000), random.normal(size=10_000)
    b[17] = 50_000
    for exact in (True, False):
        found = drift_of(pl.DataFrame({"x": a}), pl.DataFrame({"x": b}), exact=exact)
        assert (found.columns["x"].statistics["wasserstein_sigma"] or 0) > 1
        assert found.drifted == {}


def test_thresholds_decide() -> None:
    random = np.random.default_rng(12)
    a, b = (pl.DataFrame({"x": random.normal(shift, 1, 5_000)}) for shift in (0.0, 0.2))
    assert drift_of(a, b).drifted == {"x": ["wasserstein"]}
    assert drift_of(a, b, thresholds={"wasserstein": None}).drifted == {}
    assert drift_of(a, b, thresholds={"wasserstein": 0.3, "mean": 0.1}).drifted == {"x": ["mean"]}
    few = drift_of(a, b.head(1_000), thresholds={"wasserstein": None, "js": None, "ks": None, "rows": 0.5})
    assert (few.drifted, few.has_drifted, few.row_change) == ({}, True, -0.8)
    assert DriftThresholds().psi == 0.2


def test_five_columns_that_turned_null() -> None:
    folder = ROOT / "tests" / "fixtures" / "taxi"
    [path] = sorted(folder.glob("*.csv"))[:1]
    frame = pl.read_csv(path, n_rows=5_000, infer_schema_length=None)
    names = frame.columns[:5]
    full = frame.select(names).fill_null(strategy="forward").fill_null(strategy="backward")
    nulls = full.with_columns(
        pl.when(pl.int_range(pl.len()) % 12 == 0).then(None).otherwise(pl.col(n)).alias(n) for n in names
    )
    for exact in (True, False):
        found = drift_of(full, nulls, columns=names, exact=exact)
        assert [effects for _, effects in sorted(found.drifted.items())] == [["nulls"]] * 5
        assert drift_of(full, full, columns=names, exact=exact).drifted == {}


def test_constants_and_what_has_no_spread() -> None:
    found = compared(profile([1.0] * 50), profile([1.0] * 70))
    assert (found.statistics["ks"], found.statistics["wasserstein_sigma"], found.statistics["psi"]) == (0.0, 0.0, 0.0)
    moved = compared(profile([1.0] * 500), profile([1.1] * 700))
    assert (moved.statistics["ks"], moved.statistics["wasserstein_sigma"]) == (1.0, math.inf)
    assert set(moved.exceeded(DriftThresholds())) == {"ks", "wasserstein"}


def test_numbers_that_name_rows_do_not_drift_unless_they_are_named() -> None:
    a, b = (pl.DataFrame({"id": pl.int_range(start, start + 5_000, eager=True)}) for start in (0, 5_000))
    assert list(drift_of(a, b, exact=False).columns) == []
    assert drift_of(a, b, exact=False, columns=["id"]).drifted


def test_tagged_columns_tell_of_nulls_only() -> None:
    a, b = (profile_of(pl.DataFrame({"x": [value, None]}), pii=["x"]) for value in (1.0, 99.0))
    found = compared(a, b)
    assert (found.statistics["null_change"], "ks" in found.statistics, found.bins) == (0.0, False, ())


def test_profiles_are_compared_without_numba(tmp_path: Path) -> None:
    script = """
import sys
import polars as pl
from engine import Suite, drift_of, profile_of

a, b = pl.DataFrame({"x": [1.0, 2.0] * 50, "k": ["a", "b"] * 50}), pl.DataFrame({"x": [5.0, 2.0] * 50, "k": ["a", "c"] * 50})
a.write_parquet("a.parquet")
assert drift_of(profile_of(a), b).drifted
assert drift_of(a, b, exact=False).drifted
assert Suite({"drift": {"baseline": "a.parquet"}}).validate(b).warnings
assert not {"numba", "scipy", "pandas"} & set(sys.modules)
drift_of(a, b)
assert "numba" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

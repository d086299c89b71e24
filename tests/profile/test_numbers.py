"""What is counted of numbers is exact, however they come and are put together; what is derived is off as stated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.profile import numbers
from engine.profile.column import bars, quantiles, rank_error
from engine.profile.grid import Grid, chosen
from engine.profile.numbers import Numbers

FLOATS = st.one_of(
    st.floats(allow_nan=False),
    st.floats(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, 100.0, math.inf, -math.inf, 5e-324, 1.7976931348623157e308]),
    st.integers(-50, 50).map(float),
    st.integers(1_600_000_000, 1_600_001_000).map(float),
)
CHUNKS = st.lists(st.lists(FLOATS, max_size=60), max_size=6)


@pytest.fixture(autouse=True)
def _few_cells() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "CELLS", 12)
        patch.setattr(numbers, "_AIM", 8)
        yield


def added(chunks: list[list[float]]) -> Numbers:
    found = Numbers()
    for chunk in chunks:
        found.add(np.array(chunk, np.float64))
    return found


def holds(found: Numbers, values: list[float]) -> None:
    """Asserts that what is told of numbers is true of ``values``."""
    finite = [v for v in values if math.isfinite(v)]
    low, high, counts = found.pieces()
    assert found.count == len(values) == counts.sum()
    assert (counts > 0).all()
    assert (low <= high).all()
    for x in {*values, *low.tolist(), *high.tolist()}:
        true = sum(v <= x for v in values)
        assert counts[high <= x].sum() <= true <= counts[low <= x].sum(), x
    for single, count in zip(low[low == high], counts[low == high], strict=True):
        if found.exact or single in found.spikes or math.isinf(single):
            assert sum(v == single for v in values) == count
    assert found.moments.count == len(finite)
    if finite:
        assert (found.least, found.greatest) == (min(finite), max(finite))
    assert found.ends == ((min(values), max(values)) if values else None)


@settings(max_examples=300)
@given(CHUNKS)
def test_every_count_is_exact_batch_by_batch(chunks: list[list[float]]) -> None:
    found = added(chunks)
    holds(found, [v for chunk in chunks for v in chunk])
    assert len(found.at) <= 12


@settings(max_examples=300)
@given(CHUNKS, st.randoms(use_true_random=False))
def test_every_count_is_exact_however_profiles_are_put_together(chunks: list[list[float]], random: object) -> None:
    parts = [added([chunk]) for chunk in chunks]
    random.shuffle(parts)  # type: ignore[attr-defined]
    found = reduce(Numbers.merged, parts, Numbers())
    holds(found, [v for chunk in chunks for v in chunk])
    assert len(found.at) <= 12


@given(CHUNKS)
def test_json_gives_the_same_back(chunks: list[list[float]]) -> None:
    found = added(chunks)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    again = Numbers.from_dict(told)
    assert again.to_dict() == told
    for one, other in zip(again.pieces(), found.pieces(), strict=True):
        assert one.tolist() == other.tolist()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12), st.floats(0, 1))
def test_quantiles_of_few_values_are_exact(values: list[float], share: float) -> None:
    [found] = quantiles(added([values]), [share])
    assert found == pytest.approx(float(np.quantile(np.array(values) + 0.0, share)), rel=1e-12, abs=1e-300)


@given(st.lists(FLOATS.filter(math.isfinite), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_off_by_its_rank_error_at_most(values: list[float], share: float) -> None:
    found = added([values])
    [quantile] = quantiles(found, [share])
    slack = rank_error(found) * len(values) + 1
    place = (len(values) - 1) * share
    assert sum(v < quantile for v in values) <= place + slack
    assert sum(v <= quantile for v in values) >= place - slack


@given(st.lists(FLOATS.filter(math.isfinite), min_size=1, max_size=200))
def test_bars_count_exactly(values: list[float]) -> None:
    edges, counts = bars(added([values]))
    assert sum(counts) == len(values)
    assert edges == sorted(edges)
    for i, count in enumerate(counts):
        last = i == len(counts) - 1
        assert count == sum(edges[i] <= v and (v < edges[i + 1] or last) for v in values)


@given(st.integers(-60, 60), st.integers(0, 50), st.integers(0, 5), st.integers(0, 5), st.lists(st.floats(-1e15, 1e15)))
def test_a_coarser_grid_puts_whole_cells_together(step: int, bits: int, more: int, less: int, x: list[float]) -> None:
    fine, coarse = Grid(step, bits), Grid(step + more, max(0, bits - less))
    assert fine.joined(coarse) == coarse
    values = np.array(x, np.float64)
    index = fine.index(values)
    low, high = fine.bounds(index)
    assert ((low <= values) & (values <= high)).all()
    assert (fine.index(fine.one(index)) == index).all()
    assert (coarse.index(fine.one(index)) == coarse.index(values)).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(index[order]) >= 0).all()


def test_moments_are_those_of_all_numbers() -> None:
    random = np.random.default_rng(5)
    parts = [random.normal(1e6, 1, size=n) for n in (1, 5, 1_000, 1)]
    found = reduce(Numbers.merged, (added([p.tolist()]) for p in parts), Numbers())
    whole = np.concatenate(parts)
    assert found.mean == pytest.approx(whole.mean(), rel=1e-14)
    assert found.std == pytest.approx(whole.std(ddof=1), rel=1e-9)
    constant = added([[0.1] * 1_000, [0.1] * 7])
    assert (constant.mean, constant.std) == (0.1, 0.0)
    assert (added([[1.0]]).std, added([]).mean, added([[math.inf, 1.0]]).mean) == (None, None, math.inf)
    assert added([[math.inf, -math.inf]]).mean is None


@pytest.mark.parametrize("name", ["normal", "lognormal", "uniform", "cauchy", "moments", "halves"])
def test_no_cell_of_a_usual_distribution_holds_much(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(numbers, "CELLS", 2_048)
    monkeypatch.setattr(numbers, "_AIM", 1_024)
    random = np.random.default_rng(7)
    n = 40_000
    x = {
        "normal": random.normal(size=n),
        "lognormal": np.exp(2 * random.normal(size=n)),
        "uniform": random.uniform(size=n),
        "cauchy": random.standard_cauchy(n),
        "moments": random.integers(1_700_000_000_000_000, 1_700_100_000_000_000, n).astype(float),
        "halves": np.where(random.uniform(size=n) < 0.5, 0.0, random.normal(size=n)),
    }[name]
    found = added([x[:30_000].tolist(), x[30_000:].tolist()])
    assert rank_error(found) < 0.006
    assert 100 < len(found.at) <= 2_048
    assert found.spikes.tolist() == ([0.0] if name == "halves" else [])


def test_a_grid_is_chosen_for_values_of_any_size() -> None:
    for values in ([5e-324, 1e308], [-1e308, 0.0, 1e308], [1.0], [0.0, 5e-324]):
        grid = chosen(np.array(values), np.ones(len(values), np.int64), 8)
        index = grid.index(np.array(values))
        assert (np.diff(index) >= 0).all()

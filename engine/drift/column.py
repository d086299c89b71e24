"""What became of one column: every statistic that its kind has, and which of them are too large."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from engine.drift import shares
from engine.drift.chance import two_sample
from engine.drift.distance import Distance, Known, cuts, kolmogorov_smirnov, noise, wasserstein
from engine.profile import CATEGORIES, ColumnProfile, Pieces, quantiles_of
from engine.spec import DriftThresholds

_NAMED = 20  # categories that are new or vanished
_BARS = 30  # bins that are drawn
_D_RARELY = 1.949  # times √(1/n + 1/m): what D of equal distributions exceeds once in a thousand times (Smirnov, 1948)
_AREA_RARELY = 3.0  # times its mean: about that for the area
_RARELY = 3.291  # what a normal value exceeds, either way, once in a thousand times


@dataclass(frozen=True)
class ColumnDrift:
    """A column beside its baseline.

    Attributes:
        by: ``rows`` or ``profile``: what the distributions were taken from.
        baseline, current: how many values that are not null.
        statistics: by name; effects that thresholds are for, and what informs. None where one makes no sense.
        errors: by how much D and Wasserstein-1 can be off; 0 where they are exact.
        chance: what effects two samples of one distribution, of these sizes, exceed once in a thousand times.
        bins: label, and the share of either side.
        new, vanished: categories that only one side has, with their counts.
        note: why something was not compared.
    """

    name: str
    kind: str
    by: str
    baseline: int
    current: int
    statistics: Mapping[str, float | None]
    errors: Mapping[str, float] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    bins: Sequence[tuple[str, float, float]] = ()
    new: Sequence[tuple[str, int]] = ()
    vanished: Sequence[tuple[str, int]] = ()
    note: str | None = None

    def exceeded(self, thresholds: DriftThresholds) -> list[str]:
        """The effects that are above their thresholds, and above what chance makes of samples of these sizes."""
        found = []
        for name, value in self.effects.items():
            limit = getattr(thresholds, name)
            if limit is not None and value is not None and value > max(limit, self.chance.get(name, 0.0)):
                found.append(name)
        return found

    @property
    def effects(self) -> dict[str, float | None]:
        """What thresholds are for."""
        mean = self.statistics.get("mean_shift")
        nulls = self.statistics.get("null_change")
        return {
            "psi": self.statistics.get("psi"),
            "js": self.statistics.get("js"),
            "ks": self.statistics.get("ks"),
            "wasserstein": self.statistics.get("wasserstein_sigma"),
            "mean": None if mean is None else abs(mean),
            "nulls": None if nulls is None else abs(nulls),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, but for infinities."""
        return {
            "kind": self.kind,
            "by": self.by,
            "baseline_size": self.baseline,
            "current_size": self.current,
            "statistics": dict(self.statistics),
            "errors": dict(self.errors),
            "chance": dict(self.chance),
            "bins": [{"label": label, "baseline": b, "current": c} for label, b, c in self.bins],
            "new_categories": [{"value": value, "count": n} for value, n in self.new],
            "vanished_categories": [{"value": value, "count": n} for value, n in self.vanished],
            "note": self.note,
        }


def compared(baseline: ColumnProfile, current: ColumnProfile, bins: int = 10) -> ColumnDrift:
    """A column beside its baseline, from the profiles of both."""
    kind = current.kind if current.count else baseline.kind
    if baseline.pii or current.pii:
        return without_values(baseline, current, "its values are tagged pii: only nulls are compared")
    if not (baseline.count and current.count):
        return without_values(baseline, current, "one side has no value: only nulls are compared")
    if baseline.numbers is not None and current.numbers is not None:
        b, c = Known(baseline.numbers.pieces()), Known(current.numbers.pieces())
        shares, wanted = inner_quantiles(baseline, bins)
        edges = cuts(b, c, shares, wanted)
        counts = [np.diff(np.concatenate([[0], k.below(edges)[0], [k.total]])) for k in (b, c)]
        return of_numbers(baseline, current, kolmogorov_smirnov(b, c), wasserstein(b, c), edges, counts, by="profile")
    if baseline.categories is not None and current.categories is not None:
        if not (baseline.categories.exact and current.categories.exact):
            reason = f"more than {CATEGORIES:,} distinct values: categories are not compared"
            return without_values(baseline, current, reason)
        return of_categories(baseline, current, baseline.categories.counts, current.categories.counts, by="profile")
    reason = f"it was {baseline.dtype} and is {current.dtype}" if baseline.kind != kind else f"{kind} is not compared"
    return without_values(baseline, current, f"{reason}: only nulls are compared")


def inner_quantiles(baseline: ColumnProfile, bins: int) -> tuple[Any, Any]:
    """The shares, and the baseline's quantiles, between bins; without those that lie between the two infinities."""
    assert baseline.numbers is not None  # noqa: S101 - asked for numbers only
    shares = np.arange(1, bins) / bins
    found = np.array(quantiles_of(baseline.numbers, list(shares)))
    known = ~np.isnan(found)
    return shares[known], found[known]


def without_values(baseline: ColumnProfile, current: ColumnProfile, note: str) -> ColumnDrift:
    """What can be told without looking at values."""
    return beside(baseline, current, {}, by="profile", note=note)


def beside(
    baseline: ColumnProfile,
    current: ColumnProfile,
    statistics: Mapping[str, float | None],
    *,
    by: str,
    chance: Mapping[str, float] | None = None,
    **more: Any,
) -> ColumnDrift:
    """A column with the statistics of its values, and what became of its nulls."""
    return ColumnDrift(
        current.name,
        current.kind,
        by,
        baseline.count,
        current.count,
        {**statistics, **_nulls(baseline, current)},
        chance={**(chance or {}), **_chance_of_nulls(baseline, current)},
        **more,
    )


def of_numbers(
    baseline: ColumnProfile,
    current: ColumnProfile,
    d: Distance,
    area: Distance,
    edges: Any,
    counts: Sequence[Any],
    *,
    by: str,
    pieces: Sequence[Pieces] = (),
) -> ColumnDrift:
    """A column of numbers, once its distances and its counts by bins are known.

    Args:
        pieces: the distributions, for what chance makes of the area; default: those of the profiles.
    """
    b, c = baseline.numbers, current.numbers
    assert b is not None  # noqa: S101 - asked for numbers only
    assert c is not None  # noqa: S101
    n, m = baseline.count, current.count
    shift = None if b.mean is None or c.mean is None else _in(b.std, c.mean - b.mean)
    before, now = counts
    groups = int(((before > 0) | (now > 0)).sum())
    psi, js = shares.chance(groups, n, m)
    spread = math.sqrt(1 / n + 1 / m)
    area_by_chance = _AREA_RARELY * max(map(noise, pieces or (b.pieces(), c.pieces()))) * spread
    square = shares.homogeneity(before, now)
    statistics: dict[str, float | None] = {
        "psi": shares.psi(before, now),
        "js": shares.jensen_shannon(before, now),
        "ks": d.value,
        "ks_p_value": two_sample(d.value, n, m),
        "wasserstein": area.value,
        "wasserstein_sigma": _in(b.std, area.value),
        "mean_shift": shift,
        "chi_square": square.statistic,
        "chi_square_p_value": square.p_value,
    }
    chance = {
        "psi": psi,
        "js": js,
        "ks": _D_RARELY * spread,
        "wasserstein": _in(b.std, area_by_chance) or 0.0,
        "mean": _RARELY * spread,
    }
    errors = {"ks": d.error, "wasserstein": area.error, "wasserstein_sigma": _in(b.std, area.error) or 0.0}
    found = [f"< {_label(current, edges[0])}"] if len(edges) else ["all"]
    found += [f"{_label(current, e)} to {_label(current, f)}" for e, f in pairwise(edges)]
    found += [f"≥ {_label(current, edges[-1])}"] if len(edges) else []
    drawn = _bars(found, before, now)
    return beside(baseline, current, statistics, by=by, errors=errors, chance=chance, bins=drawn)


def of_categories(
    baseline: ColumnProfile,
    current: ColumnProfile,
    before: Mapping[str, int],
    now: Mapping[str, int],
    *,
    by: str,
) -> ColumnDrift:
    """A column of categories, of which each is known with its count."""
    names = sorted({*before, *now}, key=lambda name: (-before.get(name, 0), -now.get(name, 0), name))
    old, young = (np.array([side.get(name, 0) for name in names], np.int64) for side in (before, now))
    n, m = int(old.sum()), int(young.sum())
    square = shares.homogeneity(old, young)
    statistics: dict[str, float | None] = {
        "psi": shares.psi(old, young),
        "js": shares.jensen_shannon(old, young),
        "chi_square": square.statistic,
        "chi_square_p_value": square.p_value,
        "new_categories": float(sum(name not in before for name in now)),
        "vanished_categories": float(sum(name not in now for name in before)),
    }
    psi, js = shares.chance(len(names), n, m)
    new = sorted(((k, v) for k, v in now.items() if k not in before), key=lambda pair: (-pair[1], pair[0]))
    gone = sorted(((k, v) for k, v in before.items() if k not in now), key=lambda pair: (-pair[1], pair[0]))
    return beside(
        baseline,
        current,
        statistics,
        by=by,
        chance={"psi": psi, "js": js},
        bins=_bars([name[:80] for name in names], old, young),
        new=new[:_NAMED],
        vanished=gone[:_NAMED],
    )


def _bars(labels: Sequence[str], before: Any, now: Any) -> list[tuple[str, float, float]]:
    """The shares of bins; of many, those beyond the first ones together."""
    p, q = before / before.sum(), now / now.sum()
    if len(labels) > _BARS:
        labels = [*labels[: _BARS - 1], f"{len(labels) - _BARS + 1:,} others"]
        p, q = (np.append(x[: _BARS - 1], x[_BARS - 1 :].sum()) for x in (p, q))
    return [(label, float(a), float(b)) for label, a, b in zip(labels, p, q, strict=True)]


def _nulls(baseline: ColumnProfile, current: ColumnProfile) -> dict[str, float | None]:
    before, now = baseline.null_fraction, current.null_fraction
    change = None if before is None or now is None else now - before
    return {"null_fraction_baseline": before, "null_fraction_current": now, "null_change": change}


def _chance_of_nulls(baseline: ColumnProfile, current: ColumnProfile) -> dict[str, float]:
    if not (baseline.rows and current.rows):
        return {}
    share = (baseline.nulls + current.nulls) / (baseline.rows + current.rows)
    return {"nulls": _RARELY * math.sqrt(share * (1 - share) * (1 / baseline.rows + 1 / current.rows))}


def _in(std: float | None, amount: float) -> float | None:
    """In standard deviations; of a constant baseline, any amount is infinitely many."""
    if amount == 0:
        return 0.0
    if std is None or math.isnan(amount):
        return None
    return amount / std if std else math.copysign(math.inf, amount)


def _label(column: ColumnProfile, edge: float) -> str:
    value = column.value(float(edge))
    return f"{value:.6g}" if isinstance(value, float) else str(value)

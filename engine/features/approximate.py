"""Aggregates with a stated error: what they look at in place of the values, and what they make of it, as SQL.

- ``count_distinct``: the k smallest hashes of the values; the estimate is (k - 1) / the k-th of them as a share of all
  hashes, and fewer than k are counted exactly (Beyer et al., On Synopses for Distinct-Value Estimation Under Multiset
  Operations, SIGMOD 2007). Its standard error is 1 / sqrt(k - 2).
- ``quantile``: the values' cells of a grid whose lines stand in a fixed ratio; the estimate lies in the cell of the
  value of rank ceil(q n), no further from it than the error, as a share of it (Masson, Rim, Lee: DDSketch, VLDB 2019).

Both depend on which values there are and on nothing else, and those of two sets of rows give that of both.
"""

from __future__ import annotations

import math

from engine.features.definition import Aggregate

HASHES = 2**32
FAR = 2**22  # more cells than there are to either side of 1
_CELLS_OF_A_DOUBLE = 1_500  # natural logarithms from the smallest double to the largest, about


def k(error: float) -> int:
    """How many hashes are kept."""
    return math.ceil(1 / error**2) + 2


def growth(error: float) -> float:
    """What the upper end of a cell is to the lower one."""
    return (1 + error) / (1 - error)


def most(aggregate: Aggregate) -> int:
    """How many numbers are kept of one entity at most."""
    error = aggregate.error or 1.0
    if aggregate.function == "count_distinct":
        return k(error)
    return math.ceil(2 * _CELLS_OF_A_DOUBLE / math.log(growth(error)))


def seen(aggregate: Aggregate) -> str | None:
    """What the aggregate looks at: a whole number for each value; of an exact one the values themselves."""
    if aggregate.error is None or aggregate.value is None:
        return aggregate.value
    if aggregate.function == "count_distinct":
        return f"CASE WHEN ({aggregate.value}) IS NOT NULL THEN CAST(hash({aggregate.value}) >> 32 AS BIGINT) END"
    number = f"CAST(({aggregate.value}) AS DOUBLE)"
    line = f"CAST(least(ceil(ln(abs({number})) / {math.log(growth(aggregate.error))!r}::DOUBLE), {FAR}) AS BIGINT)"
    return (
        f"CASE WHEN isnan({number}) THEN NULL WHEN {number} > 0 THEN {line} + {FAR} "
        f"WHEN {number} < 0 THEN -({line} + {FAR}) WHEN {number} = 0 THEN 0 END"
    )


def call(aggregate: Aggregate, only: str) -> str:
    """The aggregate itself; ``only``: its FILTER clause."""
    error, value = aggregate.error or 1.0, seen(aggregate)
    if aggregate.function == "count_distinct":
        n = k(error)
        estimate = f"CAST(floor({n - 1} / ((l[{n}] + 1) / {HASHES}::DOUBLE) + 0.5) AS BIGINT)"
        found = f"CASE WHEN l IS NULL THEN 0 WHEN len(l) < {n} THEN len(l) ELSE {estimate} END"
        return f"list_transform([min(DISTINCT {value}, {n}){only}], lambda l: {found})[1]"
    base = growth(error)
    size = f"pow({base!r}::DOUBLE, abs(c) - {FAR}) * {2 / (base + 1)!r}::DOUBLE"
    size = f"CASE WHEN abs(c) = {2 * FAR} THEN 'infinity'::DOUBLE ELSE {size} END"
    found = f"CASE WHEN c = 0 THEN 0::DOUBLE ELSE sign(c) * ({size}) END"
    return f"list_transform([quantile_disc({value}, {aggregate.q}::DOUBLE){only}], lambda c: {found})[1]"

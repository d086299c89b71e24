"""What sliding windows hold, per entity: order statistics, modes, distinct counts.

Compiled with numba, which is imported with this module and not before. All arrays are of one stripe: rows in the order
that `order` gives; ``offsets[e]`` is the first row of entity e; windows are (starts[i], ends[i]], both ascending. Time
is proportional to rows and as-ofs, times a logarithm where windows or the values in them are many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]
_FEW = 64  # values, up to which a list of them beats a tree


@njit(cache=True, nogil=True)
def order(ids: Array, moments: Array, entities: int) -> tuple[Array, Array]:
    """The first row of each entity, and the rows by entity and time; of equal moments in no order."""
    offsets = np.zeros(entities + 1, np.int64)
    for k in range(len(ids)):
        offsets[ids[k] + 1] += 1
    for e in range(entities):
        offsets[e + 1] += offsets[e]
    free = offsets[:-1].copy()
    rows = np.empty(len(ids), np.int64)
    for k in range(len(ids)):
        e = ids[k]
        rows[free[e]] = k
        free[e] += 1
    for e in range(entities):
        mine = rows[offsets[e] : offsets[e + 1]]
        for k in range(1, len(mine)):
            if moments[mine[k]] < moments[mine[k - 1]]:
                mine[:] = mine[np.argsort(moments[mine])]
                break
    return offsets, rows


@njit(cache=True, nogil=True)
def ranks(offsets: Array, values: Array) -> tuple[Array, Array, Array]:
    """Of each row, the rank of its value among its entity's; these in order, from the entity's first row on; how many
    each entity has."""
    rank = np.empty(len(values), np.int32)
    distinct = np.empty(len(values), values.dtype)
    counts = np.zeros(len(offsets) - 1, np.int64)
    for e in range(len(counts)):
        first, last = offsets[e], offsets[e + 1]
        n = 0
        if last > first:
            places = np.argsort(values[first:last])
            for k in range(last - first):
                value = values[first + places[k]]
                if n == 0 or value != distinct[first + n - 1]:
                    distinct[first + n] = value
                    n += 1
                rank[first + places[k]] = n - 1
        counts[e] = n
    return rank, distinct, counts


@njit(cache=True, nogil=True)
def distincts(offsets: Array, moments: Array, rank: Array, counts: Array, starts: Array, ends: Array) -> Array:
    """How many distinct values each window holds."""
    entities = len(offsets) - 1
    found = np.zeros((len(ends), entities), np.int32)
    for e in range(entities):
        first, last = offsets[e], offsets[e + 1]
        held = np.zeros(counts[e], np.int64)
        entering = leaving = first
        n = 0
        for i in range(len(ends)):
            while entering < last and moments[entering] <= ends[i]:
                held[rank[entering]] += 1
                n += held[rank[entering]] == 1
                entering += 1
            while leaving < entering and moments[leaving] <= starts[i]:
                held[rank[leaving]] -= 1
                n -= held[rank[leaving]] == 0
                leaving += 1
            found[i, e] = n
    return found


@njit(cache=True, nogil=True)
def _most(moments: Array, starts: Array, ends: Array) -> int:
    """How many of one entity's rows a window holds at most."""
    entering = leaving = most = 0
    for i in range(len(ends)):
        while entering < len(moments) and moments[entering] <= ends[i]:
            entering += 1
        while leaving < entering and moments[leaving] <= starts[i]:
            leaving += 1
        most = max(most, entering - leaving)
    return most


@njit(cache=True, nogil=True)
def quantiles(
    offsets: Array, moments: Array, values: Array, starts: Array, ends: Array, q: float
) -> tuple[Array, Array]:
    """The q-quantile of each window, linear between neighbours, and whether it holds any row."""
    entities = len(offsets) - 1
    found = np.zeros((len(ends), entities))
    there = np.zeros((len(ends), entities), np.uint8)
    for e in range(entities):
        first, last = offsets[e], offsets[e + 1]
        if first == last:
            continue
        mine, own = moments[first:last], values[first:last]
        if _most(mine, starts, ends) <= _FEW:
            _few_quantiles(mine, own, starts, ends, q, found[:, e], there[:, e])
        else:
            _many_quantiles(mine, own, starts, ends, q, found[:, e], there[:, e])
    return found, there


@njit(cache=True, nogil=True)
def _between(low: float, high: float, share: float) -> float:
    return low if low == high else low + (high - low) * share


@njit(cache=True, nogil=True)
def _few_quantiles(
    moments: Array, values: Array, starts: Array, ends: Array, q: float, found: Array, there: Array
) -> None:
    """The values within the window stand in their order."""
    held = np.empty(_FEW, np.float64)
    count = entering = leaving = 0
    value = 0.0
    for i in range(len(ends)):
        changed = False
        while leaving < entering and moments[leaving] <= starts[i]:
            place = np.searchsorted(held[:count], values[leaving])
            count -= 1
            for k in range(place, count):
                held[k] = held[k + 1]
            leaving += 1
            changed = True
        while entering < len(moments) and moments[entering] <= ends[i]:
            if moments[entering] <= starts[i]:  # it comes and goes between two as-ofs
                entering += 1
                leaving += 1
                continue
            place = count
            while place > 0 and held[place - 1] > values[entering]:
                held[place] = held[place - 1]
                place -= 1
            held[place] = values[entering]
            count += 1
            entering += 1
            changed = True
        if count == 0:
            continue
        if changed:
            place = q * (count - 1)
            below = int(np.floor(place))
            value = (
                _between(held[below], held[min(below + 1, count - 1)], place - below) if place > below else held[below]
            )
        found[i] = value
        there[i] = 1


@njit(cache=True, nogil=True)
def _many_quantiles(
    moments: Array, values: Array, starts: Array, ends: Array, q: float, found: Array, there: Array
) -> None:
    """A Fenwick tree over the ranks of the values counts those within the window."""
    m = len(values)
    places = np.argsort(values)
    ordered = values[places]
    rank = np.empty(m, np.int64)
    for k in range(m):
        rank[places[k]] = k
    tree = np.zeros(m + 1, np.int64)
    top = 1
    while top * 2 <= m:
        top *= 2
    entering = leaving = 0
    value = 0.0
    for i in range(len(ends)):
        changed = False
        while entering < m and moments[entering] <= ends[i]:
            _count(tree, rank[entering], 1)
            entering += 1
            changed = True
        while leaving < entering and moments[leaving] <= starts[i]:
            _count(tree, rank[leaving], -1)
            leaving += 1
            changed = True
        if entering == leaving:
            continue
        if changed:
            place = q * (entering - leaving - 1)
            below = int(np.floor(place))
            value = ordered[_nth(tree, below, top, m)]
            if place > below:
                value = _between(value, ordered[_nth(tree, below + 1, top, m)], place - below)
        found[i] = value
        there[i] = 1


@njit(cache=True, nogil=True)
def _count(tree: Array, rank: int, by: int) -> None:
    k = rank + 1
    while k < len(tree):
        tree[k] += by
        k += k & -k


@njit(cache=True, nogil=True)
def _nth(tree: Array, n: int, top: int, size: int) -> int:
    """The rank of the element with n smaller ones in the window."""
    place = 0
    step = top
    while step > 0:
        if place + step <= size and tree[place + step] <= n:
            place += step
            n -= tree[place]
        step //= 2
    return place


@njit(cache=True, nogil=True)
def modes(  # noqa: C901 - compiled as one
    offsets: Array, moments: Array, rank: Array, distinct: Array, counts: Array, starts: Array, ends: Array
) -> tuple[Array, Array]:
    """The most frequent value of each window, of several the smallest, and whether it holds any row.

    Where an entity has many values, a segment tree over them holds the largest count of each range.
    """
    entities = len(offsets) - 1
    found = np.zeros((len(ends), entities), distinct.dtype)
    there = np.zeros((len(ends), entities), np.uint8)
    for e in range(entities):
        first, last, n = offsets[e], offsets[e + 1], counts[e]
        if first == last:
            continue
        leaves = 1
        while leaves < n:
            leaves *= 2
        is_tree = n > 16
        tree = np.zeros(2 * leaves, np.int64)
        entering = leaving = first
        best = 0
        for i in range(len(ends)):
            changed = False
            while entering < last and moments[entering] <= ends[i]:
                _add(tree, leaves + rank[entering], 1, is_tree)
                entering += 1
                changed = True
            while leaving < entering and moments[leaving] <= starts[i]:
                _add(tree, leaves + rank[leaving], -1, is_tree)
                leaving += 1
                changed = True
            if entering == leaving:
                continue
            if changed and is_tree:
                node = 1
                while node < leaves:
                    node *= 2
                    if tree[node] < tree[node + 1]:
                        node += 1
                best = node - leaves
            elif changed:
                best = 0
                for k in range(1, n):
                    if tree[leaves + k] > tree[leaves + best]:
                        best = k
            found[i, e] = distinct[first + best]
            there[i, e] = 1
    return found, there


@njit(cache=True, nogil=True)
def _add(tree: Array, node: int, by: int, is_tree: bool) -> None:
    tree[node] += by
    node //= 2
    while is_tree and node > 0:
        tree[node] = max(tree[2 * node], tree[2 * node + 1])
        node //= 2

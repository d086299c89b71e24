"""Order statistics over sliding windows, per entity, in time proportional to rows and as-ofs (times a logarithm).

Compiled with numba, which is imported with this module and not before. All arrays are of one stripe: rows sorted by
entity and time; ``offsets[e]`` is the first row of entity e; windows are (starts[i], ends[i]], both ascending.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]


@njit(cache=True, nogil=True)
def quantiles(  # noqa: C901 - compiled as one
    offsets: Array, moments: Array, values: Array, starts: Array, ends: Array, q: float
) -> tuple[Array, Array]:
    """The q-quantile of each window, linear between neighbours, and whether it holds any row.

    A Fenwick tree over the ranks of an entity's values counts those within the window.
    """
    entities = len(offsets) - 1
    found = np.zeros((len(ends), entities))
    there = np.zeros((len(ends), entities), np.uint8)
    for e in range(entities):
        first, last = offsets[e], offsets[e + 1]
        m = last - first
        if m == 0:
            continue
        order = np.argsort(values[first:last])
        ordered = values[first:last][order]
        rank = np.empty(m, np.int64)
        for k in range(m):
            rank[order[k]] = k
        tree = np.zeros(m + 1, np.int64)
        top = 1
        while top * 2 <= m:
            top *= 2
        entering = leaving = 0
        count = 0
        value = 0.0
        for i in range(len(ends)):
            changed = False
            while entering < m and moments[first + entering] <= ends[i]:
                k = rank[entering] + 1
                while k <= m:
                    tree[k] += 1
                    k += k & -k
                entering += 1
                count += 1
                changed = True
            while leaving < entering and moments[first + leaving] <= starts[i]:
                k = rank[leaving] + 1
                while k <= m:
                    tree[k] -= 1
                    k += k & -k
                leaving += 1
                count -= 1
                changed = True
            if count == 0:
                continue
            if changed:
                place = q * (count - 1)
                below = int(np.floor(place))
                value = ordered[_nth(tree, below, top, m)]
                if place > below:
                    upper = ordered[_nth(tree, below + 1, top, m)]
                    if upper != value:
                        value = value + (upper - value) * (place - below)
            found[i, e] = value
            there[i, e] = 1
    return found, there


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
def modes(offsets: Array, moments: Array, values: Array, starts: Array, ends: Array) -> tuple[Array, Array]:
    """The most frequent value of each window, of several the smallest, and whether it holds any row.

    A segment tree over an entity's distinct values holds the largest count of each range.
    """
    entities = len(offsets) - 1
    found = np.zeros((len(ends), entities), values.dtype)
    there = np.zeros((len(ends), entities), np.uint8)
    for e in range(entities):
        first, last = offsets[e], offsets[e + 1]
        m = last - first
        if m == 0:
            continue
        order = np.argsort(values[first:last])
        rank = np.empty(m, np.int64)
        distinct = np.empty(m, values.dtype)
        n = 0
        for k in range(m):
            value = values[first + order[k]]
            if n == 0 or value != distinct[n - 1]:
                distinct[n] = value
                n += 1
            rank[order[k]] = n - 1
        leaves = 1
        while leaves < n:
            leaves *= 2
        tree = np.zeros(2 * leaves, np.int64)
        entering = leaving = 0
        for i in range(len(ends)):
            while entering < m and moments[first + entering] <= ends[i]:
                _add(tree, leaves + rank[entering], 1)
                entering += 1
            while leaving < entering and moments[first + leaving] <= starts[i]:
                _add(tree, leaves + rank[leaving], -1)
                leaving += 1
            if entering == leaving:
                continue
            node = 1
            while node < leaves:
                node *= 2
                if tree[node] < tree[node + 1]:
                    node += 1
            found[i, e] = distinct[node - leaves]
            there[i, e] = 1
    return found, there


@njit(cache=True, nogil=True)
def _add(tree: Array, node: int, by: int) -> None:
    tree[node] += by
    node //= 2
    while node > 0:
        tree[node] = max(tree[2 * node], tree[2 * node + 1])
        node //= 2

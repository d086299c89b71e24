# /// script
# dependencies = ["numba==0.68.1", "numpy==2.4.6", "polars==2.1.0"]
# ///
"""The same statistics by hand, two columns at a time: each column sorted once, then one walk along both sides.

D and Wasserstein-1 are of the order of all values: sorting both sides is the least that exact ones take. P-values are
left out, and so is all that is needed for other tables than these two: infinities, moments, memory.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import polars as pl

FLOOR = 1e-4


@numba.njit("UniTuple(float64, 2)(float64[::1], float64[::1])", nogil=True, cache=True)
def walk(a, b):
    """The largest distance of the two distribution functions, and the area between them."""
    i, j, d, area, here = 0, 0, 0.0, 0.0, min(a[0], b[0])
    while i < len(a) or j < len(b):
        value = a[i] if j == len(b) or (i < len(a) and a[i] <= b[j]) else b[j]
        area += abs(i / len(a) - j / len(b)) * (value - here)
        while i < len(a) and a[i] == value:
            i += 1
        while j < len(b) and b[j] == value:
            j += 1
        here, d = value, max(d, abs(i / len(a) - j / len(b)))
    return d, area


def shares(counts):
    return counts / counts.sum()


def psi(p, q):
    p, q = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
    return float(np.sum((q - p) * np.log(q / p)))


def js(p, q):
    """The distance, to base 2."""
    m = (p + q) / 2
    parts = [np.sum(x[x > 0] * np.log2(x[x > 0] / m[x > 0])) for x in (p, q)]
    return float(np.sqrt(max(0.0, sum(parts) / 2)))


def numbers(a, b):
    a, b = (np.sort(x.drop_nulls().to_numpy()).astype(np.float64, copy=False) for x in (a, b))
    at = np.arange(1, 10) / 10 * (len(a) - 1)
    low = np.floor(at).astype(np.int64)
    edges = np.unique(a[low] + (a[low + 1] - a[low]) * (at - low))
    p, q = (shares(np.diff(np.concatenate([[0], np.searchsorted(x, edges), [len(x)]]))) for x in (a, b))
    sigma = a.std(ddof=1)
    d, area = walk(a, b)
    return {
        "ks": d,
        "wasserstein": area,
        "wasserstein_sigma": float(area / sigma),
        "psi": psi(p, q),
        "js": js(p, q),
        "mean_shift": float((b.mean() - a.mean()) / sigma),
    }


def texts(a, b):
    name = a.name
    counted = [x.drop_nulls().value_counts(name=f"n{i}") for i, x in enumerate((a, b))]
    both = counted[0].join(counted[1], on=name, how="full", coalesce=True).fill_null(0)
    x, y = (both[f"n{i}"].to_numpy().astype(np.float64) for i in range(2))
    all_of = x + y
    expected = [all_of * side.sum() / all_of.sum() for side in (x, y)]
    chi = sum(float(np.sum((side - e) ** 2 / e)) for side, e in zip((x, y), expected, strict=True))
    return {"psi": psi(shares(x), shares(y)), "js": js(shares(x), shares(y)), "chi_square": chi}


def main(baseline: str, current: str, out: str, mode: str) -> None:
    files = (baseline, current)
    tables = [pl.read_parquet(file).rechunk() for file in files if mode == "tables"]
    names = pl.read_parquet_schema(current)
    begun, cpu = time.perf_counter(), time.process_time()

    def column(name):
        one = tables or [pl.read_parquet(file, columns=[name]) for file in files]
        a, b = (table[name] for table in one)
        return name, (texts if a.dtype == pl.String else numbers)(a, b)

    with ThreadPoolExecutor(2) as pool:
        answers = dict(pool.map(column, names))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    Path(out).write_text(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:5])

# /// script
# dependencies = ["scipy==1.17.1", "numpy==2.4.6", "polars==2.1.0"]
# ///
"""The same statistics by SciPy's and numpy's own functions, column after column, as their documentation has them."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

FLOOR = 1e-4


def psi(p, q):
    p, q = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
    return float(np.sum((q - p) * np.log(q / p)))


def numbers(a, b):
    test = ks_2samp(a, b, method="asymp")
    edges = np.unique(np.quantile(a, np.arange(1, 10) / 10))
    counts = [np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1) for x in (a, b)]
    p, q = (c / c.sum() for c in counts)
    return {
        "ks": float(test.statistic),
        "ks_p_value": float(test.pvalue),
        "wasserstein": (area := float(wasserstein_distance(a, b))),
        "wasserstein_sigma": area / float(a.std(ddof=1)),
        "psi": psi(p, q),
        "js": float(jensenshannon(p, q, base=2)),
        "mean_shift": float((b.mean() - a.mean()) / a.std(ddof=1)),
    }


def texts(a, b):
    names, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    x = np.bincount(places[: len(a)], minlength=len(names))
    y = np.bincount(places[len(a) :], minlength=len(names))
    test = chi2_contingency(np.stack([x, y]), correction=False)
    p, q = x / x.sum(), y / y.sum()
    return {
        "psi": psi(p, q),
        "js": float(jensenshannon(p, q, base=2)),
        "chi_square": float(test.statistic),
        "chi_square_p_value": float(test.pvalue),
    }


def main(baseline: str, current: str, out: str) -> None:
    tables = [pl.read_parquet(file).rechunk() for file in (baseline, current)]
    begun, cpu = time.perf_counter(), time.process_time()
    answers = {}
    for name, dtype in tables[0].schema.items():
        a, b = (table[name].drop_nulls() for table in tables)
        if dtype == pl.String:
            answers[name] = texts(*(x.to_numpy().astype(np.dtypes.StringDType()) for x in (a, b)))
        else:
            answers[name] = numbers(*(x.to_numpy().astype(np.float64) for x in (a, b)))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    Path(out).write_text(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

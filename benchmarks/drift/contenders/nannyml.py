# /// script
# dependencies = ["nannyml==0.13.1", "pandas==2.3.3", "statsmodels==0.15.0", "scipy==1.17.1", "pyarrow==26.0.1"]
# ///
"""NannyML's univariate drift over one chunk: Kolmogorov-Smirnov and Wasserstein of numbers, Jensen-Shannon of texts."""

import json
import sys
import time
from pathlib import Path

import nannyml as nml
import pandas as pd


def main(baseline: str, current: str, out: str) -> None:
    tables = [pd.read_parquet(file) for file in (baseline, current)]
    names = list(tables[0])
    texts = [name for name in names if name.startswith("t")]
    begun, cpu = time.perf_counter(), time.process_time()
    calculator = nml.UnivariateDriftCalculator(
        column_names=names,
        treat_as_categorical=texts,
        chunk_number=1,
        continuous_methods=["kolmogorov_smirnov", "wasserstein"],
        categorical_methods=["jensen_shannon"],
        computation_params={m: {"calculation_method": "exact"} for m in ("kolmogorov_smirnov", "wasserstein")},
    )
    found = calculator.fit(tables[0]).calculate(tables[1]).filter(period="analysis").to_df()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    short = {"kolmogorov_smirnov": "ks", "wasserstein": "wasserstein", "jensen_shannon": "js"}
    answers = {}
    for column, method, what in found.columns:
        if column in names and what == "value":
            answers.setdefault(column, {})[short[method]] = float(found[(column, method, what)].iloc[0])
    Path(out).write_text(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

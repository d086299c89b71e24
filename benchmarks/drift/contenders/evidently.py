# /// script
# dependencies = ["evidently==0.7.23", "pandas==2.3.3", "scipy==1.17.1", "pyarrow==26.0.1"]
# ///
"""Evidently's preset for data drift, with methods that we have too: Wasserstein, and of texts Jensen-Shannon."""

import json
import sys
import time
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset


def main(baseline: str, current: str, out: str) -> None:
    tables = [pd.read_parquet(file) for file in (baseline, current)]
    begun, cpu = time.perf_counter(), time.process_time()
    texts = [name for name in tables[0] if name.startswith("t")]
    definition = DataDefinition(numerical_columns=[n for n in tables[0] if n not in texts], categorical_columns=texts)
    before, now = (Dataset.from_pandas(table, data_definition=definition) for table in tables)
    report = Report([DataDriftPreset(num_method="wasserstein", cat_method="jensenshannon")])
    found = report.run(now, before).dict()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    answers = {}
    for metric in found["metrics"]:
        column = metric.get("config", {}).get("column")
        if column:
            name = "js_natural" if column in texts else "wasserstein_sigma"
            answers[column] = {name: float(metric["value"])}
    Path(out).write_text(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

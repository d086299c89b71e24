# /// script
# dependencies = ["great-expectations==1.24.1", "pandas==3.1.1", "pyarrow==26.0.1"]
# ///
"""Great Expectations on pandas, its complete result format for all failing rows, nothing stored.

https://docs.greatexpectations.io/docs/core/connect_to_data/dataframes/
https://docs.greatexpectations.io/docs/core/trigger_actions_based_on_results/choose_a_result_format
"""

import json
import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

os.environ |= {"GX_ANALYTICS_ENABLED": "false", "TQDM_DISABLE": "1"}

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd

TYPES = {"string": "str", "int": "int64", "float": "float64", "datetime": "Timestamp"}


def main(data: str, checks: str, out: str) -> None:
    begun = time.perf_counter()
    declared = json.loads(Path(checks).read_text())
    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("events")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": pd.read_parquet(data)})
    expectations = _expectations(declared)
    suite = gx.ExpectationSuite("suite", expectations=[part for parts in expectations.values() for part in parts])
    found = batch.validate(suite, result_format="COMPLETE")
    results = {_named(result.expectation_config): result for result in found.results}
    answers = {}
    for check, parts in expectations.items():
        family, said = check.split(" ")[0], [results[_named(part.configuration)] for part in parts]
        answers[check] = {"passed": all(result.success for result in said)}
        result = said[0].result
        if family in ("completeness", "range", "categorical"):
            answers[check] |= {"failed": result["unexpected_count"], "rows": list(result["unexpected_index_list"])}
        elif family == "uniqueness":
            answers[check] |= {"involved": result["unexpected_count"], "rows": list(result["unexpected_index_list"])}
            answers[check]["keys"] = sorted(set(result["unexpected_list"]))
        elif family == "freshness":
            answers[check]["latest"] = str(result["observed_value"])
        elif family == "distribution":
            answers[check]["mean"] = result["observed_value"]
    seconds = time.perf_counter() - begun
    Path(out).write_text(json.dumps({"seconds": seconds, "answers": answers}))


def _named(configuration) -> tuple:
    return configuration.type, configuration.kwargs.get("column")


def _expectations(declared: dict) -> dict[str, list]:
    wanted = declared["validation"]
    asked = {"schema": [gxe.ExpectTableColumnsToMatchOrderedList(column_list=list(wanted["schema"]))]}
    for name, kind in wanted["schema"].items():
        asked["schema"].append(gxe.ExpectColumnValuesToBeOfType(column=name, type_=TYPES[kind]))
    for name in wanted["required_columns"]:
        asked[f"completeness {name}"] = [gxe.ExpectColumnValuesToNotBeNull(column=name)]
    for name in wanted["unique_columns"]:
        asked[f"uniqueness {name}"] = [gxe.ExpectColumnValuesToBeUnique(column=name)]
    for name, (low, high) in wanted["range_constraints"].items():
        asked[f"range {name}"] = [gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)]
    for name, allowed in wanted["categorical_constraints"].items():
        asked[f"categorical {name}"] = [gxe.ExpectColumnValuesToBeInSet(column=name, value_set=allowed)]
    fresh = wanted["freshness"]
    oldest = datetime.fromisoformat(declared["as_of"]) - timedelta(hours=fresh["max_age_hours"])
    name = fresh["timestamp_column"]
    asked[f"freshness {name}"] = [gxe.ExpectColumnMaxToBeBetween(column=name, min_value=oldest)]
    for name, expected in wanted["distribution"].items():
        mean, allowed = expected["expected_mean"], expected["expected_mean"] * expected["tolerance"]
        between = gxe.ExpectColumnMeanToBeBetween(column=name, min_value=mean - allowed, max_value=mean + allowed)
        asked[f"distribution {name}"] = [between]
    return asked


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

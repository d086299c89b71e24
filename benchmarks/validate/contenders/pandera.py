# /// script
# dependencies = ["pandera[polars]==0.35.0", "polars==2.1.0"]
# ///
"""pandera over Polars, lazy (a LazyFrame) or eager (a DataFrame), all errors collected (lazy=True).

On a LazyFrame it checks the schema alone unless the validation depth says otherwise:
https://pandera.readthedocs.io/en/latest/polars.html
It has no freshness and no mean: those are checks of one value each, which tell only whether they passed.
"""

import json
import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

os.environ["PANDERA_VALIDATION_DEPTH"] = "SCHEMA_AND_DATA"

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

TYPES = {"string": pl.String, "int": pl.Int64, "float": pl.Float64, "datetime": pl.Datetime("us", "UTC")}


def main(data: str, checks: str, out: str, mode: str) -> None:
    begun = time.perf_counter()
    declared = json.loads(Path(checks).read_text())
    wanted = declared["validation"]
    found: dict[str, list] = {name: [] for name in wanted["schema"]}
    asked = {("schema", None): "schema"}
    for name in wanted["required_columns"]:
        asked["not_nullable", name] = f"completeness {name}"
    for name in wanted["unique_columns"]:
        asked["field_uniqueness", name] = f"uniqueness {name}"
    for name, (low, high) in wanted["range_constraints"].items():
        found[name].append(pa.Check.in_range(low, high, error="range"))
        asked["range", name] = f"range {name}"
    for name, allowed in wanted["categorical_constraints"].items():
        found[name].append(pa.Check.isin(allowed, error="categorical"))
        asked["categorical", name] = f"categorical {name}"
    fresh = wanted["freshness"]
    oldest = datetime.fromisoformat(declared["as_of"]) - timedelta(hours=fresh["max_age_hours"])
    found[fresh["timestamp_column"]].append(
        pa.Check(lambda rows: rows.lazyframe.select(pl.col(rows.key).max() >= oldest), error="freshness")
    )
    asked["freshness", fresh["timestamp_column"]] = f"freshness {fresh['timestamp_column']}"
    for name, expected in wanted["distribution"].items():
        mean, allowed = expected["expected_mean"], expected["expected_mean"] * expected["tolerance"]
        found[name].append(
            pa.Check(
                lambda rows, mean=mean, allowed=allowed: rows.lazyframe.select(
                    (pl.col(rows.key).mean() - mean).abs() <= allowed
                ),
                error="distribution",
            )
        )
        asked["distribution", name] = f"distribution {name}"
    schema = pa.DataFrameSchema(
        {
            name: pa.Column(
                TYPES[kind],
                checks=found[name],
                nullable=name not in wanted["required_columns"],
                unique=name in wanted["unique_columns"],
            )
            for name, kind in wanted["schema"].items()
        }
    )
    answers = {check: {"passed": True} for check in asked.values()}
    try:
        schema.validate(pl.scan_parquet(data) if mode == "lazy" else pl.read_parquet(data), lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        for (rule, column), rows in cases.group_by("check", "column"):
            check = asked.get((rule, column), "schema")
            answers[check]["passed"] = False
            if rule == "field_uniqueness":
                keys = rows["failure_case"].unique().to_list()
                answers[check] |= {"involved": len(rows), "keys": keys, "rows": rows["index"].to_list()}
            elif rule in ("not_nullable", "range", "categorical"):
                answers[check] |= {"failed": len(rows), "rows": rows["index"].to_list()}
    seconds = time.perf_counter() - begun
    Path(out).write_text(json.dumps({"seconds": seconds, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:5])

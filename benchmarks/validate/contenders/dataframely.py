# /// script
# dependencies = ["dataframely==3.1.2", "polars==2.1.0"]
# ///
"""dataframely: the rows that a schema filters out of a LazyFrame, and their counts by rule.

Only the failing rows are collected, not the valid ones beside them:
https://dataframely.readthedocs.io/en/latest/guides/features/lazy-validation.html
Freshness and the mean are rules over the whole column, which tell only whether they passed.
"""

import json
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import dataframely as dy
import polars as pl


def main(data: str, checks: str, out: str) -> None:
    begun = time.perf_counter()
    declared = json.loads(Path(checks).read_text())
    wanted = declared["validation"]
    fresh, unique = wanted["freshness"], wanted["unique_columns"]
    oldest = datetime.fromisoformat(declared["as_of"]) - timedelta(hours=fresh["max_age_hours"])
    asked = {f"freshness {fresh['timestamp_column']}": "freshness"}
    parts = {"freshness": dy.rule()(lambda _: pl.col(fresh["timestamp_column"]).max() >= oldest)}
    for name, expected in wanted["distribution"].items():
        mean, allowed = expected["expected_mean"], expected["expected_mean"] * expected["tolerance"]
        asked[f"distribution {name}"] = f"distribution_{name}"
        parts[f"distribution_{name}"] = dy.rule()(
            lambda _, name=name, mean=mean, allowed=allowed: (pl.col(name).mean() - mean).abs() <= allowed
        )
    for name, kind in wanted["schema"].items():
        options = {"nullable": name not in wanted["required_columns"], "unique": name in unique}
        if name in wanted["required_columns"]:
            asked[f"completeness {name}"] = f"{name}|nullability"
        if name in unique:
            asked[f"uniqueness {name}"] = f"{name}|unique"
        if name in wanted["range_constraints"]:
            low, high = wanted["range_constraints"][name]
            options["check"] = {"range": lambda column, low=low, high=high: column.is_between(low, high)}
            asked[f"range {name}"] = f"{name}|check__range"
        if name in wanted["categorical_constraints"]:
            words = wanted["categorical_constraints"][name]
            options["check"] = {"categorical": lambda column, words=words: column.is_in(words)}
            asked[f"categorical {name}"] = f"{name}|check__categorical"
        parts[name] = _column(kind, options)
    schema = type("Events", (dy.Schema,), parts)

    answers = {"schema": {"passed": True}}  # it raises otherwise
    _, failure = schema.filter(pl.scan_parquet(data))
    counts, rows = failure.counts(), failure.details()
    for check, rule in asked.items():
        family, count = check.split(" ")[0], counts.get(rule, 0)
        answers[check] = {"passed": count == 0}
        keys = rows.filter(pl.col(rule) == "invalid")[declared["key"]]
        if family in ("completeness", "range", "categorical"):
            answers[check] |= {"failed": count, "keys": keys.to_list()}
        elif family == "uniqueness":
            answers[check] |= {"involved": count, "keys": keys.unique().to_list()}
    seconds = time.perf_counter() - begun
    Path(out).write_text(json.dumps({"seconds": seconds, "answers": answers}))


def _column(kind: str, options: dict) -> dy.Column:
    if kind == "datetime":
        return dy.Datetime(time_unit="us", time_zone="UTC", **options)
    return {"string": dy.String, "int": dy.Int64, "float": dy.Float64}[kind](**options)


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

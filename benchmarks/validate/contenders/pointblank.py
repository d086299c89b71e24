# /// script
# dependencies = ["pointblank==1.1.1", "polars==2.1.0"]
# ///
"""pointblank over Polars, eager (a DataFrame) or lazy (a LazyFrame), with extracts of all failing rows.

The checked tables themselves are not kept, which its documentation says makes the object large:
https://posit-dev.github.io/pointblank/reference/Validate.interrogate.html
https://posit-dev.github.io/pointblank/reference/Validate.data_freshness.html
A null counts as a violation of a range unless it is told otherwise.
"""

import json
import sys
import time
from pathlib import Path

import pointblank as pb
import polars as pl

TYPES = {"string": "String", "int": "Int64", "float": "Float64"}
MOMENT = "Datetime(time_unit='us', time_zone='UTC')"
ROWS = 1000  # more than break any check


def main(data: str, checks: str, out: str, mode: str) -> None:
    begun = time.perf_counter()
    declared = json.loads(Path(checks).read_text())
    wanted = declared["validation"]
    plan = pb.Validate(data=pl.read_parquet(data) if mode == "eager" else pl.scan_parquet(data))
    names = ["schema"]
    plan = plan.col_schema_match(
        pb.Schema(columns=[(name, TYPES.get(kind, MOMENT)) for name, kind in wanted["schema"].items()])
    )
    for name in wanted["required_columns"]:
        names.append(f"completeness {name}")
        plan = plan.col_vals_not_null(columns=name)
    for name in wanted["unique_columns"]:
        names.append(f"uniqueness {name}")
        plan = plan.rows_distinct(columns_subset=name)
    for name, (low, high) in wanted["range_constraints"].items():
        names.append(f"range {name}")
        plan = plan.col_vals_between(columns=name, left=low, right=high, na_pass=True)
    for name, allowed in wanted["categorical_constraints"].items():
        names.append(f"categorical {name}")
        plan = plan.col_vals_in_set(columns=name, set=allowed)
    fresh = wanted["freshness"]
    names.append(f"freshness {fresh['timestamp_column']}")
    plan = plan.data_freshness(
        column=fresh["timestamp_column"],
        max_age=f"{fresh['max_age_hours']} hours",
        reference_time=declared["as_of"],
    )
    for name, expected in wanted["distribution"].items():
        names.append(f"distribution {name}")
        mean = expected["expected_mean"]
        plan = plan.col_avg_eq(columns=name, value=mean, tol=expected["tolerance"])
    plan = plan.interrogate(collect_tbl_checked=False, extract_limit=ROWS)

    failed, extracts = plan.n_failed(), plan.get_data_extracts()
    answers = {}
    for number, check in enumerate(names, start=1):
        family, rows, found = check.split(" ")[0], extracts.get(number), plan.validation_info[number - 1].val_info
        answers[check] = {"passed": failed[number] == 0}
        if family in ("completeness", "range", "categorical"):
            answers[check] |= {"failed": failed[number], "keys": rows[declared["key"]].to_list()}
        elif family == "uniqueness":
            answers[check] |= {"involved": failed[number], "keys": rows[declared["key"]].unique().to_list()}
        elif family == "freshness":
            answers[check]["latest"] = found["max_datetime"].isoformat()
        elif family == "distribution":
            answers[check]["mean"] = found["actual"]
    seconds = time.perf_counter() - begun
    Path(out).write_text(json.dumps({"seconds": seconds, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:5])

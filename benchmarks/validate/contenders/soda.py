# /// script
# dependencies = ["soda-core==4.28.0", "soda-duckdb==4.28.0", "duckdb==2.0.0"]
# ///
"""soda-core 4: a contract, verified on DuckDB over a view of the Parquet file.

From an open connection, as its documentation has it, but with a view where that copies the file into a table:
https://docs.soda.io/soda-v4/reference/data-source-reference-for-soda-core/duckdb-advanced-usage
https://docs.soda.io/soda-v4/reference/contract-language-reference
Without Soda Cloud it counts and returns no rows.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["SODA_CORE_TELEMETRY_ENABLED"] = "false"

import duckdb
from soda_core.contracts import verify_contract_locally
from soda_duckdb import DuckDBDataSource

TYPES = {"string": "varchar", "int": "bigint", "float": "double", "datetime": "timestamp with time zone"}


def main(data: str, checks: str, out: str) -> None:
    begun = time.perf_counter()
    declared = json.loads(Path(checks).read_text())
    duck = duckdb.connect()
    duck.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    duck.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet('{data}')")
    contract = Path("contract.yml")
    contract.write_text(json.dumps(_contract(declared)))  # JSON is YAML
    result = verify_contract_locally(
        data_sources=[DuckDBDataSource.from_existing_cursor(duck, name="duckdb")],
        contract_file_path=str(contract),
        variables={"NOW": declared["as_of"]},
    )
    if result.has_errors:
        raise SystemExit(result.get_errors_str())
    answers = {}
    for found in result.contract_verification_results[0].check_results:
        check, measured = found.check.name, found.diagnostic_metric_values or {}
        family = check.split(" ")[0]
        answers[check] = {"passed": found.is_passed}
        if family == "completeness":
            answers[check]["failed"] = measured["missing_count"]
        elif family == "uniqueness":
            answers[check]["repeating"] = measured["duplicate_count"]
        elif family in ("range", "categorical"):
            answers[check]["failed"] = measured["invalid_count"]
        elif family == "freshness":
            answers[check]["latest"] = found.max_timestamp_utc.isoformat()
        elif family == "distribution":
            answers[check]["mean"] = found.threshold_value
    seconds = time.perf_counter() - begun
    Path(out).write_text(json.dumps({"seconds": seconds, "answers": answers}))


def _contract(declared: dict) -> dict:
    wanted = declared["validation"]
    columns = {name: {"name": name, "data_type": TYPES[kind], "checks": []} for name, kind in wanted["schema"].items()}
    for name in wanted["required_columns"]:
        columns[name]["checks"].append({"missing": {"name": f"completeness {name}"}})
    for name in wanted["unique_columns"]:
        columns[name]["checks"].append({"duplicate": {"name": f"uniqueness {name}"}})
    for name, (low, high) in wanted["range_constraints"].items():
        columns[name]["checks"].append({"invalid": {"name": f"range {name}", "valid_min": low, "valid_max": high}})
    for name, allowed in wanted["categorical_constraints"].items():
        columns[name]["checks"].append({"invalid": {"name": f"categorical {name}", "valid_values": allowed}})
    for name, expected in wanted["distribution"].items():
        mean, allowed = expected["expected_mean"], expected["expected_mean"] * expected["tolerance"]
        between = {"must_be_between": {"greater_than_or_equal": mean - allowed, "less_than_or_equal": mean + allowed}}
        check = {"name": f"distribution {name}", "function": "avg", "threshold": between}
        columns[name]["checks"].append({"aggregate": check})
    fresh = wanted["freshness"]
    freshness = {
        "name": f"freshness {fresh['timestamp_column']}",
        "column": fresh["timestamp_column"],
        "now_variable": "NOW",
        "threshold": {"unit": "hour", "must_be_less_than_or_equal": fresh["max_age_hours"]},
    }
    return {
        "dataset": "duckdb/main/events",
        "variables": {"NOW": {"default": declared["as_of"]}},
        "checks": [{"schema": {"name": "schema"}}, {"freshness": freshness}],
        "columns": [{key: part for key, part in column.items() if part} for column in columns.values()],
    }


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])

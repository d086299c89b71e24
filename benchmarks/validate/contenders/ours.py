# /// script
# dependencies = []
# ///
"""This engine, from this checkout's own environment: a suite over the files as a lazy frame, with all failing rows."""

import json
import sys
import time
from datetime import datetime
from pathlib import Path

import polars as pl

from engine.checks import Suite
from engine.config import parse_validation
from engine.types import DEFAULT_MEMORY_LIMIT

ROWS = 1000  # more than break any check


def main(data: str, checks: str, out: str, memory_limit: str = DEFAULT_MEMORY_LIMIT) -> None:
    begun = time.perf_counter()
    declared = json.loads(Path(checks).read_text())
    suite = Suite(
        parse_validation(declared["validation"]),
        key_columns=[declared["key"]],
        as_of=datetime.fromisoformat(declared["as_of"]),
        memory_limit=memory_limit,
        sample_size=ROWS,
    )
    report = suite.validate(pl.scan_parquet(data)).to_dict()
    seconds = time.perf_counter() - begun
    answers = {}
    for result in report["results"]:
        family, details = result["check_name"].removesuffix("_validation"), result["details"]
        answer = {"passed": result["passed"]}
        if family in ("completeness", "range", "categorical"):
            answer |= {"failed": result["failed_records"], "keys": [row[declared["key"]] for row in result["sample"]]}
        elif family == "uniqueness":
            answer |= {"repeating": result["failed_records"], "involved": details["rows_involved"]}
            answer["keys"] = [repeated["value"] for repeated in details["sample"]]
        elif family == "freshness":
            answer["latest"] = details["latest"]
        elif family == "distribution":
            answer["mean"] = details["actual_mean"]
        if family != "row_count":
            answers[" ".join(filter(None, (family, result["column"])))] = answer
    Path(out).write_text(json.dumps({"seconds": seconds, "answers": answers}))


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:5])

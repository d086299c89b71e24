"""Real, dirty trip data, read and validated as a pipeline; the counts are taken anew with the csv module."""

from __future__ import annotations

import csv
from pathlib import Path

from engine import Pipeline, compile_plan
from engine.inspection import validate

FIXTURES = Path(__file__).parents[1] / "fixtures" / "taxi"


def test_months_of_trips(tmp_path: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(FIXTURES.glob("*.csv"))]
    rows = [row for text in texts for row in csv.DictReader(text.splitlines())]
    assert len(rows) > 500
    pipeline = Pipeline(
        base=tmp_path,
        name="taxi",
        sources={"trips": {"type": "file", "path": str(FIXTURES / "*.csv"), "critical_columns": ["vendor_id"]}},
        validation={
            "trips": {
                "required_columns": ["passenger_count"],
                "range_constraints": {"fare_amount": [0, 50]},
                "categorical_constraints": {"store_and_fwd_flag": ["N"]},
                "freshness": {"timestamp_column": "pickup_datetime", "max_age_hours": 24},
            }
        },
    )
    [judged] = validate(compile_plan(pipeline, "2020-12-31"))
    known = [r for r in rows if r["vendor_id"]]
    assert (judged.metrics.records_read, judged.metrics.records_failed) == (len(rows), len(rows) - len(known))
    assert judged.report is not None
    found = {r.check_name: r for r in judged.report.results}
    fares = [float(r["fare_amount"]) for r in known if r["fare_amount"]]
    assert found["range_validation"].failed_records == sum(not 0 <= f <= 50 for f in fares) > 0
    assert found["range_validation"].details["actual_range"] == [min(fares), max(fares)]
    flags = [r["store_and_fwd_flag"] for r in known if r["store_and_fwd_flag"]]
    assert found["categorical_validation"].failed_records == sum(f != "N" for f in flags)
    assert found["completeness_validation"].details["nulls"] == sum(not r["passenger_count"] for r in known)
    newest = max(r["pickup_datetime"] for r in known).replace(" ", "T")
    assert found["freshness_validation"].to_dict()["details"]["latest"] == f"{newest}Z"
    assert not found["freshness_validation"].passed

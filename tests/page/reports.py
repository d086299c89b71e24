"""Reports for pages: one with everything a run can tell, hostile texts among it, and one of many checks."""

from __future__ import annotations

import random
from typing import Any

HOSTILE = "</style><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&\u202e\x00\ud800"
EMAIL = "ada@example.com"

Json = dict[str, Any]


def check(family: str, column: str | None, passed: bool = True, severity: str = "error", **more: Any) -> Json:
    found = {
        "check_name": f"{family}_validation",
        "passed": passed,
        "severity": "info" if passed else severity,
        "message": f"{column}: {more.get('failed_records', 0)} of 1,000 values are not as they should be",
        "failed_records": 0,
        "details": {},
        "column": column,
        "sample": [],
    }
    return found | more


def validation(results: list[Json], rows: int = 1000) -> Json:
    failed = [r for r in results if not r["passed"]]
    return {
        "version": 1,
        "timestamp": "2025-10-04T00:01:00Z",
        "rows": rows,
        "quarantined": 0,
        "dropped": 0,
        "seconds": 0.1,
        "total_checks": len(results),
        "passed": len(results) - len(failed),
        "failed": len(failed),
        "errors": sum(r["severity"] == "error" for r in failed),
        "warnings": sum(r["severity"] == "warning" for r in failed),
        "results": results,
    }


def source(name: str, results: list[Json], rows: int = 1000, **more: Any) -> Json:
    found = {
        "name": name,
        "location": f"postgresql://db.example.com:5432/shop {name}",
        "state": "accepted",
        "mode": "merge",
        "promise": {"snapshot": "one", "shared": None, "counted": True, "late_commits": "none_missed", "note": None},
        "metrics": {
            "records_read": rows,
            "records_written": rows - 25,
            "records_failed": 20,
            "duplicates_removed": 5,
            "bytes_processed": 123_456,
            "duration_seconds": 1.25,
            "rows_per_second": 800.0,
            "error_rate": 0.02,
            "chunks": 3,
            "chunks_skipped": 1,
            "retries": 2,
            "rows": 12_345,
            "rows_replaced": 7,
            "rows_deleted": 3,
            "failed_by_column": {"contract.price": 11, "user/id~x": 4},
            "values_discarded": {"note": 3},
            "columns": {"order_id": "Int64", "email": "String", "price": "Decimal(10, 2)"},
            "schema_changes": [
                {"column": "note", "change": "added", "before": None, "after": "String", "action": "kept"},
                {
                    "column": "price",
                    "change": "retyped",
                    "before": "Int64",
                    "after": "Decimal(10, 2)",
                    "action": "cast",
                },
            ],
            "per_chunk": [],
        },
        "balance": {
            "read": rows,
            "passed": rows - 25,
            "quarantined": 15,
            "dropped": 5,
            "duplicates_removed": 5,
            "carried_over": {"judged": 12, "quarantined": 1, "dropped": 0},
        },
        "validation": validation(results, rows),
    }
    return found | more


def drift(column: str, passed: bool, labels: list[str]) -> Json:
    draw = random.Random(column)
    before = [draw.random() for _ in labels]
    now = [share * draw.uniform(0.9, 1.1) if passed else draw.random() for share in before]
    bins = [
        {"label": label, "baseline": b / sum(before), "current": n / sum(now)}
        for label, b, n in zip(labels, before, now, strict=True)
    ]
    return check(
        "drift",
        column,
        passed,
        "warning",
        message=f"{column}: PSI 0.31, above 0.2; null rate 8.0 % against 0.1 %",
        details={
            "baseline": {"id": "run 20250927T000000Z-1a2b3c4d", "rows": 980_000},
            "statistics": {"psi": 0.31 if not passed else 0.012, "ks": 0.13, "wasserstein": 1.5e-05, "js": 0.05},
            "thresholds": {"psi": 0.2, "ks": 0.1, "wasserstein": 0.1, "js": 0.1},
            "sample_sizes": {"baseline": 980_000, "current": 1_000},
            "bins": bins,
        },
    )


def profile() -> Json:
    whole = {"count": 1000, "nulls": 80, "distinct": 870, "std": 3.1, "quantiles": []}
    edges = [float(i) for i in range(13)]
    counts = [1, 4, 9, 30, 80, 160, 240, 200, 120, 60, 30, 6]
    histogram = {"edges": edges, "counts": counts}
    text = {"min": EMAIL, "max": "zoe@example.com", "mean": None, "histogram": None}
    columns = [
        {"name": "price", "dtype": "Float64", "min": 0.01, "max": 99.9, "mean": 31.4, "histogram": histogram, **whole},
        {"name": "email", "dtype": "String", "top": [{"value": EMAIL, "count": 3}], **text, **whole},
        {"name": "status", "dtype": "String", "top": [{"value": "paid", "count": 700}], **text, **whole, "nulls": 0},
    ]
    columns[2] |= {"min": "draft", "max": "paid"}
    return {"version": 1, "rows": 1000, "columns": columns}


def everything() -> Json:
    """A run that was blocked, of which everything is told."""
    sample = [
        {"row": i, "origin": "data/orders-2025-10-04.parquet", "origin_row": 100 + i, "order_id": 7 * i, "price": -1.5}
        for i in range(5)
    ]
    results = [
        check("schema", None, message="'created_at' is String, expected datetime", passed=False, severity="warning"),
        check("range", "price", False, failed_records=40, details={"failed_fraction": 0.04}, sample=sample),
        check(
            "pattern",
            HOSTILE,
            False,
            "warning",
            failed_records=3,
            message=f"{HOSTILE}: 3 of 1,000 (0.3 %) {HOSTILE}",
            details={"failed_fraction": 0.003, "on_violation": "quarantine"},
            sample=[{"row": 1, HOSTILE: HOSTILE, "note": None, "long": "x" * 5000}],
        ),
        check("freshness", "updated_at", False, message="the newest is 2025-10-01, 72 h old, allowed 24 h"),
        check("not_null", "order_id", details={"failed_fraction": 0.0}),
        check("completeness", "email", details={"null_fraction": 0.02, "threshold": 0.05}),
        check("uniqueness", "order_id", details={"duplicate_fraction": 0.0}),
        drift("price", False, [f"[{i}, {i + 1})" for i in range(10)]),
        drift("email", False, [EMAIL, "zoe@example.com"]),
        drift("status", True, ["paid", "draft", "a label that is rather longer than a label should ever be"]),
        check(
            "anomaly",
            "null_rate.price",
            False,
            "warning",
            message="null rate 8.0 % against a median of 0.1 % ± 0.05 % over 14 runs",
            details={"history": [0.001, 0.0012, 0.0008, 0.001, 0.0011, 0.0009, 0.001], "value": 0.08},
        ),
    ]
    users = [check("completeness", "user_id", details={"null_fraction": 0.0})]
    view = {
        "name": "user_features",
        "files": ["user_features/event_date=2025-10-04/part-20251004T000000Z.parquet"],
        "rows": [987],
        "again": [],
        "redone": ["user_features/event_date=2025-10-04/part-20251004T000000Z.parquet"],
        "start": {
            "from": "saved state",
            "because": None,
            "rows_read": 1200,
            "new": {"activities": 300},
            "late": {"activities": 2},
            "changed": {"activities": 1},
        },
        "settings": {"hours_per_activity": 1.0},
        "timeless_attributes": {"users": ["experience_years"]},
        "absent_columns": {"users": ["created_at"]},
        "left_out": {"activities": {"null_keys": 3, "null_timestamps": 0}},
        "fit_version": 2,
        "dropped": [4],
        "filled": [{}],
        "clipped": [{"velocity": 3}],
        "all_null": [[]],
    }
    return {
        "version": 1,
        "run_id": "20251004T000000Z-0123abcd",
        "pipeline": "shop",
        "status": "blocked",
        "as_of": ["2025-10-03T00:00:00Z", "2025-10-04T00:00:00Z"],
        "created_timestamp": "2025-10-04T00:00:30.123456Z",
        "sources": [
            source("orders", results, state="blocked", profile=profile(), pii=["email"]),
            source("users", users, rows=2_000_000),
        ],
        "views": [view],
        "feast": {"repo": "/data/repo", "project": "shop", "materialized": []},
        "stages": [
            {"stage": "read", "name": "trips", "seconds": 12.3456, "cpu_seconds": 18.5184},
            {"stage": "check", "name": "trips", "seconds": 1.5, "cpu_seconds": 3.0},
            {
                "stage": "compute",
                "name": "riders",
                "seconds": 3.25,
                "cpu_seconds": 4.0,
                "waited": {"writer": 1.25, "source": 0.001},
                "spans": [[13.8, 15.0], [15.4, 17.5]],
            },
            {"stage": "publish", "name": "riders", "seconds": 0.4, "cpu_seconds": 0.1},
            {"stage": "feast", "name": "register", "seconds": 75.0, "cpu_seconds": 5.0},
        ],
        "seconds": {"read": 12.3456, "check": 1.5, "compute": 3.25, "publish": 0.4, "feast": 75.0},
        "error": None,
        "warnings": ["the alert oncall could not be delivered: HTTP 500, four times"],
    }


def many(checks: int = 1000, failed: int = 500) -> Json:
    """A run with many checks, the failed ones with rows."""
    sample = [
        {"row": i, "origin": "data/part-0001.parquet", "origin_row": i, "key": f"key-{i}", "value": i / 7}
        for i in range(5)
    ]
    results = [
        check(
            "range",
            f"a_column_with_a_name_{i}",
            i >= failed,
            ("error", "warning")[i % 2],
            failed_records=5 if i < failed else 0,
            message=f"a_column_with_a_name_{i}: 5 of 1,000 (0.5 %) values outside [0, 100]; values run from -3 to 1234567",
            details={"failed_fraction": 0.005 if i < failed else 0.0},
            sample=sample if i < failed else [],
        )
        for i in range(checks)
    ]
    return everything() | {
        "sources": [source("wide", results)],
        "status": "blocked",
        "run_id": "20251005T000000Z-0123abcd",
    }

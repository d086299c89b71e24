"""Anomalies against the rule in plain words, over made-up histories and over real runs."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine import Pipeline, run_pipeline
from engine.checks.anomaly import Anomaly, Past
from engine.checks.result import Result
from engine.errors import ConfigError
from engine.plan import compile_plan
from engine.quarantine import replay
from engine.types import Severity

MONDAY = datetime(2025, 9, 29, 6, tzinfo=UTC)
DAY = timedelta(days=1)


def past(when: datetime, rows: int = 100, nulls: int = 0, mean: float | None = 1.0, age: float = 1.0) -> Past:
    newest = (when - timedelta(hours=age)).isoformat()
    value = {"nulls": nulls, "mean": mean, "max": mean, "kind": "number", "count": rows - nulls, "pii": False}
    at = {"nulls": 0, "mean": None, "max": newest, "kind": "moment", "count": rows, "pii": False}
    return Past(when, rows, {"x": value, "at": at})


def anomaly(figure: str, of: str | None = None, runs: int = 14, tolerance: float = 5.0) -> Anomaly:
    return Anomaly(figure, of, Severity.WARNING, runs, tolerance)


def middle(values: list[float]) -> float:
    """The median, by counting: at least half of the values lie on either side of it."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


@given(
    st.lists(st.integers(0, 1000), min_size=0, max_size=20),
    st.integers(0, 2000),
    st.integers(5, 15),
    st.sampled_from([0.5, 3.0, 5.0]),
)
def test_the_rule(history: list[int], rows: int, runs: int, tolerance: float) -> None:
    # On other weekdays than today's, so that all of them are looked at.
    days = [MONDAY + i * timedelta(days=7) for i in range(len(history))]
    found = anomaly("row_count", None, runs, tolerance).judge(
        past(MONDAY + timedelta(days=701), rows), [past(day, n) for day, n in zip(days, history, strict=True)]
    )
    looked_at = [float(n) for n in history[-runs:]]
    assert found.details["history"] == looked_at
    if len(looked_at) < 5:
        assert (found.passed, found.severity) == (True, "info")
        assert "5 are needed" in found.message
        return
    center = middle(looked_at)
    reach = max(tolerance * 1.4826 * middle([abs(n - center) for n in looked_at]), 0.05 * center)
    assume(abs(abs(rows - center) - reach) > 1e-6)
    assert found.passed == (abs(rows - center) < reach)
    assert found.severity == ("info" if found.passed else "warning")


@given(st.lists(st.integers(0, 100), min_size=5, max_size=14), st.integers(0, 100))
def test_fewer_nulls_and_younger_rows_are_no_trouble(history: list[int], nulls: int) -> None:
    days = [MONDAY + i * timedelta(days=7) for i in range(len(history))]
    runs = [past(day, 100, n, age=n / 10) for day, n in zip(days, history, strict=True)]
    now = past(MONDAY + timedelta(days=701), 100, nulls, age=nulls / 10)
    for figure, of, unit, slack in (("null_rate", "x", 0.01, 0.01), ("freshness", "at", 0.1, 1.0)):
        found = anomaly(figure, of).judge(now, runs)
        values = [n * unit for n in history]
        center = middle(values)
        high = center + max(5 * 1.4826 * middle([abs(v - center) for v in values]), slack)
        assume(abs(nulls * unit - high) > 1e-6)
        assert found.passed == (nulls * unit < high)
        assert found.details["value"] == pytest.approx(nulls * unit)
        assert found.details["allowed"][0] is None


def test_mondays_are_held_against_mondays() -> None:
    days = [MONDAY + i * DAY for i in range(56)]
    history = [past(day, 1000 if day.weekday() < 5 else 100) for day in days]
    monday, sunday = past(MONDAY + 56 * DAY, 100), past(MONDAY + 62 * DAY, 100)
    found = anomaly("row_count").judge(monday, history)
    assert not found.passed
    assert found.message == ("rows 100 against a median of 1,000 ± 0 over 8 runs on Mondays; allowed 950 to 1,050")
    assert (found.details["weekday"], found.details["history"]) == ("Monday", [1000.0] * 8)
    assert anomaly("row_count").judge(sunday, history).passed
    # Four Mondays are too few: then the last runs count, whatever their day.
    few = anomaly("row_count").judge(past(MONDAY + 28 * DAY, 1000), history[:28])
    assert few.details["weekday"] is None
    assert len(few.details["history"]) == 14


def test_the_message_explains_the_figures() -> None:
    history = [past(MONDAY + i * DAY, 1000, n) for i, n in enumerate([1, 2, 1, 0, 1, 2, 1, 1, 0, 2, 1, 1, 0, 1])]
    found = anomaly("null_rate", "x").judge(past(MONDAY + 14 * DAY, 1000, 80), history)
    assert (found.passed, found.severity, found.failed_records) == (False, "warning", 0)
    assert found.message == "null rate 8.0 % against a median of 0.10 % ± 0.00 % over 14 runs; allowed up to 1.1 %"
    assert found.name == "anomaly.null_rate.x"
    mean = anomaly("mean", "x").judge(past(MONDAY, mean=0.0), [past(MONDAY - i * DAY, mean=-2.0) for i in range(1, 7)])
    assert mean.message == "mean 0 against a median of -2 ± 0 over 6 runs; allowed -2.1 to -1.9"
    assert mean.details["allowed"] == pytest.approx([-2.1, -1.9])
    old = anomaly("freshness", "at").judge(past(MONDAY, age=30), [past(MONDAY - i * DAY, age=2) for i in range(1, 7)])
    assert old.message == "age of the newest 30 h against a median of 2 h ± 0 h over 6 runs; allowed up to 3 h"


@pytest.mark.parametrize(
    ("figure", "of", "column", "reason"),
    [
        ("mean", "y", None, "the column 'y' is missing"),
        ("null_rate", "y", None, "the column 'y' is missing"),
        ("mean", "y", {"kind": "text"}, "holds no numbers"),
        ("freshness", "y", {"kind": "text"}, "no dates or timestamps"),
        ("mean", "y", {"kind": "number", "pii": True}, "tagged pii"),
    ],
)
def test_what_has_no_such_figure_cannot_run(figure: str, of: str, column: dict[str, Any] | None, reason: str) -> None:
    whole = {"nulls": 0, "mean": None, "max": None, "count": 5, "pii": False}
    now = Past(MONDAY, 5, {} if column is None else {"y": whole | column})
    found = anomaly(figure, of).judge(now, [])
    assert (found.passed, found.severity, found.cannot_run) == (False, "error", True)
    assert reason in found.message


def test_no_value_is_no_anomaly() -> None:
    history = [past(MONDAY - i * DAY) for i in range(1, 10)]
    for figure, of in (("mean", "x"), ("null_rate", "x"), ("freshness", "at")):
        found = anomaly(figure, of).judge(past(MONDAY, rows=0, mean=None), history)
        assert (found.passed, found.severity) == (True, "info")
        assert "there is no value" in found.message
    assert not anomaly("row_count").judge(past(MONDAY, rows=0), history).passed


def frame(rows: int, nulls: int) -> pl.DataFrame:
    totals = [None] * nulls + [10.0 + i % 3 for i in range(rows - nulls)]
    return pl.DataFrame({"id": list(range(rows)), "total": totals}, schema_overrides={"total": pl.Float64})


def judged(folder: Path, data: pl.DataFrame, **keys: Any) -> dict[str, Result]:
    """What a run finds, by check."""
    data.write_parquet(folder / "orders.parquet")
    checks = {"anomalies": {"null_rate": ["total"], "mean": ["total"]}, **keys}
    pipeline = Pipeline(
        base=folder,
        name="shop",
        sources={"orders": {"type": "file", "path": "orders.parquet"}},
        validation={"orders": checks},
    )
    report = run_pipeline(pipeline)
    assert report.sources[0].report is not None
    found = {result.name: result for result in report.sources[0].report.results}
    return found | {"status": Result(report.status, True, Severity.INFO, "")}


def test_runs_are_held_against_those_before(tmp_path: Path) -> None:
    for i in range(5):
        found = judged(tmp_path, frame(1000 + i, 1))
        assert found["anomaly.row_count"].details["runs"] == i
        assert found["anomaly.row_count"].severity == "info"
        assert f"{i} past run" in found["anomaly.row_count"].message
    found = judged(tmp_path, frame(1003, 2))
    assert all(result.passed for result in found.values())
    assert found["anomaly.row_count"].details["median"] == 1002
    found = judged(tmp_path, frame(1000, 80))
    assert {name for name, result in found.items() if not result.passed} == {"anomaly.null_rate.total"}
    assert found["anomaly.null_rate.total"].message.startswith("null rate 8.0 % against a median of 0.10 % ± ")
    assert found["status"].check_name == "done", "a WARNING"
    found = judged(tmp_path, frame(10, 0), severity={"anomaly.row_count": "error"})
    assert not found["anomaly.row_count"].passed
    assert found["status"].check_name == "blocked"
    found = judged(tmp_path, frame(1000, 0))
    assert found["anomaly.row_count"].details["history"][-1] == 1000, "what was blocked is no measure"
    assert 10 not in found["anomaly.row_count"].details["history"]
    assert math.isfinite(found["anomaly.mean.total"].details["spread"])


def test_a_replay_is_no_measure(tmp_path: Path) -> None:
    """Its few rows are neither held against past runs, nor are later runs held against them."""
    keys: dict[str, Any] = {"not_null": ["total"], "on_violation": {"not_null": "quarantine"}}
    for _ in range(5):
        judged(tmp_path, frame(1000, 3), **keys)
    sources = {"orders": {"type": "file", "path": "orders.parquet"}}
    checks = {"anomalies": {"null_rate": ["total"], "mean": ["total"]}, **keys}
    report = replay(Pipeline(base=tmp_path, name="shop", sources=sources, validation={"orders": checks}))
    assert report.sources[0].balance.read == 3
    assert report.sources[0].report is not None
    assert {r.check_name for r in report.sources[0].report.results} == {"not_null_validation", "row_count_validation"}
    found = judged(tmp_path, frame(1000, 3), **keys)
    assert found["anomaly.row_count"].details["history"] == [1000.0] * 5
    assert found["anomaly.row_count"].passed


def test_it_stands_in_the_plan_and_mistakes_are_found(tmp_path: Path) -> None:
    def pipeline(source: dict[str, Any], **anomalies: Any) -> Pipeline:
        sources = {"s": {"type": "file", "path": "a.csv", **source}}
        return Pipeline(base=tmp_path, name="p", sources=sources, validation={"s": {"anomalies": anomalies}})

    plan = compile_plan(pipeline({}, null_rate=["a"], freshness="t", row_count=False), history=False)
    listed = [(c["check_name"], c["column"], c["description"]) for c in plan.to_dict()["checks"]["s"]]
    assert listed[-2:] == [
        ("anomaly_validation", "null_rate.a", "null rate as in the last 14 runs"),
        ("anomaly_validation", "freshness.t", "age of the newest as in the last 14 runs"),
    ]
    with pytest.raises(ConfigError, match="no profile of this source is kept"):
        pipeline({"profile": False})
    with pytest.raises(ConfigError, match="renamed by column_mapping"):
        pipeline({"column_mapping": {"a": "b"}}, mean=["a"])
    with pytest.raises(ConfigError, match="runs"):
        pipeline({}, runs=4)

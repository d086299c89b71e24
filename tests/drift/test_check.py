"""Drift as a check: of files, of what earlier runs kept; declared, passed without a baseline, told in the report."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest

from engine import Pipeline, RunReport, Suite, profile_of, run_pipeline
from engine.checks.result import Result
from engine.checks.shape import SCHEMA
from engine.config import parse_validation
from engine.errors import ConfigError
from engine.inspection import validate
from engine.ledger import Ledger
from engine.plan import compile_plan

RANDOM = np.random.default_rng(6)
QUIET = pl.DataFrame({"x": RANDOM.normal(size=3_000), "k": RANDOM.choice(["a", "b"], 3_000)})
AGAIN = pl.DataFrame({"x": RANDOM.normal(size=3_000), "k": RANDOM.choice(["a", "b"], 3_000)})
MOVED = AGAIN.with_columns(x=pl.col("x") + 1, k=pl.col("k").replace("b", "c"))


def by_name(results: Any) -> dict[str, Result]:
    return {result.name: result for result in results if result.check_name == "drift_validation"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    QUIET.write_parquet("quiet.parquet")
    (tmp_path / "quiet.json").write_text(json.dumps({"version": 1, "profiles": {"t": profile_of(QUIET).to_dict()}}))
    return tmp_path


@pytest.mark.parametrize("drift", [
    {"baseline": "quiet.parquet"},
    {"baseline": {"path": "quiet.parquet"}, "exact": True},
    {"baseline": "quiet.json"},
])  # fmt: skip
def test_a_table_beside_a_file(files: Path, drift: dict[str, Any]) -> None:
    suite = Suite({"drift": drift})
    assert {name: r.passed for name, r in by_name(suite.validate(AGAIN).results).items()} == {
        "drift.x": True,
        "drift.k": True,
        "drift": True,
    }
    report = suite.validate(MOVED)
    found = by_name(report.results)
    assert (report.ok, report.warnings) == (True, 2)
    x, k, table = found["drift.x"], found["drift.k"], found["drift"]
    assert (str(x.severity), x.failed_records, x.details["exceeded"]) == (
        "warning",
        0,
        ["psi", "js", "ks", "wasserstein"],
    )
    assert (x.details["baseline_size"], x.details["current_size"]) == (3_000, 3_000)
    assert x.details["baseline"].startswith("quiet.")
    assert x.details["thresholds"]["ks"] == 0.1
    assert x.details["by"] == ("rows" if drift.get("exact") else "profile")
    assert x.details["statistics"]["ks"] == pytest.approx(0.38, abs=0.03)
    assert len(x.details["bins"]) == 10
    assert sum(b["current"] for b in x.details["bins"]) == pytest.approx(1)
    assert (
        k.details["new_categories"] == [{"value": "c", "count": 1_492}]
        or k.details["new_categories"][0]["value"] == "c"
    )
    assert [c["value"] for c in k.details["vanished_categories"]] == ["b"]
    assert (table.passed, table.details["drifted"], table.details["row_change"]) == (True, ["x", "k"], 0.0)
    jsonschema.validate({"version": 1, "ok": True, "sources": {"t": report.to_dict()}}, SCHEMA)
    assert "D 0.3" in x.message


def test_severities_columns_and_thresholds(files: Path) -> None:
    declared = {
        "baseline": "quiet.parquet",
        "columns": ["x", "lost"],
        "thresholds": {"psi": None, "js": None, "ks": 0.9, "rows": 0.1},
    }
    report = Suite({"drift": declared, "severity": {"drift": "info", "drift.x": "error"}}).validate(MOVED.head(100))
    found = by_name(report.results)
    assert {name: str(r.severity) for name, r in found.items()} == {
        "drift.lost": "error",
        "drift.x": "error",
        "drift": "info",
    }
    assert found["drift.lost"].cannot_run
    assert found["drift.x"].details["exceeded"] == ["wasserstein"]
    assert not found["drift"].passed


def test_a_baseline_that_cannot_be_read_is_no_drift(files: Path) -> None:
    (files / "broken.json").write_text("{")
    for name in ("nowhere.parquet", "broken.json", "nowhere.json"):
        [result] = by_name(Suite({"drift": {"baseline": name}}).validate(AGAIN).results).values()
        assert (result.cannot_run, str(result.severity)) == (True, "error")


@pytest.mark.parametrize(("drift", "message"), [
    ({"baseline": "yesterday"}, "no baseline"),
    ({"baseline": {"last": 3, "run": "r"}}, "at once"),
    ({"baseline": {}}, "names nothing"),
    ({"baseline": "last", "exact": True}, "not at hand"),
    ({"thresholds": {"phi": 1}}, "unknown key 'phi'"),
    ({"bins": 1}, "2"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_is_read(drift: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_validation({"drift": drift})


def shop(folder: Path, rows: pl.DataFrame, baseline: Any, **more: Any) -> Pipeline:
    rows.write_parquet(folder / "rows.parquet")
    checks = {"drift": {"baseline": baseline}, **more.pop("checks", {})}
    source = {"type": "file", "path": "rows.parquet", **more}
    return Pipeline(base=folder, name="shop", sources={"rows": source}, validation={"rows": checks})


def drifts(report: RunReport) -> dict[str, Result]:
    [source] = report.sources
    assert source.report
    return by_name(source.report.results)


def test_runs_are_compared_with_what_earlier_ones_kept(tmp_path: Path) -> None:
    first = run_pipeline(shop(tmp_path, QUIET, "last"))
    [result] = drifts(first).values()
    assert (result.passed, str(result.severity), result.details["baseline"]) == (True, "info", None)
    assert "nothing to compare with yet: no earlier accepted run" in result.message
    second = run_pipeline(shop(tmp_path, AGAIN, "last"))
    assert {n: r.passed for n, r in drifts(second).items()} == {"drift.x": True, "drift.k": True, "drift": True}
    third = run_pipeline(shop(tmp_path, MOVED, "last"))
    assert (third.status, drifts(third)["drift"].details["drifted"]) == ("done", ["x", "k"])
    assert second.run_id in drifts(third)["drift.x"].message
    window = run_pipeline(shop(tmp_path, AGAIN, {"last": 2}))
    assert drifts(window)["drift"].details["baseline_size"] == 6_000
    assert drifts(window)["drift"].details["baseline"] == f"2 runs, {second.run_id} to {third.run_id}"
    named = run_pipeline(shop(tmp_path, AGAIN, {"run": first.run_id}))
    assert drifts(named)["drift"].details["baseline"] == f"run {first.run_id}"
    assert drifts(named)["drift"].details["drifted"] == []
    unknown = run_pipeline(shop(tmp_path, AGAIN, {"run": "never"}))
    assert [r.passed for r in drifts(unknown).values()] == [True]


def test_a_blocked_run_is_no_baseline(tmp_path: Path) -> None:
    run_pipeline(shop(tmp_path, QUIET, "last"))
    block = {"severity": {"drift": "error"}}
    blocked = run_pipeline(shop(tmp_path, MOVED, "last", checks=block))
    assert (blocked.status, blocked.sources[0].state) == ("blocked", "blocked")
    after = run_pipeline(shop(tmp_path, AGAIN, "last", checks=block))
    assert after.status == "done"


def test_the_same_weekday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = datetime(2025, 10, 4, tzinfo=UTC)
    frames = {0: QUIET, 1: MOVED, 6: MOVED, 7: AGAIN}
    for after, frame in frames.items():

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # noqa: ARG003
                return day + timedelta(days=after)  # noqa: B023

        monkeypatch.setattr("engine.run.datetime", Clock)
        report = run_pipeline(shop(tmp_path, frame, "weekday"))
        found = drifts(report)
        if after < 7:
            assert ["on a" in r.message for r in found.values()] == [True], after
    assert found["drift"].details["drifted"] == []
    assert found["drift"].details["baseline_size"] == 3_000


def test_validate_compares_with_what_runs_kept_and_keeps_nothing(tmp_path: Path) -> None:
    run_pipeline(shop(tmp_path, QUIET, "last"))
    [source] = validate(compile_plan(shop(tmp_path, MOVED, "last")))
    assert source.report
    assert by_name(source.report.results)["drift"].details["drifted"] == ["x", "k"]
    with Ledger(tmp_path / ".maestro") as book:
        assert len(book.profiles("shop")) == 1


@pytest.mark.parametrize("exact", [False, True])
def test_values_of_tagged_columns_are_not_in_the_report(tmp_path: Path, exact: bool) -> None:
    QUIET.write_parquet(tmp_path / "quiet.parquet")
    checks = {"drift": {"baseline": {"path": "quiet.parquet"}, "exact": exact}}
    report = run_pipeline(shop(tmp_path, MOVED, "last", pii=["k"], checks=checks))
    found = drifts(report)
    assert (found["drift.k"].passed, found["drift.k"].details["bins"], found["drift.x"].passed) == (True, [], False)


def test_drift_is_about_the_rows_that_are_judged_those_set_aside_among_them(files: Path) -> None:
    checks = {"drift": {"baseline": "quiet.parquet"}, "range_constraints": {"x": [None, 0]}, "on_violation": "drop"}
    report = Suite(parse_validation(checks)).validate(AGAIN)
    assert report.dropped > 1_000
    assert by_name(report.results)["drift.x"].passed

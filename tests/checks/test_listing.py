"""Reports as people see them: printed, on a terminal of any width, with thousands of checks."""

from __future__ import annotations

import io
import re
import sys
from datetime import UTC, datetime
from typing import Any

import jsonschema
import polars as pl
import pytest

from engine import Suite
from engine.checks import Report, Result
from engine.checks.listing import MOST, example
from engine.checks.shape import SCHEMA
from engine.report import show_validation
from engine.types import Severity

FRAME = pl.DataFrame(
    {"user_id": ["a", None, "b"], "score": [1.0, 101.0, -3.0], "note": ["x" * 300, "y\nz", "\x1b[31mred"]}
)
CHECKS: dict[str, Any] = {
    "schema": {"note": "int"},
    "required_columns": ["user_id"],
    "range_constraints": {"score": [0, 100]},
    "categorical_constraints": {"note": ["y"]},
    "lengths": {"score": [1, 2]},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, reports: dict[str, Report], *, width: int = 0, **options: Any) -> list[str]:
    """What `show_validation` prints, on a terminal of a width or (0) to a file."""
    screen = Terminal() if width else io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    for name, value in {"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    show_validation(reports, **options)
    return re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()


def failing(count: int, severity: Severity = Severity.ERROR, passed: int = 0) -> Report:
    results = [
        Result("range_validation", i < passed, Severity.INFO if i < passed else severity, "bad", 1, {}, f"c{i}")
        for i in range(count + passed)
    ]
    return Report(datetime.now(UTC), tuple(results))


def test_printing_a_report() -> None:
    report = Suite({k: CHECKS[k] for k in ("required_columns", "range_constraints")}).validate(FRAME)
    assert repr(report) == "<Report: 3 rows, 1 of 3 checks passed, 1 error, 1 warning>"
    assert str(report).splitlines() == [
        "3 rows, 1 of 3 checks passed, 1 error, 1 warning",
        "  ERROR    completeness.user_id  1  33.3 %  null, allowed 5 %",
        "      row 1: user_id=null",
        "  WARNING  range.score           2  66.7 %  values outside [0, 100]; values run from -3.0 to 101.0",
        "      row 1: score=101.0",
        "      row 2: score=-3.0",
    ]
    assert str(report.results[0]) == "ERROR completeness.user_id: 1 of 3 (33.3 %) null, allowed 5 %"
    assert str(report.results[2]) == "passed row_count: 3 rows, at least 1 expected"
    assert report._repr_html_().startswith("<pre>3 rows")
    assert str(Suite({}).validate(FRAME)) == "3 rows, 1 of 1 check passed"


def test_a_long_report_is_cut() -> None:
    lines = str(failing(10_000)).splitlines()
    assert len(lines) == MOST + 2
    assert lines[-1] == "  … and 9,960 more failed checks"


def test_an_example_says_where_the_row_lies() -> None:
    assert example({"row": 1_234, "id": None}) == "row 1,234: id=null"
    assert example({"row": 1_234, "origin": "a.csv", "origin_row": 4, "id": 7}) == "a.csv row 4: id=7"
    assert example({"row": 5, "origin": "page 3", "origin_row": None, "id": 7}) == "page 3: id=7"
    assert example({"row": 5, "origin": None, "origin_row": None, "id": 7}) == "row 5: id=7"
    assert example({"_row": 5, "row": 7}) == "row 5: row=7"
    assert example({"row": 0}) == "row 0"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("verbose", [False, True])
def test_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int, verbose: bool) -> None:
    report = Suite(CHECKS, key_columns=["user_id"]).validate(FRAME)
    lines = shown(monkeypatch, {"users": report}, width=width, verbose=verbose)
    assert max(map(len, lines)) <= width
    text = "".join(lines)
    for mark in ("ERROR", "WARNING"):
        assert mark in text, "readable without colour"
    assert "\x1b" not in text
    assert ("passed row_count" in " ".join(text.split())) is verbose


def test_the_table_in_a_file_is_a_line_per_check_and_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Suite({k: CHECKS[k] for k in ("required_columns", "range_constraints")}).validate(FRAME)
    assert [line.rstrip() for line in shown(monkeypatch, {"users": report}, verbose=True)] == [
        "users: 3 rows, 1 of 3 checks passed, 1 error, 1 warning",
        "  ERROR    completeness.user_id  1  33.3 %  null, allowed 5 %",
        "      row 1: user_id=null",
        "  WARNING  range.score           2  66.7 %  values outside [0, 100]; values run from -3.0 to 101.0",
        "      row 1: score=101.0",
        "      row 2: score=-3.0",
        "  passed   row_count                        3 rows, at least 1 expected",
    ]


def test_ten_thousand_checks_do_not_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = {"quiet": failing(5_000, Severity.WARNING), "loud": failing(5_000, passed=5_000)}
    lines = shown(monkeypatch, reports, width=80)
    assert len(lines) < MOST + 10
    assert lines[0].startswith("quiet: ")
    assert "and 5,000 more failed checks; all are in --json" in lines[1], "the errors go first"
    assert sum("ERROR" in line for line in lines) == MOST
    assert "and 4,960 more failed checks" in lines[-1]
    assert len(shown(monkeypatch, {"loud": reports["loud"]}, verbose=True)) == 10_001
    only = shown(monkeypatch, reports, errors_only=True)
    assert [line for line in only if line.startswith("quiet")] == []


def test_the_json_is_as_its_schema_says() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for frame in (FRAME, FRAME.clear(), FRAME.drop("score")):
        report = Suite(CHECKS).validate(frame)
        whole = {"version": 1, "ok": report.ok, "sources": {"users": report.to_dict()}}
        validator.validate(whole)
        assert not validator.is_valid({**whole, "version": 2})
        for key in report.to_dict():
            assert not validator.is_valid(
                {**whole, "sources": {"users": {k: v for k, v in report.to_dict().items() if k != key}}}
            )
    assert list(SCHEMA["$defs"]["report"]["properties"]) == list(report.to_dict())
    assert list(SCHEMA["$defs"]["result"]["properties"]) == list(report.results[0].to_dict())

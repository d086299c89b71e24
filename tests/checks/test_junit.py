"""JUnit XML: what fails a build, what only says so, and that the file is whole and readable whatever the data holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from engine import Suite, junit
from engine.checks import Report, Result
from engine.errors import SinkError, SourceError, UsageError
from engine.types import Severity

SCORES = pl.DataFrame({"user_id": ["a", "b", "b"], "score": [1.0, 101.0, -3.0], "status": ["on", "off", "on"]})
CHECKS: dict[str, Any] = {
    "unique_columns": ["user_id"],
    "range_constraints": {"score": [0, 100]},
    "categorical_constraints": {"status": ["on", "off"]},
    "lengths": {"score": [1, 2]},
    "severity": {"categorical": "warning"},
}


def written(path: Path, *reports: Report, **options: Any) -> ElementTree.Element:
    junit.write(path, {f"table{i}": report for i, report in enumerate(reports)}, **options)
    return ElementTree.parse(path).getroot()


def outcomes(root: ElementTree.Element) -> dict[str, list[str]]:
    """Per case, the elements that say how it went."""
    return {
        f"{case.get('classname')}.{case.get('name')}": [child.tag for child in case if child.tag != "properties"]
        for case in root.iter("testcase")
    }


def test_only_errors_fail_a_build(tmp_path: Path) -> None:
    report = Suite(CHECKS).validate(SCORES)
    root = written(tmp_path / "checks.xml", report)
    assert outcomes(root) == {
        "table0.uniqueness.user_id": ["failure"],
        "table0.range.score": ["system-out"],
        "table0.categorical.status": [],
        "table0.length.score": ["error"],
        "table0.row_count": [],
    }
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "1", "1")
    strict = written(tmp_path / "checks.xml", report, strict=True)
    assert outcomes(strict)["table0.range.score"] == ["failure"]
    assert strict.get("failures") == "2"


def test_a_failure_tells_what_and_which_rows(tmp_path: Path) -> None:
    root = written(tmp_path / "checks.xml", Suite(CHECKS, key_columns=["user_id"]).validate(SCORES))
    [failure] = root.iter("failure")
    assert failure.get("type") == "uniqueness_validation"
    assert "1 of 3 (33.3 %) rows repeat an earlier one" in str(failure.get("message"))
    [said] = root.iter("system-out")
    assert said.text is not None
    assert said.text.splitlines() == [
        "WARNING range.score: 2 of 3 (66.7 %) values outside [0, 100]; values run from -3.0 to 101.0",
        "row 1: user_id='b', score=101.0",
        "row 2: user_id='b', score=-3.0",
    ]
    [error] = root.iter("error")
    assert error.get("type") == "cannot_run"
    assert "Float64, which has no length" in str(error.get("message"))


def test_what_a_suite_says_of_itself(tmp_path: Path) -> None:
    moment = datetime(2025, 10, 4, 6, 30, 15, 999_999, tzinfo=UTC)
    results = tuple(Result("range_validation", True, Severity.INFO, "fine", column=c) for c in "ab")
    root = written(
        tmp_path / "checks.xml",
        Report(moment, results, rows=10, quarantined=3, dropped=1, seconds=0.5),
        Report(moment, results[:1], seconds=0.25),
        name="work",
        properties={"run_id": "r1"},
    )
    assert root.attrib == {"name": "work", "tests": "3", "failures": "0", "errors": "0", "time": "0.750"}
    first, second = root
    assert first.attrib == {
        "name": "table0",
        "tests": "2",
        "failures": "0",
        "errors": "0",
        "timestamp": "2025-10-04T06:30:15",
        "time": "0.500",
    }
    properties = {p.get("name"): p.get("value") for p in first.find("properties") or ()}
    assert properties == {"run_id": "r1", "rows": "10", "quarantined": "3", "dropped": "1"}
    assert [case.get("time") for case in first.iter("testcase")] == ["0.250", "0.250"]
    assert "rows" not in {p.get("name") for p in second.find("properties") or ()}


def test_characters_that_xml_cannot_hold_are_replaced(tmp_path: Path) -> None:
    odd = "a\x00\x1b[31m<b>&\"'\ud800\ufffe]]>☃\U0001f40d"
    result = Result("range_validation", False, Severity.ERROR, odd, 1, {}, odd, ({"row": 0, odd: odd},))
    root = written(tmp_path / "checks.xml", Report(datetime.now(UTC), (result,)), name=odd)
    kept = "a\ufffd\ufffd[31m<b>&\"'\ufffd\ufffd]]>☃\U0001f40d"
    assert root.get("name") == kept
    [case] = root.iter("testcase")
    assert case.get("name") == f"range.{kept}"
    [failure] = case.iter("failure")
    assert failure.get("message") == kept


def test_ten_thousand_checks(tmp_path: Path) -> None:
    results = tuple(
        Result("range_validation", False, Severity.ERROR, "bad", 1, {}, f"c{i}", ({"row": i},)) for i in range(10_000)
    )
    root = written(tmp_path / "checks.xml", Report(datetime.now(UTC), results))
    assert root.get("failures") == "10000", "a CI system pages by itself"


def test_an_error_is_a_case_too(tmp_path: Path) -> None:
    path = tmp_path / "checks.xml"
    path.write_text("of an earlier run")
    junit.write_error(path, SourceError("gone", code="source.gone", where="sources.users", fix="bring it"), name="work")
    root = ElementTree.parse(path).getroot()
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    [error] = root.iter("error")
    assert (error.get("type"), error.get("message")) == ("source.gone", "gone")
    assert error.text is not None
    assert "fix: bring it" in error.text


@pytest.mark.parametrize(
    ("target", "words"), [("none/checks.xml", "there is no folder"), (".", "it is a folder"), ("a.txt/x", "no folder")]
)
def test_a_target_that_cannot_be(tmp_path: Path, target: str, words: str) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match=words) as caught:
        junit.check_target(tmp_path / target)
    assert (caught.value.exit_code, caught.value.where) == (2, "--junit")
    junit.check_target(tmp_path / "checks.xml")


def test_the_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checks.xml"
    path.write_text("before")

    def full(_path: Path, _text: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SinkError, match="No space left"):
        junit.write(path, {"t": Report(datetime.now(UTC), ())})
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "checks.xml"
    link.symlink_to(tmp_path / "there" / "real.xml")
    written(link, Report(datetime.now(UTC), ()))
    assert link.is_symlink()
    assert (tmp_path / "there" / "real.xml").read_text().startswith("<?xml")

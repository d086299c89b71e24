"""What a verdict rests on: where repeats lie, how long judging took, which rows, and that a check that turns out unable
to run says nothing and takes nothing aside."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from engine import junit
from engine.checks import Result, Suite
from engine.checks.aside import Quarantine
from engine.checks.suite import Judgement
from engine.errors import DataError

SIZES = (1, 3, 50, 200_000)


def judged(suite: Suite, frame: pl.DataFrame, size: int, **context: Any) -> tuple[Judgement, dict[str, Result]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.frames.BATCH_ROWS", size)
        judgement = suite.judge(frame, **context)
    return judgement, {suite.checks[i].name: result for i, result in judgement.results.items()}


@pytest.mark.parametrize("memory_limit", ["1KiB", "512MiB"])
@pytest.mark.parametrize("order", list(permutations([5, 3, 4])))
def test_each_repeat_knows_where_it_came_from(
    order: tuple[int, ...], memory_limit: str, monkeypatch_grouping: Any
) -> None:
    """Whatever the order of the repeats, and of the origins as they are given; with 1KiB all rows are grouped."""
    frame = pl.DataFrame({"id": [*range(150), *order], "name": [f"n{i}" for i in range(153)]})
    origins = pl.DataFrame({"start": [102, 0, 51], "origin": ["c", "a", "b"], "row": [1, 0, 1000]})
    with monkeypatch_grouping(memory_limit):
        suite = Suite({"unique_columns": ["id"]}, key_columns=["name"])
        found = judged(suite, frame, 200_000, origins=origins)[1]["uniqueness.id"]
    last = {value: 150 + order.index(value) for value in order}
    assert found.failed_records == 3
    assert found.details["sample"] == [
        {"value": value, "rows": 2, "first_row": value, "last_row": last[value]} for value in (3, 4, 5)
    ]
    assert found.sample == tuple(
        {"row": last[v], "origin": "c", "origin_row": last[v] - 101, "name": f"n{last[v]}", "id": v} for v in (3, 4, 5)
    )


def test_the_time_that_judging_took(tmp_path: Path) -> None:
    report = Suite({"not_null": ["a"]}).validate(pl.DataFrame({"a": [1, None]}))
    assert report.seconds > 0
    junit.write(tmp_path / "j.xml", {"t": report})
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert [element.get("time") for element in root.iter("testsuite")] == [f"{report.seconds:.3f}"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("on_violation", ["quarantine", "drop"])
def test_a_check_that_turns_out_unable_to_run_is_as_if_it_were_not_there(
    size: int, on_violation: str, tmp_path: Path
) -> None:
    """That no text is a moment shows only at the end, when its rows have been set aside."""
    frame = pl.DataFrame({"t": ["x", "y", None, "z"], "v": [1, 9, 1, None]})
    others: dict[str, Any] = {
        "not_null": ["v"],
        "unique_columns": ["v"],
        "distribution": {"v": 1},
        "custom": {"c": "t <> 'z'"},
        "on_violation": {"range": on_violation, "custom": "quarantine"},
    }
    path = tmp_path / "aside.parquet"
    with_it = Suite({**others, "range_constraints": {"t": ["2020-01-01", None]}})
    judgement, found = judged(with_it, frame, size, quarantine=Quarantine(path))
    bad = found.pop("range.t")
    assert (bad.cannot_run, bad.failed_records, str(bad.severity)) == (True, 0, "error")
    assert "no text in the column 't'" in bad.message
    assert (judgement.rows, judgement.quarantined, judgement.dropped) == (4, 1, 0)
    assert pl.read_parquet(path).drop("quarantine").rows() == [("z", None)]
    assert found == judged(Suite(others), frame, size, quarantine=Quarantine(tmp_path / "other.parquet"))[1]
    assert found["uniqueness.v"].failed_records == 1
    report = with_it.validate(frame)
    assert (report.quarantined, report.dropped) == (1, 0)


@pytest.mark.parametrize("size", SIZES)
def test_a_condition_that_names_no_column_is_about_every_row(size: int) -> None:
    """Also where no other check reads a column, or there is no row."""
    frame = pl.DataFrame({"a": [1, 2, None], "b": ["x", "y", "z"]})
    suite = Suite({"custom": {"never": "1 = 2", "always": "1 = 1", "unknown": "NULL"}})
    found = judged(suite, frame, size)[1]
    assert {name: result.failed_records for name, result in found.items()} == {
        "custom.never": 3, "custom.always": 0, "custom.unknown": 0, "row_count": 0
    }  # fmt: skip
    assert [row["row"] for row in found["custom.never"].sample] == [0, 1, 2]
    assert found["custom.never"].details["failed_fraction"] == 1.0
    assert judged(suite, frame.head(0), size)[1]["custom.never"].passed
    good, bad = Suite({"custom": {"never": "1 = 2"}}).filter(frame)
    assert (good.collect().height, bad.collect().height) == (0, 3)
    apart = Suite({"unique_columns": ["a"], "where": {"uniqueness": "1 = 2"}})
    assert judged(apart, pl.DataFrame({"a": [1, 1]}), size)[1]["uniqueness.a"].details["rows_judged"] == 0


@pytest.mark.parametrize("size", SIZES)
def test_increasing_compares_judged_rows_with_judged_rows(size: int) -> None:
    frame = pl.DataFrame({"v": [1, 100, 2, 50, None, 1, 3], "k": ["a", "b", "a", "b", "a", "a", None]})
    suite = Suite({"increasing": ["v"], "where": {"increasing": "k = 'a'"}})
    found = judged(suite, frame, size)[1]["increasing.v"]
    assert ([row["row"] for row in found.sample], found.details["rows_judged"]) == ([5], 4)
    bad = suite.filter(frame)[1].collect()
    assert bad["v"].to_list() == [1]


RULES = """
import polars as pl

def fussy():
    return pl.col("a").map_elements(check, return_dtype=pl.Boolean)

def check(value):
    if value == 3:
        raise ValueError("three is too much")
    return True
"""


@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
@pytest.mark.parametrize("size", SIZES)
def test_a_function_that_fails_on_a_value(size: int, tmp_path: Path) -> None:
    (tmp_path / "maestro_fussy_rules.py").write_text(RULES)
    frame = pl.DataFrame({"a": [1, 2, 3, None]})
    config: dict[str, Any] = {"custom": {"f": {"function": "maestro_fussy_rules:fussy"}}, "not_null": ["a"]}
    found = judged(Suite(config, base=tmp_path), frame, size)[1]
    assert found["custom.f"].cannot_run
    assert "maestro_fussy_rules:fussy: three is too much" in found["custom.f"].message
    assert found["not_null.a"].failed_records == 1
    halves = Suite(config, base=tmp_path).filter(frame)
    for half in halves:
        with pytest.raises(DataError, match="three is too much") as caught:
            half.collect()
        assert caught.value.code == "checks.cannot_run"
    assert Suite(config, base=tmp_path).filter(frame.head(2))[0].collect().height == 2

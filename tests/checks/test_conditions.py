"""Users' SQL and Python: what they may name, and that they reach nothing but the rows they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.checks import Result, Suite
from engine.errors import DataError
from engine.spec import ValidationSpec

pytestmark = pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")

SIZES = (1, 2, 3, 200_000)
NAMES = pl.DataFrame(
    {
        "two words": [1, 2, 3],
        'quo"ted': [4, 5, 6],
        "it's": [1, 2, None],
        "select": [1, 1, 9],
        "Mixed": [1, 2, 3],
        "a": [1, 2, 3],
        "A": [3, 2, 1],
        "batch": [1, 2, 3],
        "é": [1, 2, 3],
        "semi;colon --": [1, 2, 3],
        "s": ["x", "y", None],
        "st": [{"k": 1}, {"k": 2}, None],
        "l": [[1, 5], [2], []],
        "f": [1.0, float("nan"), 3.0],
        "t": [True, False, None],
    }
)


def judge(frame: Any, size: int = 200_000, base: Path | None = None, **config: Any) -> dict[str, Result]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.frames.BATCH_ROWS", size)
        suite = Suite(ValidationSpec(**config), base=base)
        return {c.name: r for c, r in zip(suite.checks, suite.validate(frame).results, strict=True)}


def refuses_to_split(suite: Suite, frame: pl.DataFrame) -> None:
    """At once, or, where it depends on values, when a frame is collected."""
    with pytest.raises(DataError, match=r"checks\.cannot_run"):
        suite.filter(frame)[0].collect()
    with pytest.raises(DataError, match=r"checks\.cannot_run"):
        suite.filter(frame)[1].collect()


@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize(
    ("condition", "broken"),
    [
        ('"two words" > 1', [0]),
        ('"quo""ted" <> 5', [1]),
        ('"it\'s" > 1', [0]),
        ('"select" < 9', [2]),
        ("mixed > 1 AND MIXED < 3", [0, 2]),
        ("batch > 1", [0]),
        ('"é" = 1', [1, 2]),
        ('"semi;colon --" < 3', [2]),
        ("s = 'x' -- whatever it says", [1]),
        ("s = 'x' /* or ; drop */", [1]),
        ("s = 'a; drop table batch' OR s = 'x'", [1]),
        ("st.k > 1", [0]),
        ("list_contains(l, 5)", [1, 2]),
        ("f > 1", [0]),
        ("f IS NULL", [0, 2]),
        ("t", [1]),
        ("NOT t", [0]),
        ("CASE WHEN batch = 2 THEN NULL ELSE batch = 1 END", [2]),
        ("NULL", []),
        ("NULL::BOOLEAN", []),
        ("false", [0, 1, 2]),
        ("1 = 1", []),
    ],
)
def test_conditions(condition: str, broken: list[int], size: int) -> None:
    """Each by itself, among others, and as a condition of what is judged."""
    alone = judge(NAMES, size, custom={"c": condition})["custom.c"]
    among = judge(NAMES, size, custom={"c": condition, "d": "batch > 0"}, not_null=["batch"])["custom.c"]
    for result in (among, alone):
        assert "cannot_run" not in result.details, result.message
        assert result.failed_records == len(broken)
        assert [row["row"] for row in result.sample] == broken
        assert result.details["failed_fraction"] == len(broken) / 3
    away = judge(NAMES, size, range_constraints={"batch": (9, None)}, where=f"({condition}\n) IS FALSE")["range.batch"]
    assert (away.failed_records, away.details["rows_judged"]) == (len(broken), len(broken))
    good, bad = Suite({"custom": {"c": condition}}).filter(NAMES)
    assert (good.collect().height, bad.collect().height) == (3 - len(broken), len(broken))


@pytest.mark.parametrize("condition", ["len(list_filter(l, lambda x: x > 1)) > 1", "len([x for x in l if x > 1]) > 1"])
def test_conditions_with_functions_of_their_own(condition: str) -> None:
    """The parameter of a lambda is no column."""
    result = judge(pl.DataFrame({"l": [[1, 5], [2, 3]]}), custom={"c": condition})["custom.c"]
    assert "cannot_run" not in result.details, result.message
    assert [row["row"] for row in result.sample] == [0]


@pytest.mark.parametrize(
    "condition",
    [
        "batch) from batch; drop table batch",
        "batch > 1) FROM batch; SELECT (true",
        "batch > 1); DROP TABLE batch; SELECT (true",
        "true) UNION ALL SELECT (true",
        "true\n) UNION ALL SELECT (true",
        "true) FROM batch WHERE (batch > 1",
        "true), (batch > 1",
        "batch > 1) AS y, (true",
        "batch > 1; SELECT 1",
        "read_csv('/etc/passwd')",
        "read_text('/etc/passwd') IS NULL",
        "true) FROM read_csv('/etc/passwd'",
        "(SELECT true)",
        "EXISTS (FROM batch)",
        "batch IN (SELECT 1)",
        "batch > (SELECT count(*) FROM '/etc/passwd')",
        "getenv('HOME') = ''",
        "PRAGMA version",
        "SET memory_limit = '1GB'",
        "COPY batch TO 'stolen.csv'",
        "row_number() OVER () > 1",
        "lag(batch) OVER (ORDER BY batch) > 1",
        "sum(batch) > 1",
        "count(*) > 0",
        "list(batch) IS NOT NULL",
        "batch > 1 ORDER BY 1",
        "batch > 1 /*",
        "*",
        "COLUMNS('batch') > 1",
        "$1",
        "?",
        "a > 1",
        "A > 1",
        "nope > 1",
        "nope.batch > 1",
        "rowid > 0",
        "batch",
        "s",
        "'true'",
        "1",
        "batch >",
        "unnest(l) > 0",
        "unnest([true])",
        "#1 > 0",
        "s::INT > 1",
    ],
)
def test_what_is_no_condition_cannot_run(condition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of rows; other checks answer all the same, and nothing is touched."""
    monkeypatch.chdir(tmp_path)
    for frame in (NAMES, NAMES.head(1)):
        for size in (1, 200_000):
            found = judge(frame, size, custom={"c": condition, "d": "mixed > 1"}, not_null=["it's"])
            bad = found["custom.c"]
            assert (bad.passed, bad.severity, bad.failed_records) == (False, "error", 0), bad.message
            assert bad.details["cannot_run"]
            assert bad.details["reason"]
            assert "cannot_run" not in found["custom.d"].details
            assert found["custom.d"].failed_records == 1
            assert found["not_null.it's"].failed_records == frame.height // 3
    where = judge(
        NAMES, not_null=["it's"], where=condition, range_constraints={"batch": (0, 2)}, required_columns=["s"]
    )
    assert all(r.details.get("cannot_run") for name, r in where.items() if name != "row_count")
    assert where["row_count"].details["rows"] == 3
    refuses_to_split(Suite({"custom": {"c": condition}}), NAMES)
    assert not list(tmp_path.iterdir())


def test_a_condition_that_fails_on_a_value_stops_no_other() -> None:
    frame = pl.DataFrame({"s": ["1", "2", "x", "4"]})
    for size in SIZES:
        found = judge(
            frame,
            size,
            custom={"bad": "s::INT > 1", "good": "s <> '2'", "bad too": "CAST(s AS DATE) IS NULL"},
            unique_columns=["s"],
            where={"uniqueness": "s::INT > 0"},
            patterns={"s": "[0-9]"},
        )
        assert [n for n, r in found.items() if r.details.get("cannot_run")] == [
            "uniqueness.s",
            "custom.bad",
            "custom.bad too",
        ]
        assert (found["custom.good"].failed_records, found["pattern.s"].failed_records) == (1, 1)
        assert "s::INT > 1" in found["custom.bad"].message


def test_lists_whose_lengths_make_up_for_each_other() -> None:
    """As many values as rows are no values of the rows."""
    found = judge(pl.DataFrame({"l": [[], [1, 2], [3]]}), custom={"c": "unnest(l) > 1"})
    assert found["custom.c"].details.get("cannot_run")


# --- functions ----------------------------------------------------------------------------------------------------------

RULES = """
import polars as pl

def plain(): return pl.col("a") > 1
def nothing(): return pl.lit(None, dtype=pl.Boolean)
def constant(): return pl.lit(False)
def everywhere(): return pl.all_horizontal(pl.all() > 1)
def by_pattern(): return pl.all_horizontal(pl.col("^.$") > 1)
def mean(): return pl.col("a") >= pl.col("a").mean()
def least(): return pl.col("a") > pl.col("a").min()
def shifted(): return pl.col("a") >= pl.col("a").shift(1)
def shifted_and_filled(): return pl.col("a") >= pl.col("a").shift(1).fill_null(pl.col("a"))
def running(): return pl.col("a").cum_sum() > 1
def once(): return ~pl.col("a").is_duplicated()
def first(): return pl.col("a").is_first_distinct()
def window(): return pl.len().over("a") == 1
def ordered(): return pl.col("a").sort() > 1
def position(): return pl.int_range(pl.len()) > 0
def number(): return pl.col("a")
def several(): return pl.col("a", "b") > 1
def divides(): return pl.col("a").map_elements(lambda v: 6 // (v - 2) > 0, return_dtype=pl.Boolean)
def missing(): return pl.col("nope") > 1
def derived(): return pl.col("whether a > 1")
def no_expression(): return "a > 1"
def raises(): raise RuntimeError("no")
def interrupts():
    def stop(values): raise KeyboardInterrupt
    return pl.col("a").map_batches(stop, return_dtype=pl.Boolean, is_elementwise=True)
"""
AB = pl.DataFrame({"a": [3, 1, 2, 1, None], "b": [2, 2, 1, 2, 2]})


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "maestro_rules_of_a_test.py").write_text(RULES)
    return tmp_path


def function(name: str) -> dict[str, Any]:
    return {"r": {"function": f"maestro_rules_of_a_test:{name}"}}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("plain", [1, 3]),
        ("everywhere", [1, 2, 3]),
        ("by_pattern", [1, 2, 3]),
        ("nothing", []),
        ("constant", [0, 1, 2, 3, 4]),
    ],
)
def test_functions(name: str, broken: list[int], size: int, rules: Path) -> None:
    """They see the table's own columns, all of them, whatever other checks read."""
    for others in ({}, {"not_null": ["b"], "where": {"not_null": "b > 0"}}):
        result = judge(AB, size, rules, custom=function(name), **others)["custom.r"]
        assert "cannot_run" not in result.details, result.message
        assert [row["row"] for row in result.sample] == broken
        assert result.details["failed_fraction"] == len(broken) / 5


@pytest.mark.parametrize("name", ["everywhere", "by_pattern"])
def test_functions_see_no_column_that_other_checks_make(name: str, rules: Path) -> None:
    """Such as the numbers of rows, by which foreign keys are found."""
    spec = ValidationSpec.model_validate({"custom": function(name), "foreign_keys": {"b": "u.b"}})
    good, bad = Suite(spec, base=rules).filter(AB, references={"u": AB.select("b")})
    assert bad.collect()["failed_checks"].to_list() == [["custom.r"]] * 3
    assert good.collect().rows() == [AB.row(0), AB.row(4)]


UNFIT = [
    "mean",
    "least",
    "shifted",
    "shifted_and_filled",
    "running",
    "once",
    "first",
    "window",
    "ordered",
    "position",
    "number",
    "several",
    "divides",
    "missing",
    "derived",
    "no_expression",
    "raises",
    "absent",
]


@pytest.mark.parametrize("name", UNFIT)
def test_functions_that_cannot_run(name: str, rules: Path) -> None:
    """Also where the first rows, or batches of one row, show nothing wrong; other checks answer."""
    frames = [AB, AB.sort("a", nulls_last=True)]
    for frame in frames:
        for size in SIZES:
            found = judge(frame, size, rules, custom=function(name), not_null=["a"], where={"not_null": "b > 1"})
            result = found["custom.r"]
            assert result.details.get("cannot_run"), result.message
            assert (result.passed, result.severity, result.failed_records) == (False, "error", 0)
            assert found["not_null.a"].failed_records == 1


@pytest.mark.parametrize("name", UNFIT)
def test_functions_that_cannot_run_split_no_rows(name: str, rules: Path) -> None:
    refuses_to_split(Suite(ValidationSpec(custom=function(name)), base=rules), AB)


def test_a_function_that_looks_harmless_at_first(rules: Path) -> None:
    """What repeats nothing in the first thousand rows may do so later."""
    frame = pl.DataFrame({"a": [*range(2_000), 5]})
    assert judge(frame, 1_500, rules, custom=function("once"))["custom.r"].details.get("cannot_run")


def test_an_interrupt_in_a_function_passes(rules: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        judge(AB, custom=function("interrupts"), base=rules)


def test_modules_of_two_folders(tmp_path: Path) -> None:
    """The folder of a pipeline is looked into first, also after another pipeline's module of that name."""
    found = []
    for folder, limit in (("one", 1), ("two", 2)):
        base = tmp_path / folder
        base.mkdir()
        (base / "maestro_twins.py").write_text(f"import polars as pl\ndef rule(): return pl.col('a') > {limit}\n")
        found.append(judge(AB, base=base, custom={"r": {"function": "maestro_twins:rule"}})["custom.r"].failed_records)
    assert found == [2, 3]

"""Rows set aside, judged in parts, and split: against the oracle, with batches so small that all borders are crossed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine.checks import Result, Suite, aside
from engine.checks.aside import Quarantine
from engine.checks.suite import Judgement
from engine.spec import ValidationSpec

from . import oracle
from .oracle import Row, Rule
from .test_rows import frames

AS_OF = datetime(1970, 1, 2, tzinfo=UTC)
SIZES = (1, 2, 3, 7, 200_000)
SOME = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARENTS = pl.DataFrame({"id": [0, 1, 2, 3, None]})
TABLES = frames(i="Int8", j="Int64", f="Float64", s="Enum", d="Date", l="List of ints").map(
    lambda frame: frame.with_columns(pl.col("s").cast(pl.String), pl.col("j") % 5)
)


def is_positive(row: Row) -> bool | None:
    """``i + j > 0`` in SQL."""
    return None if row["i"] is None or row["j"] is None else row["i"] + row["j"] > 0


POOL: dict[str, tuple[dict[str, Any], Callable[[oracle.Rows], oracle.Broken], str]] = {
    "completeness.d": (
        {"required_columns": ["d"], "max_null_percentage": 0.25},
        lambda r: oracle.nulls(r, "d"),
        "error",
    ),
    "not_null.f": ({"not_null": ["f"]}, lambda r: oracle.nulls(r, "f"), "error"),
    "range.j": ({"range_constraints": {"j": (1, 3)}}, lambda r: oracle.beyond(r, "j", 1, 3), "warning"),
    "categorical.s": (
        {"categorical_constraints": {"s": ["a", "é"]}},
        lambda r: oracle.no_category(r, "s", ("a", "é")),
        "error",
    ),
    "pattern.s": ({"patterns": {"s": "^[a-z]"}}, lambda r: oracle.unmatched(r, "s", "^[a-z]"), "error"),
    "length.l": ({"lengths": {"l": (1, 2)}}, lambda r: oracle.misfit(r, "l", 1, 2), "error"),
    "increasing.i": ({"increasing": ["i"]}, lambda r: oracle.falls(r, "i", False), "error"),
    "compare.j < f": (
        {"compare": [{"left": "j", "operator": "<", "right": "f"}]},
        lambda r: oracle.disordered(r, "j", "<", "f"),
        "error",
    ),
    "foreign_key.j": (
        {"foreign_keys": {"j": "u.id"}},
        lambda r: oracle.orphans(r, ("j",), PARENTS.to_dicts(), ("id",)),
        "error",
    ),
    "custom.positive": (
        {"custom": {"positive": "i + j > 0"}},
        lambda r: [is_positive(row) is False for row in r],
        "error",
    ),
}
WHERES: dict[str, Callable[[Row], bool | None]] = {
    "j > 1": lambda r: None if r["j"] is None else r["j"] > 1,
    "f IS NULL": lambda r: oracle.known(r["f"]) is None,
    "s = 'a' OR i > 0": lambda r: (
        True if r["s"] == "a" or (r["i"] or 0) > 0 else None if r["s"] is None or r["i"] is None else False
    ),
    "NOT (d < DATE '1970-01-01')": lambda r: None if r["d"] is None else not str(r["d"]) < "1970-01-01",
}
SHARES = st.one_of(st.integers(0, 4), st.sampled_from(["0%", "10%", "33.3%", "50%", "100%"]))


@st.composite
def declared(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Rule]]:
    """A declaration, and the same as rules."""
    config: dict[str, Any] = {"on_violation": {}, "max_failed": {}, "where": {}, "severity": {}}
    rules = {}
    for name in sorted(draw(st.sets(st.sampled_from(sorted(POOL)), min_size=1))):
        part, broken, severity = POOL[name]
        config.update(part)
        rule = Rule(broken, severity, max_null_fraction=0.25 if name.startswith("completeness") else None)
        if way := draw(st.sampled_from(["", "", "report", "quarantine", "drop", "block"])):
            config["on_violation"][name], rule = way, replace(rule, on_violation=way)
        if draw(st.booleans()):
            share = draw(SHARES)
            config["max_failed"][name], rule = share, replace(rule, max_failed=share)
        if draw(st.booleans()):
            where = draw(st.sampled_from(sorted(WHERES)))
            config["where"][name], rule = where, replace(rule, where=WHERES[where])
        if draw(st.booleans()):
            severity = draw(st.sampled_from(["error", "warning", "info"]))
            config["severity"][name], rule = severity, replace(rule, severity=severity)
        rules[name] = rule
    return config, rules


WHOLE: dict[str, Any] = {
    "unique_columns": ["j", ["i", "s"]],
    "freshness": {"timestamp_column": "d", "max_age_hours": 30},
    "distribution": {"j": 2.0},
    "row_count": {"min": 2, "max": 6},
}


def judged(suite: Suite, frame: pl.DataFrame, size: int = 200_000, **options: Any) -> Judgement:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.frames.BATCH_ROWS", size)
        return suite.judge(frame, references={"u": PARENTS}, **options)


def by_name(suite: Suite, judgement: Judgement) -> dict[str, Result]:
    for result in judgement.results.values():
        json.dumps(result.to_dict(), allow_nan=False)
        assert "cannot_run" not in result.details, result.message
    return {suite.checks[i].name: result for i, result in judgement.results.items()}


def assert_verdict(result: Result, rule: Rule, rows: oracle.Rows) -> None:
    expected = rule.verdict(rows)
    found = {
        "passed": result.passed,
        "severity": str(result.severity),
        "failed_records": result.failed_records,
        "failed": result.details.get("nulls", result.failed_records),
        "judged": result.details.get("rows_judged", len(rows)),
        "positions": [row["row"] for row in result.sample],
    }
    assert found == expected
    fraction = result.details.get("failed_fraction", result.details.get("null_fraction"))
    assert fraction == (expected["failed"] / expected["judged"] if expected["judged"] else 0.0)


@SOME
@given(frame=TABLES, declaration=declared(), size=st.sampled_from(SIZES))
def test_verdicts_and_what_stays(frame: pl.DataFrame, declaration: Any, size: int) -> None:
    config, rules = declaration
    suite = Suite(ValidationSpec(**config, **WHOLE), as_of=AS_OF)
    judgement = judged(suite, frame, size)
    results, rows = by_name(suite, judgement), frame.to_dicts()
    for name, rule in rules.items():
        assert_verdict(results[name], rule, rows)
    fates = oracle.fates(rows, rules)
    stay = [row for row, fate in zip(rows, fates, strict=True) if fate == "stays"]
    assert judgement.rows == len(rows)
    assert (judgement.quarantined, judgement.dropped) == (fates.count("quarantine"), fates.count("drop"))
    removed = judgement.removed
    assert (removed is None) == (len(stay) == len(rows))
    if removed is not None:
        assert removed.dtype == pl.Boolean
        assert removed.to_list() == [fate != "stays" for fate in fates]
    for key in (("j",), ("i", "s")):
        expected = oracle.uniqueness(stay, key)
        found = results[f"uniqueness.{','.join(key)}"]
        assert (found.passed, found.failed_records) == (expected.pop("passed"), expected.pop("failed_records"))
        assert {name: found.details[name] for name in expected} == expected
        repeated = [i for i, again in enumerate(_repeats(rows, key, fates)) if again]
        assert {row["row"] for row in found.sample} <= set(repeated)
    assert results["row_count"].details["rows"] == len(stay)
    assert results["row_count"].passed == (2 <= len(stay) <= 6)
    fresh = oracle.freshness(stay, "d", 30, AS_OF)
    assert {n: results["freshness.d"].details[n] for n in ("age_hours", "latest")} == {
        n: fresh[n] for n in ("age_hours", "latest")
    }
    mean = oracle.distribution(stay, "j", 2.0, 0.2)["actual_mean"]
    assert results["distribution.j"].details["actual_mean"] == (None if mean is None else pytest.approx(mean))


def _repeats(rows: oracle.Rows, key: tuple[str, ...], fates: list[str]) -> oracle.Broken:
    return oracle.repeats(rows, key, [fate == "stays" for fate in fates])


@SOME
@given(frame=TABLES, declaration=declared(), size=st.sampled_from(SIZES[:-1]))
def test_answers_do_not_depend_on_the_size_of_batches(frame: pl.DataFrame, declaration: Any, size: int) -> None:
    config, _ = declaration
    suite = Suite(ValidationSpec(**config, **WHOLE), as_of=AS_OF)
    whole = judged(suite, frame)
    parts = judged(suite, frame, size)
    assert plain(by_name(suite, parts)) == plain(by_name(suite, whole))
    assert (parts.rows, parts.quarantined, parts.dropped) == (whole.rows, whole.quarantined, whole.dropped)
    assert _list(parts.removed) == _list(whole.removed)


def plain(results: dict[str, Result]) -> dict[str, Any]:
    """Results that can be compared: NaN, which a sample shows, is null; means may differ in the last digits."""
    found = {name: result.to_dict() for name, result in results.items()}
    for result in found.values():
        for name in ("actual_mean", "deviation"):
            if isinstance(mean := result["details"].get(name), float):
                result["details"][name] = pytest.approx(mean)
    return found


def _list(marks: pl.Series | None) -> list[bool] | None:
    return None if marks is None else marks.to_list()


@st.composite
def origins(draw: st.DrawFn) -> tuple[pl.DataFrame, Callable[[int], tuple[str | None, int | None]]]:
    """Where rows came from, and the same as a function of their number."""
    starts = sorted(draw(st.sets(st.integers(0, 12), max_size=4)))
    rows = [draw(st.one_of(st.none(), st.integers(0, 100))) for _ in starts]
    schema = {"start": pl.Int64, "origin": pl.String, "row": pl.Int64}
    data = {"start": starts, "origin": [f"file {s}" for s in starts], "row": rows}

    def place(position: int) -> tuple[str | None, int | None]:
        before = [k for k, start in enumerate(starts) if start <= position]
        if not before:
            return None, None
        row = rows[before[-1]]
        return f"file {starts[before[-1]]}", None if row is None else row + position - starts[before[-1]]

    return pl.DataFrame(data, schema=schema), place


@SOME
@given(
    frame=TABLES,
    declaration=declared(),
    place=origins(),
    size=st.sampled_from(SIZES),
    flush=st.sampled_from([1, 2, 5, 50_000]),
)
def test_the_quarantine_file(
    frame: pl.DataFrame, declaration: Any, place: Any, size: int, flush: int, tmp_path: Path
) -> None:
    config, rules = declaration
    suite = Suite(ValidationSpec(**config), key_columns=["i"])
    path = tmp_path / "deep" / "q.parquet"
    path.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aside, "_FLUSH_ROWS", flush)
        judgement = judged(suite, frame, size, origins=place[0], quarantine=Quarantine(path, "run 1", "read 2"))
    rows = frame.to_dicts()
    away = [i for i, fate in enumerate(oracle.fates(rows, rules)) if fate == "quarantine"]
    assert judgement.quarantined == len(away)
    assert path.exists() == bool(away)
    if not away:
        return
    assert [p.name for p in path.parent.iterdir()] == ["q.parquet"]
    found = pl.read_parquet(path)
    assert_frame_equal(found.drop("quarantine"), frame[away])
    reasons = oracle.reasons(rows, rules)
    about = found["quarantine"].to_list()
    assert list(about[0]) == ["id", "checks", "origin", "row", "run", "read"]
    assert [sorted(a["checks"]) for a in about] == [sorted(reasons[i]) for i in away]
    assert [(a["origin"], a["row"]) for a in about] == [place[1](i) for i in away]
    assert len({a["id"] for a in about}) == len(about)
    assert {(a["run"], a["read"]) for a in about} == {("run 1", "read 2")}
    for result in judgement.results.values():
        for row in result.sample:
            if len(place[0]):
                assert (row["origin"], row["origin_row"]) == place[1](row["row"])
            assert row["i"] == rows[row["row"]]["i"]


@SOME
@given(frame=TABLES, declaration=declared(), size=st.sampled_from(SIZES))
def test_rows_first_and_then_what_stays_as_a_table(frame: pl.DataFrame, declaration: Any, size: int) -> None:
    config, _ = declaration
    suite = Suite(ValidationSpec(schema={"i": "int"}, **config, **WHOLE), as_of=AS_OF)
    whole = judged(suite, frame, size)
    first = judged(suite, frame, size, scope="rows")
    assert _list(first.removed) == _list(whole.removed)
    stay = frame if first.removed is None else frame.filter(~first.removed)
    second = judged(suite, stay, size, scope="table")
    assert not set(first.results) & set(second.results)
    found, expected = ({**by_name(suite, first), **by_name(suite, second)}, by_name(suite, whole))
    assert [id(r) for r in suite.report(first, second).results] == [id(found[c.name]) for c in suite.checks]
    for name, result in expected.items():
        if name.startswith("uniqueness"):  # numbers of rows are those of what was judged
            found[name] = replace(found[name], sample=(), details={**found[name].details, "sample": []})
            expected[name] = replace(result, sample=(), details={**result.details, "sample": []})
    assert plain(found) == plain(expected)


@SOME
@given(frame=TABLES, declaration=declared(), size=st.sampled_from(SIZES), where=st.sampled_from([None, *WHERES]))
def test_good_and_bad_rows(frame: pl.DataFrame, declaration: Any, size: int, where: str | None) -> None:
    config, rules = declaration
    keys: list[Any] = ["j", ["i", "s"], ["f", "l"]]
    config = {**config, "where": {**config["where"], **({"uniqueness": where} if where else {})}}
    suite = Suite(ValidationSpec(**config, unique_columns=keys))
    good, bad = suite.filter(frame, references={"u": PARENTS})
    rows = frame.to_dicts()
    reasons = oracle.reasons(rows, rules)
    about = None if where is None else [WHERES[where](r) is True for r in rows]
    for key in (("j",), ("i", "s"), ("f", "l")):
        for i, again in enumerate(oracle.repeats(rows, key, about)):
            reasons[i] += [f"uniqueness.{','.join(key)}"] * again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.frames.BATCH_ROWS", size)
        found_good, found_bad = good.collect(), bad.collect()
    assert_frame_equal(found_good, frame.filter(pl.Series([not r for r in reasons], dtype=pl.Boolean)))
    assert_frame_equal(
        found_bad.drop("failed_checks"), frame.filter(pl.Series([bool(r) for r in reasons], dtype=pl.Boolean))
    )
    assert [sorted(r) for r in found_bad["failed_checks"].to_list()] == [sorted(r) for r in reasons if r]
    assert found_bad.schema["failed_checks"] == pl.List(pl.String)


OPERATIONS: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "a column": lambda f: f.select("s"),
    "a count": lambda f: f.select(pl.len()),
    "a filter": lambda f: f.filter(pl.col("j") > 2),
    "a filter on another": lambda f: f.filter(pl.col("s") > "m").select("j"),
    "the first": lambda f: f.head(2),
    "the last": lambda f: f.tail(2),
    "a slice": lambda f: f.slice(1, 2),
    "an order": lambda f: f.sort("s", descending=True).head(3),
    "groups": lambda f: f.group_by("k").agg(pl.len()).sort("k"),
}


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_what_is_asked_of_the_halves_reaches_no_check(engine: Any, tmp_path: Path) -> None:
    """A filter or a slice of the caller's must not be pushed below a rule that looks at other rows."""
    frame = pl.DataFrame({"j": [3, 1, 2, 4, 4, 9, 8, 9], "k": [1, 1, 2, 2, 3, 3, None, 1], "s": list("zyxwvuts")})
    config: dict[str, Any] = {
        "increasing": ["j"],
        "foreign_keys": {"k": "u.id"},
        "unique_columns": ["j"],
        "custom": {"c": "j < 9 OR s > 'u'"},
    }
    frame.write_parquet(tmp_path / "f.parquet", row_group_size=2)
    references = {"u": pl.DataFrame({"id": [1, 2]})}
    for data in (frame, frame.lazy(), tmp_path / "f.parquet"):
        halves = Suite(ValidationSpec(**config)).filter(data, references=references)
        whole = [half.collect() for half in halves]
        assert [h.height for h in whole] == [3, 5]
        for name, operation in OPERATIONS.items():
            for half, collected in zip(halves, whole, strict=True):
                found = operation(half).collect(engine=engine)
                assert_frame_equal(found, operation(collected.lazy()).collect(), check_exact=True), name


def test_conditions_that_fail_on_a_value_set_no_row_aside() -> None:
    """A check that cannot run says nothing about the data, however it was cut."""
    frame = pl.DataFrame({"a": ["0", "5", "x", "0"]})
    suite = Suite(ValidationSpec(custom={"c": "a::INT > 1"}, on_violation="quarantine"))
    for size in SIZES:
        judgement = judged(suite, frame, size)
        assert judgement.results[0].details["cannot_run"]
        assert (judgement.quarantined, _list(judgement.removed)) == (0, None)
        assert judgement.results[1].details["rows"] == 4


def test_options_for_all() -> None:
    frame = pl.DataFrame({"a": [1, None, 3, None], "b": [None, 2, 3, None]})
    spec = ValidationSpec(
        not_null=["a", "b"],
        on_violation={"all": "drop", "not_null.b": "quarantine"},
        max_failed={"all": 1, "not_null": 2},
    )
    judgement = judged(Suite(spec), frame)
    assert (judgement.quarantined, judgement.dropped) == (2, 1)
    assert [r.passed for r in judgement.results.values()] == [True, True, True]
    spec = ValidationSpec(not_null=["a", "b"], on_violation="drop", where="b IS NULL")
    assert judged(Suite(spec), frame).dropped == 2


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([1, None], dtype=pl.Int128),
        pl.Series([None, None], dtype=pl.Null),
        pl.Series(["x", None], dtype=pl.Categorical),
        pl.Series([{"a": [1.0, float("nan")]}, None], dtype=pl.Struct({"a": pl.List(pl.Float64)})),
        pl.Series([b"\xff", None], dtype=pl.Binary),
        pl.Series([float("nan"), -0.0, float("-inf")], dtype=pl.Float32),
    ],
    ids=lambda values: str(values.dtype),
)
def test_any_value_can_be_quarantined(values: pl.Series, tmp_path: Path) -> None:
    frame = pl.DataFrame({"v": values, "n": pl.Series([None] * len(values), dtype=pl.Int8)})
    suite = Suite(ValidationSpec(not_null=["n"], on_violation="quarantine"))
    judgement = judged(suite, frame, 1, quarantine=Quarantine(tmp_path / "q.parquet"))
    assert judgement.quarantined == len(values)
    assert_frame_equal(pl.read_parquet(tmp_path / "q.parquet").drop("quarantine"), frame)

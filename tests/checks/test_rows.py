"""Kinds that break rows, against the oracle, with batches so small that all borders are crossed."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.checks import Result, Suite
from engine.spec import ValidationSpec
from engine.spec.validation import Threshold

from . import oracle
from .test_oracle import COLUMNS, DATES, MOMENTS

FEW = settings(max_examples=10, deadline=None)
SIZES = st.sampled_from([1, 2, 3, 7, 200_000])

KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    **COLUMNS,
    "Float32": (pl.Float32(), st.floats(width=32)),
    "Duration": (pl.Duration("us"), st.timedeltas(timedelta(-2), timedelta(2))),
    "Time": (pl.Time(), st.sampled_from([time(0), time(1), time(23, 59, 59, 999_999)])),
    "Binary": (pl.Binary(), st.binary(max_size=2)),
    "Enum": (pl.Enum(["b", "a", "é"]), st.sampled_from(["b", "a", "é"])),
    "Datetime Berlin": (pl.Datetime("ns", "Europe/Berlin"), MOMENTS.map(lambda m: m.replace(tzinfo=UTC))),
    "List of ints": (pl.List(pl.Int64), st.lists(st.integers(0, 2), max_size=4)),
    "Array": (pl.Array(pl.Int64, 2), st.lists(st.integers(0, 2), min_size=2, max_size=2)),
    "Moments as text": (pl.String(), st.one_of(MOMENTS.map(str), DATES.map(str), MOMENTS.map(lambda m: f"{m}Z"))),
}
ORDERED = [k for k in KINDS if k not in ("List", "Struct", "Null", "List of ints", "Array")]
EXACT = [  # pairs that compare
    *((k, k) for k in ORDERED),
    ("Int64", "Float64"),
    ("Float64", "Int64"),
    ("UInt64", "Float64"),
    ("Int8", "UInt64"),
    ("Int128", "Int64"),
    ("Float32", "Float64"),
    ("Float16", "Int8"),
    ("Int64", "Decimal"),
    ("Decimal", "UInt64"),
    ("Date", "Datetime"),
    ("Datetime UTC", "Date"),
    ("Datetime Berlin", "Datetime"),
    ("Date", "Moments as text"),
    ("Moments as text", "Datetime UTC"),
    ("Categorical", "String"),
    ("Null", "Int64"),
    ("String", "Null"),
]


def frames(**kinds: str) -> st.SearchStrategy[pl.DataFrame]:
    """Tables with columns of these kinds, rows of null, repeated and fresh values."""
    row = st.tuples(*(st.one_of(st.none(), KINDS[k][1]) for k in kinds.values()))

    def frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        names = enumerate(kinds.items())
        return pl.DataFrame([pl.Series(c, [r[i] for r in rows], dtype=KINDS[k][0], strict=True) for i, (c, k) in names])

    return st.lists(row, max_size=12).map(frame)


def check(frame: pl.DataFrame, size: int = 200_000, references: Any = None, **config: Any) -> Result:
    """The only result but the row count's, found in batches of ``size`` rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.frames.BATCH_ROWS", size)
        report = Suite(ValidationSpec(**config)).validate(frame, references=references)
    json.dumps(report.to_dict(), allow_nan=False)
    [result] = [r for r in report.results if r.check_name != "row_count_validation"]
    return result


def assert_broken(result: Result, broken: oracle.Broken) -> None:
    assert "cannot_run" not in result.details, result.message
    assert result.failed_records == sum(broken)
    assert [row["row"] for row in result.sample] == [i for i, b in enumerate(broken) if b][:5]
    assert result.passed == (not any(broken))
    assert result.details["failed_fraction"] == (sum(broken) / len(broken) if broken else 0.0)


@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(data=st.data(), size=SIZES)
def test_not_null(kind: str, data: st.DataObject, size: int) -> None:
    frame = data.draw(frames(a=kind))
    assert_broken(check(frame, size, not_null=["a"]), oracle.nulls(frame.to_dicts(), "a"))


@pytest.mark.parametrize("kind", ["String", "Categorical", "Enum", "Null"])
@FEW
@given(
    data=st.data(), size=SIZES, regex=st.sampled_from(["a", "^a", "a$", "^$", "[0-9]", "(?i)A", "^.$", "é", "^(a|b)$"])
)
def test_patterns(kind: str, data: st.DataObject, size: int, regex: str) -> None:
    frame = data.draw(frames(a=kind))
    assert_broken(check(frame, size, patterns={"a": regex}), oracle.unmatched(frame.to_dicts(), "a", regex))


@pytest.mark.parametrize("kind", ["String", "Categorical", "Enum", "Binary", "List", "List of ints", "Array", "Null"])
@FEW
@given(
    data=st.data(),
    size=SIZES,
    bounds=st.sampled_from([(0, 1), (2, 2), (1, None), (None, 0), (10**12, None), (None, 10**30), (10**30, None)]),
)
def test_lengths(kind: str, data: st.DataObject, size: int, bounds: Any) -> None:
    frame = data.draw(frames(a=kind))
    result = check(frame, size, lengths={"a": bounds})
    rows = frame.to_dicts()
    assert_broken(result, oracle.misfit(rows, "a", *bounds))
    lengths = [len(r["a"]) for r in rows if r["a"] is not None]
    assert result.details["actual_lengths"] == [min(lengths, default=None), max(lengths, default=None)]


def test_lengths_count_code_points_and_bytes() -> None:
    texts = pl.DataFrame({"a": ["猫", "e\u0301", "👩‍👩‍👧", ""]})
    assert check(texts, lengths={"a": (1, 1)}).failed_records == 3
    assert check(texts, lengths={"a": (1, 1)}).details["actual_lengths"] == [0, 5]
    assert check(texts.select(pl.col("a").cast(pl.Binary)), lengths={"a": (0, 3)}).failed_records == 1


@pytest.mark.parametrize("kind", [*ORDERED, "Null"])
@FEW
@given(data=st.data(), size=SIZES, strict=st.booleans())
def test_increasing(kind: str, data: st.DataObject, size: int, strict: bool) -> None:
    frame = data.draw(frames(a=kind))
    if frame.height > 3 and data.draw(st.booleans()) and kind != "Categorical":
        frame = frame.sort("a", nulls_last=True)
    result = check(frame, size, increasing=[{"column": "a", "strict": strict}])
    assert_broken(result, oracle.falls(frame.to_dicts(), "a", strict))


def test_increasing_looks_back_over_many_empty_batches() -> None:
    frame = pl.DataFrame({"a": [5, *[None] * 20, 4, None, 4]})
    assert [r["row"] for r in check(frame, 3, increasing=["a"]).sample] == [21]
    assert [r["row"] for r in check(frame, 3, increasing=[{"column": "a", "strict": True}]).sample] == [21, 23]


def test_increasing_tells_nanoseconds() -> None:
    frame = pl.DataFrame({"a": pl.Series([2, 1, 1]).cast(pl.Datetime("ns"))})
    assert check(frame, 1, increasing=["a"]).failed_records == 1


@pytest.mark.parametrize(("left", "right"), EXACT)
@settings(max_examples=12, deadline=None)
@given(data=st.data(), size=SIZES, sign=st.sampled_from(list(oracle.OPERATORS)))
def test_compare(left: str, right: str, data: st.DataObject, size: int, sign: str) -> None:
    frame = data.draw(frames(a=left, b=right))
    result = check(frame, size, compare=[{"left": "a", "operator": sign, "right": "b"}])
    assert_broken(result, oracle.disordered(frame.to_dicts(), "a", sign, "b"))


def compared(left: pl.Series, sign: str, right: pl.Series) -> Result:
    frame = pl.DataFrame([left.alias("a"), right.alias("b")])
    return check(frame, compare=[{"left": "a", "operator": sign, "right": "b"}])


def test_compare_floats_with_decimals() -> None:
    """0.1 as a float is a little more than one tenth: which of them is meant, only a rule of the user's can say."""
    decimals = pl.Series([Decimal("0.1"), Decimal("0.5"), None], dtype=pl.Decimal(10, 1))
    assert compared(pl.Series([0.1, 0.5, 1.0]), "==", decimals).details["cannot_run"]


def test_compare_huge_integers_with_floats() -> None:
    """Beyond 2^126 a float is no longer told from its neighbours."""
    huge = pl.Series([2**126, 2**126 + 5, 2**127 - 1, -(2**127)], dtype=pl.Int128)
    floats = pl.Series([float("inf"), 2.0**127, 1e39, float("-inf")])
    assert_broken(compared(huge, "<", floats), [False, False, False, True])
    assert_broken(compared(huge, "!=", floats), [False] * 4)


def test_compare_the_widest_integers() -> None:
    """What does not fit into 128 signed bits must not end the whole validation."""
    wide = pl.Series([2**128 - 1, 0], dtype=pl.UInt128)
    assert compared(wide, ">=", pl.Series([1, 0])).details["cannot_run"]
    assert_broken(compared(wide, ">=", wide.reverse()), [False, True])


def test_compare_wide_decimals() -> None:
    left = pl.Series([Decimal("1.50"), Decimal("2.00")], dtype=pl.Decimal(38, 2))
    right = pl.Series([Decimal("1.50001"), Decimal("1.99999")], dtype=pl.Decimal(38, 5))
    assert_broken(compared(left, "<", right), [False, True])


def test_compare_huge_integers_with_decimals() -> None:
    """Times a power of ten, they must not wrap around."""
    huge = pl.Series([2**126, -(2**127)], dtype=pl.Int128)
    decimals = pl.Series([Decimal("1.00001"), Decimal(0)], dtype=pl.Decimal(10, 5))
    assert_broken(compared(huge, ">", decimals), [False, True])


def test_compare_tells_nanoseconds() -> None:
    left, right = (pl.Series(v).cast(pl.Datetime("ns", "UTC")) for v in ([1, 2], [2, 2]))
    assert_broken(compared(left, "<", right), [False, True])
    assert_broken(compared(left, "==", right), [True, False])


def test_compare_moments_far_away() -> None:
    """Moments that microseconds cannot hold must not end the whole validation."""
    far = pl.Series([2**62, 0]).cast(pl.Datetime("ms"))
    frame = pl.DataFrame([far.alias("a"), pl.Series("b", [datetime(2020, 1, 1)] * 2)])
    spec = ValidationSpec(compare=[{"left": "a", "operator": "<", "right": "b"}], not_null=["a"])
    assert Suite(spec).validate(frame).results[0].passed


def test_compare_durations_of_different_units() -> None:
    left, right = pl.Series([1]).cast(pl.Duration("ms")), pl.Series([1000]).cast(pl.Duration("us"))
    assert compared(left, "==", right).passed


PARTS = st.sampled_from(["Int64", "Int8", "UInt64", "String", "Categorical", "Float64", "Date", "Boolean", "Decimal"])
ALIKE = {"Int64": "Int8", "Int8": "UInt64", "String": "Categorical", "Categorical": "String"}


@settings(max_examples=30, deadline=None)
@given(data=st.data(), size=SIZES, block=st.sampled_from([1, 2, 3, 5, 1 << 20]))
def test_foreign_keys(data: st.DataObject, size: int, block: int) -> None:
    kinds = data.draw(st.lists(PARTS, min_size=1, max_size=2))
    theirs = [ALIKE.get(k, k) if data.draw(st.booleans()) else k for k in kinds]
    frame = data.draw(frames(**{f"a{i}": k for i, k in enumerate(kinds)}))
    others = data.draw(frames(**{f"b{i}": k for i, k in enumerate(theirs)}))
    columns, to = tuple(frame.columns), tuple(others.columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.checks.marks._BLOCK", block)
        key = {"columns": columns, "source": "u", "to": to}
        suite_of = ValidationSpec(foreign_keys=[key])
        result = check(frame, size, {"u": others}, foreign_keys=[key])
        good, bad = Suite(suite_of).filter(frame, references={"u": others})
        broken = oracle.orphans(frame.to_dicts(), columns, others.to_dicts(), to)
        assert bad.collect().height == sum(broken)
        assert good.collect().height == len(broken) - sum(broken)
    assert_broken(result, broken)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("Null", "Int64"), ("Int64", "Null"), ("Null", "String"), ("Null", "Null")]
)
def test_foreign_keys_without_values(ours: str, theirs: str) -> None:
    """A column without a value (pandas' objects) is of no type; null is no violation."""
    frame = pl.DataFrame({"a": pl.Series([None, None], dtype=KINDS[ours][0])})
    others = pl.DataFrame({"b": pl.Series([None], dtype=KINDS[theirs][0])})
    assert_broken(check(frame, references={"u": others}, foreign_keys={"a": "u.b"}), [False, False])


def test_foreign_keys_of_the_widest_integers() -> None:
    frame = pl.DataFrame({"a": pl.Series([2**127 - 1, 1], dtype=pl.Int128)})
    others = pl.DataFrame({"b": [1]})
    result = check(frame, references={"u": others}, foreign_keys={"a": "u.b"})
    assert_broken(result, [True, False])


def test_foreign_keys_of_python_objects_cannot_run() -> None:
    frame = pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)})
    assert check(frame, references={"u": frame}, foreign_keys={"a": "u.a"}).details["cannot_run"]


@pytest.mark.parametrize("block", [1, 3, 64])
def test_foreign_keys_over_many_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.checks.marks._BLOCK", block)
    frame = pl.DataFrame({"a": [i % 37 for i in range(500)]}).with_columns(
        a=pl.when(pl.col("a") != 5).then(pl.col("a"))
    )
    others = pl.DataFrame({"id": [*range(0, 37, 2), None]})
    expected = oracle.orphans(frame.to_dicts(), ("a",), others.to_dicts(), ("id",))
    for size in (1, 7, 200_000):
        assert_broken(check(frame, size, {"u": others}, foreign_keys={"a": "u.id"}), expected)


@given(
    failed=st.integers(0, 30),
    judged=st.integers(0, 30),
    share=st.decimals(0, 100, allow_nan=False, places=40) | st.sampled_from([Decimal("0.1"), Decimal(10), Decimal(0)]),
)
@example(failed=1, judged=1, share=Decimal("99.9999999999999999999999999999999"))
@example(failed=1, judged=3, share=Decimal("33.3"))
def test_shares_are_exact(failed: int, judged: int, share: Decimal) -> None:
    text = f"{share:f}%"
    threshold = ValidationSpec(max_failed=text).max_failed["all"]
    assert isinstance(threshold, Threshold)
    assert threshold.allows(failed, judged) == oracle.Rule(lambda _: [], max_failed=text).allows(failed, judged)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None)
@given(data=st.data(), size=SIZES)
def test_conditions_on_any_type(kind: str, data: st.DataObject, size: int) -> None:
    """SQL conditions over columns of any type give an answer, or cannot run; they never end the validation."""
    frame = data.draw(frames(a=kind, b="Int64"))
    config: dict[str, Any] = {"custom": {"r": "a IS NOT NULL"}, "not_null": ["b"], "where": {"not_null": "a IS NULL"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.frames.BATCH_ROWS", size)
        not_null, custom, _ = Suite(ValidationSpec(**config)).validate(frame).results
    rows = frame.to_dicts()
    missing = oracle.nulls(rows, "a")
    if kind != "Float16":  # DuckDB has no such type
        assert_broken(custom, missing)
        assert not_null.failed_records == sum(a and r["b"] is None for a, r in zip(missing, rows, strict=True))


def test_texts_that_are_no_moments_do_not_pass_for_equal() -> None:
    """As in a range, a text that cannot be read is not passed over in silence."""
    frame = pl.DataFrame({"a": ["31.12.2019", "nonsense"], "b": [date(2020, 1, 1)] * 2})
    result = check(frame, compare=[{"left": "a", "operator": "==", "right": "b"}])
    assert not result.passed

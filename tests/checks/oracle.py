"""The checks over again in plain Python, row by row: slow, and nothing shared with the engine."""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

Row = dict[str, Any]
Rows = list[Row]


def known(value: Any) -> Any:
    """``value`` with NaN, also inside lists and structs, as None."""
    if isinstance(value, list):
        return [known(v) for v in value]
    if isinstance(value, dict):
        return {k: known(v) for k, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def identity(value: Any) -> Any:
    """Something hashable that is equal for equal values of one column."""
    if isinstance(value, list):
        return ("list", tuple(identity(v) for v in value))
    if isinstance(value, dict):
        return ("struct", tuple((k, identity(v)) for k, v in value.items()))
    return value


def exact(number: Any) -> Fraction | float:
    """A number without rounding, as it is written."""
    if isinstance(number, float) and not math.isfinite(number):
        return number
    return Fraction(Decimal(repr(number))) if isinstance(number, float) else Fraction(number)


def moment(value: Any) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def comparable(value: Any, float_column: bool) -> Any:
    if isinstance(value, str | date):
        return moment(value)
    # A float's own value is binary; a bound on decimals or whole numbers means its digits.
    return exact(value) if isinstance(value, int) or not (float_column and math.isfinite(value)) else Fraction(value)


def completeness(rows: Rows, column: str, threshold: float) -> dict[str, Any]:
    nulls = sum(known(r[column]) is None for r in rows)
    fraction = nulls / len(rows) if rows else 0.0
    failed = fraction > threshold
    return {"passed": not failed, "failed_records": nulls if failed else 0, "nulls": nulls, "null_fraction": fraction}


def uniqueness(rows: Rows, key: tuple[str, ...]) -> dict[str, Any]:
    values = [tuple(identity(known(r[c])) for c in key) for r in rows]
    counts = Counter(v for v in values if all(part is not None for part in v))
    repeated = {v: n for v, n in counts.items() if n > 1}
    failed = sum(counts.values()) - len(counts)
    return {
        "passed": failed == 0,
        "failed_records": failed,
        "duplicated_values": len(repeated),
        "rows_involved": sum(repeated.values()),
        "duplicate_fraction": failed / len(rows) if rows else 0.0,
    }


def outside(value: Any, low: Any, high: Any) -> bool:
    value = known(value)
    if value is None:
        return False
    float_column = isinstance(value, float)
    value, low, high = (None if v is None else comparable(v, float_column) for v in (value, low, high))
    return (low is not None and value < low) or (high is not None and value > high)


def range_(rows: Rows, column: str, low: Any, high: Any) -> dict[str, Any]:
    values = [v for r in rows if (v := known(r[column])) is not None]
    failing = [i for i, r in enumerate(rows) if outside(r[column], low, high)]
    return {
        "passed": not failing,
        "failed_records": len(failing),
        "actual_range": [min(values, default=None), max(values, default=None)],
        "positions": failing[:5],
    }


def allowed_value(value: Any, allowed: tuple[Any, ...]) -> bool:
    def kind(v: Any) -> str:
        return "bool" if isinstance(v, bool) else "number" if isinstance(v, int | float | Decimal) else "text"

    def same(v: Any, a: Any) -> bool:
        if kind(v) != kind(a):
            return False
        if kind(v) == "number":
            return (Fraction(v) if isinstance(v, float) and math.isfinite(v) else exact(v)) == (
                Fraction(a) if isinstance(v, float) else exact(a)
            )
        return bool(v == a)

    return any(same(value, a) for a in allowed)


def categorical(rows: Rows, column: str, allowed: tuple[Any, ...]) -> dict[str, Any]:
    invalid = [v for r in rows if (v := known(r[column])) is not None and not allowed_value(v, allowed)]
    return {
        "passed": not invalid,
        "failed_records": len(invalid),
        "invalid_values": sorted(Counter(invalid).items(), key=lambda item: (-item[1], item[0]))[:20],
    }


def freshness(rows: Rows, column: str, max_age_hours: float, as_of: datetime) -> dict[str, Any]:
    moments = [moment(r[column]) for r in rows if r[column] is not None]
    if not moments:
        return {"passed": False, "age_hours": None, "latest": None, "future_timestamps": 0}
    age = (as_of - max(moments)) / timedelta(hours=1)
    future = sum(m > as_of + timedelta(minutes=5) for m in moments)
    return {
        "passed": age <= max_age_hours,
        "age_hours": age,
        "latest": max(moments),
        "future_timestamps": future,
    }


def distribution(rows: Rows, column: str, expected: float, tolerance: float) -> dict[str, Any]:
    values = [float(v) for r in rows if (v := known(r[column])) is not None]
    if not values:
        return {"passed": False, "actual_mean": None, "deviation": None}
    mean = math.fsum(values) / len(values)
    deviation = abs(mean - expected) / (abs(expected) or 1.0)
    return {"passed": deviation <= tolerance, "actual_mean": mean, "deviation": deviation}


# --- kinds that break rows, one answer per row --------------------------------------------------------------------------

Broken = list[bool]


def nulls(rows: Rows, column: str) -> Broken:
    return [known(r[column]) is None for r in rows]


def beyond(rows: Rows, column: str, low: Any, high: Any) -> Broken:
    return [outside(r[column], low, high) for r in rows]


def no_category(rows: Rows, column: str, allowed: tuple[Any, ...]) -> Broken:
    return [(v := known(r[column])) is not None and not allowed_value(v, allowed) for r in rows]


def unmatched(rows: Rows, column: str, regex: str) -> Broken:
    """``$`` is the very end, as in Rust; Python's own also stands before a last line break."""
    found = re.compile(regex.replace("$", r"\Z"))
    return [r[column] is not None and found.search(r[column]) is None for r in rows]


def misfit(rows: Rows, column: str, low: int | None, high: int | None) -> Broken:
    def wrong(value: Any) -> bool:
        return (low is not None and len(value) < low) or (high is not None and len(value) > high)

    return [r[column] is not None and wrong(r[column]) for r in rows]


def falls(rows: Rows, column: str, strict: bool) -> Broken:
    before, found = None, []
    for row in rows:
        value = known(row[column])
        found.append(value is not None and before is not None and (value <= before if strict else value < before))
        before = before if value is None else value
    return found


def scalar(value: Any, other: Any) -> Any:
    """A value in a form that compares exactly with ``other``, one of the other side."""
    if isinstance(value, bool | bytes | time | timedelta) or (isinstance(value, str) and isinstance(other, str)):
        return value
    if isinstance(value, str | date):
        return moment(value)
    return value if isinstance(value, float) and math.isinf(value) else Fraction(value)


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}


def disordered(rows: Rows, left: str, sign: str, right: str) -> Broken:
    pairs = [(known(r[left]), known(r[right])) for r in rows]
    return [a is not None and b is not None and not OPERATORS[sign](scalar(a, b), scalar(b, a)) for a, b in pairs]


def orphans(rows: Rows, columns: tuple[str, ...], others: Rows, to: tuple[str, ...]) -> Broken:
    parents = {tuple(identity(known(r[c])) for c in to) for r in others}
    keys = [tuple(identity(known(r[c])) for c in columns) for r in rows]
    return [all(part is not None for part in key) and key not in parents for key in keys]


def repeats(rows: Rows, key: tuple[str, ...], judged: list[bool] | None = None) -> Broken:
    """Rows beyond the first of each value."""
    seen: set[Any] = set()
    found = []
    for i, row in enumerate(rows):
        value = tuple(identity(known(row[c])) for c in key)
        about = (judged is None or judged[i]) and all(part is not None for part in value)
        found.append(about and value in seen)
        if about:
            seen.add(value)
    return found


# --- rules with their options -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """A row-wise check: which rows break it, which are judged, and what becomes of them."""

    broken: Callable[[Rows], Broken]
    severity: str = "error"
    on_violation: str = "report"
    max_failed: int | str | None = None
    where: Callable[[Row], bool | None] | None = None
    max_null_fraction: float | None = None  # of completeness

    def judged(self, rows: Rows) -> list[bool]:
        return [self.where is None or self.where(r) is True for r in rows]

    def breaks(self, rows: Rows) -> Broken:
        judged = self.judged(rows)
        broken = iter(self.broken([row for row, j in zip(rows, judged, strict=True) if j]))
        return [j and next(broken) for j in judged]

    def allows(self, failed: int, judged: int) -> bool:
        if self.max_failed is None and self.max_null_fraction is not None:
            return not judged or failed / judged <= self.max_null_fraction
        if isinstance(self.max_failed, str):
            return failed <= Fraction(self.max_failed.strip().removesuffix("%").strip()) / 100 * judged
        return failed <= (self.max_failed or 0)

    def verdict(self, rows: Rows) -> dict[str, Any]:
        failed, judged = sum(self.breaks(rows)), sum(self.judged(rows))
        passed = self.allows(failed, judged)
        severity = self.severity
        if self.on_violation == "block":
            severity = "error"
        elif self.on_violation in ("quarantine", "drop") and self.max_failed is None and severity == "error":
            severity = "warning"
        hidden = passed and self.max_null_fraction is not None and self.max_failed is None
        return {
            "passed": passed,
            "severity": "info" if passed else severity,
            "failed_records": 0 if hidden else failed,
            "failed": failed,
            "judged": judged,
            "positions": [i for i, b in enumerate(self.breaks(rows)) if b][:5],
        }


def fates(rows: Rows, rules: Mapping[str, Rule]) -> list[str]:
    """For each row: ``stays``, ``quarantine`` or ``drop``."""
    found = ["stays"] * len(rows)
    for way in ("drop", "quarantine"):  # the latter wins
        for rule in rules.values():
            if rule.on_violation == way:
                found = [way if b else f for b, f in zip(rule.breaks(rows), found, strict=True)]
    return found


def reasons(rows: Rows, rules: Mapping[str, Rule]) -> list[list[str]]:
    """For each row the names of the rules it breaks."""
    broken = {name: rule.breaks(rows) for name, rule in rules.items()}
    return [[name for name, marks in broken.items() if marks[i]] for i in range(len(rows))]

"""The checks over again in plain Python, row by row: slow, and nothing shared with the engine."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

Rows = list[dict[str, Any]]


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

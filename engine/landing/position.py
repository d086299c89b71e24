"""A cursor's position: the value that the next read goes on from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from engine.errors import SourceError
from engine.sources import CursorValue
from engine.types import ISO_MOMENT, Duration, parse_moment

_KINDS: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}


def encode(value: CursorValue | None) -> dict[str, Any] | None:
    """JSON-ready, exact."""
    if value is None:
        return None
    if isinstance(value, datetime | date):
        return {"type": "datetime" if isinstance(value, datetime) else "date", "value": value.isoformat()}
    kind = {int: "int", float: "float", str: "str", Decimal: "decimal"}.get(type(value))
    if kind is None:
        raise SourceError(
            f"a cursor cannot have values of type {type(value).__name__}",
            code="source.cursor",
            allowed="numbers, texts, dates and timestamps",
            fix="choose another column",
        )
    return {
        "type": kind,
        "value": value if isinstance(value, str) else repr(value) if kind != "decimal" else str(value),
    }


def decode(position: Mapping[str, Any] | None) -> CursorValue | None:
    """The value that `encode` was given."""
    if position is None:
        return None
    value: CursorValue = _KINDS[position["type"]](position["value"])
    return value


def held_back(largest: CursorValue | None, bound: datetime | None) -> CursorValue | None:
    """The smaller of the largest value seen and the moment before which nothing is committed any more."""
    if bound is None or largest is None:
        return largest
    if isinstance(largest, datetime):
        at = bound.astimezone(largest.tzinfo) if largest.tzinfo else bound.astimezone(UTC).replace(tzinfo=None)
        return min(largest, at)
    if isinstance(largest, date):
        return min(largest, bound.astimezone(UTC).date())
    if isinstance(largest, str) and re.match(ISO_MOMENT, largest) and parse_moment(largest) > bound:
        return _like(largest, bound.astimezone(UTC))
    return largest


def earlier(value: CursorValue, lateness: str | int | None, name: str) -> CursorValue:
    """Where to read from, so much before ``value``.

    Raises:
        SourceError: ``lateness`` is a duration where the cursor is no moment, or a number where it is none.
    """
    if lateness is None:
        return value
    if isinstance(lateness, int):
        if isinstance(value, int | float | Decimal):
            return value - lateness
        raise _unfit(lateness, value, "a duration such as 1h", name)
    delta = Duration(lateness).delta
    if isinstance(value, datetime):
        return value - delta if value - datetime.min.replace(tzinfo=value.tzinfo) > delta else value
    if isinstance(value, date):
        return value - timedelta(days=-(-delta // timedelta(days=1)))
    if isinstance(value, str) and re.match(ISO_MOMENT, value):
        return _like(value, datetime.fromisoformat(value) - delta)
    raise _unfit(lateness, value, "a whole number", name)


def _like(text: str, moment: datetime) -> str:
    """A moment as ``text`` writes one, without fraction or zone: a shorter text sorts before those that have them."""
    if len(text) <= 10:
        return str(moment.date())
    return moment.isoformat(sep=text[10], timespec="seconds")[: 19 if text[16:17] == ":" else 16]


def _unfit(lateness: str | int, value: CursorValue, allowed: str, name: str) -> SourceError:
    return SourceError(
        f"lateness {lateness!r} cannot be taken from a cursor with values such as {value!r}",
        code="source.lateness",
        where=f"sources.{name}",
        allowed=allowed,
        fix=f"write lateness as {allowed}, or use another cursor",
    )

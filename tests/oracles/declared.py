"""Declared views once more: slow, plain Python, one entity, one feature and one event at a time.

The rules of the declaration, read independently of ``engine/features``. SQL is not understood: an expression is a text
of `VALUES`, `CONDITIONS` or `DERIVED`, each with what it means in Python. Rows are dicts; sums are exact fractions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

Row = Mapping[str, Any]

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
US = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _not(value: Any) -> Any:
    return None if value is None else not value


def _when(value: Any, test: Callable[[Any], bool]) -> Any:
    return None if value is None else test(value)


VALUES: dict[str, Callable[[Row], Any]] = {
    "amount": lambda r: r["amount"],
    "qty": lambda r: r["qty"],
    "qty * 2 -- twice": lambda r: _when(r["qty"], lambda v: v * 2),
    "QTY % 3": lambda r: _when(r["qty"], lambda v: int(math.fmod(v, 3))),
    "amount / 4": lambda r: _when(r["amount"], lambda v: v / 4),
    "flag": lambda r: r["flag"],
    "kind": lambda r: r["kind"],
    "upper(kind)": lambda r: _when(r["kind"], str.upper),
    "seen": lambda r: r["seen"],
}
NUMBERS = ("amount", "qty", "qty * 2 -- twice", "QTY % 3", "amount / 4", "flag")
CONDITIONS: dict[str, Callable[[Row], Any]] = {
    "kind = 'a'": lambda r: _when(r["kind"], lambda v: v == "a"),
    "qty > 1": lambda r: _when(r["qty"], lambda v: v > 1),
    "flag": lambda r: r["flag"],
    "NOT flag": lambda r: _not(r["flag"]),
    "kind IS NULL": lambda r: r["kind"] is None,
    "amount IS NOT NULL": lambda r: r["amount"] is not None,
}
DERIVED: dict[str, Callable[[Row], Any]] = {
    "n * 2": lambda f: f["n"] * 2,
    "n || ' events'": lambda f: f"{f['n']} events",
    "n > 2 OR late > 0": lambda f: f["n"] > 2 or f["late"] > 0,
    "late / nullif(n, 0)": lambda f: f["late"] / f["n"] if f["n"] else None,
}


def known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def clean(row: Row) -> dict[str, Any]:
    return {name: known(value) for name, value in row.items()}


def span(text: str) -> timedelta:
    return timedelta(**{UNITS[text[-1]]: int(text[:-1])})


def happens(moment: datetime, spec: Row, as_of: datetime) -> bool:
    """Whether an event at ``moment`` is in the window as of ``as_of``."""
    end = as_of - span(spec["offset"]) if spec.get("offset") else as_of
    if not spec.get("window"):
        return moment <= end
    window = span(spec["window"])
    if spec.get("tumbling"):
        # Weeks begin on Mondays; 1970-01-01 was a Thursday.
        start = EPOCH - timedelta(days=3) if spec["window"].endswith("w") else EPOCH
        whole = start + (end - start) // window * window
        return whole - window <= moment < whole
    return end - window < moment <= end


def key_of(row: Row, columns: Sequence[str]) -> tuple[str, ...] | None:
    parts = [row[c] for c in columns]
    if any(p is None for p in parts):
        return None
    return tuple(str(int(p)) if isinstance(p, float) else str(p) for p in parts)


def features(
    spec: Mapping[str, Any], tables: Mapping[str, Iterable[Row]], as_of: datetime
) -> dict[Any, dict[str, Any]]:
    """The features of each entity that is there, by its key as texts."""
    key: Sequence[str] = spec["entity"]
    events: dict[Any, list[dict[str, Any]]] = {}
    for raw in tables["events"]:
        row = clean(raw)
        who = key_of(row, key)
        if who is None or row["seen"] is None or row["seen"] > as_of:
            continue
        if "where" in spec and CONDITIONS[spec["where"]](row) is not True:
            continue
        events.setdefault(who, []).append(row)
    if "entities" in spec:
        rows = map(clean, tables["entities"])
        there = [key_of(r, key) for r in rows if r["created_at"] is None or r["created_at"] <= as_of]
        entities = [who for who in there if who is not None]
    else:
        entities = list(events)
    return {who: _row(spec, who, events.get(who, []), tables, as_of) for who in entities}


def _row(spec: Mapping[str, Any], who: Any, events: list[Any], tables: Any, as_of: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, aggregate in spec["aggregates"].items():
        by = aggregate.get("by")
        for value in by["values"] if by else [None]:
            mine = [e for e in events if by is None or e[by["column"]] == value]
            own = f"{name}_{value}" if by else name
            found[own] = _defaulted(aggregate_of(aggregate, mine, as_of), aggregate)
    for name, attribute in spec.get("attributes", {}).items():
        found[name] = _defaulted(_attribute(name, spec["entity"], who, tables["tiers"], as_of), attribute)
    for name, text in spec.get("derive", {}).items():
        found[name] = known(DERIVED[text](found))
    return found


def _defaulted(value: Any, spec: Row) -> Any:
    return spec.get("default") if value is None else value


def _attribute(name: str, key: Sequence[str], who: Any, rows: Iterable[Row], as_of: datetime) -> Any:
    mine = [r for r in map(clean, rows) if key_of(r, key) == who and r["since"] is not None and r["since"] <= as_of]
    if not mine:
        return None
    newest = max(r["since"] for r in mine)
    values = [r[name] for r in mine if r["since"] == newest and r[name] is not None]
    return max(values) if values else None


def aggregate_of(spec: Row, events: Sequence[Row], as_of: datetime) -> Any:
    function = spec["function"]
    rows = [e for e in events if happens(e["seen"], spec, as_of)]
    if spec.get("where"):
        rows = [e for e in rows if CONDITIONS[spec["where"]](e) is True]
    if function == "time_since":
        return (as_of - max(e["seen"] for e in rows)) / timedelta(seconds=1) if rows else None
    if function == "ratio":
        return _ratio(_sum(_values(spec["value"], rows)), _sum(_values(spec["divisor"], rows)))
    if function == "share":
        told = [v for e in rows if (v := CONDITIONS[spec["value"]](e)) is not None]
        return sum(told) / len(told) if told else None
    timed = [
        (e["seen"], v) for e in rows if (v := known(VALUES[spec["value"]](e)) if spec.get("value") else 1) is not None
    ]
    if function == "rate":
        return len(timed) * (span(spec.get("per") or "1d") / span(spec["window"]))
    if function == "count":
        return len(timed)
    if function == "count_distinct":
        return len({v for _, v in timed})
    return _of(function, timed, spec) if timed else None


def _of(function: str, timed: list[Any], spec: Row) -> Any:
    values = [v for _, v in timed]
    if function == "first":
        return min(timed)[1]
    if function == "last":
        return max(timed)[1]
    if function == "last_n":
        return [v for _, v in sorted(timed, reverse=True)[: spec["n"]]]
    if function == "min":
        return min(values)
    if function == "max":
        return max(values)
    if function == "mode":
        counts = Counter(values)
        return min(v for v in counts if counts[v] == max(counts.values()))
    if function == "sum":
        return known(_sum(values))
    if function == "mean":
        total = _sum(values)
        return known(float(total / len(values)))
    if function == "quantile":
        return _quantile([float(v) for v in values], spec["q"])
    finite = [Fraction(v) for v in values if math.isfinite(v)]
    if len(finite) < 2:
        return None
    mean = sum(finite) / len(finite)
    var = sum((v - mean) ** 2 for v in finite) / (len(finite) - 1)
    return float(var) if function == "var" else math.sqrt(var)


def _values(text: str, rows: Sequence[Row]) -> list[Any]:
    return [v for e in rows if (v := known(VALUES[text](e))) is not None]


def _sum(values: list[Any]) -> Any:
    """Exact where all are finite."""
    if not values:
        return None
    if all(map(math.isfinite, values)):
        total = sum(map(Fraction, values))
        return int(total) if all(isinstance(v, int) for v in values) else total
    return sum(values)


def _ratio(over: Any, under: Any) -> Any:
    if over is None or not under:
        return None
    return known(float(over) / float(under))


def _quantile(values: list[float], q: float) -> Any:
    values.sort()
    place = q * (len(values) - 1)
    low = math.floor(place)
    if place == low:
        return values[low]
    return known(values[low] + (values[low + 1] - values[low]) * (place - low))

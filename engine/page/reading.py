"""What was read, and what became of every row; what was set aside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.page import chart
from engine.page.figures import (
    cut,
    facts,
    figure,
    more,
    note,
    number,
    percent,
    plural,
    pointer,
    seconds,
    shown,
    size,
    state,
    table,
    whole,
)
from engine.page.html import Markup, Node, el, markup
from engine.page.room import Room
from engine.page.summary import name

_BALANCE = (
    ("read", "read", ""),
    ("passed", "passed", "="),
    ("quarantined", "quarantined", "+"),
    ("dropped", "dropped", "+"),
    ("duplicates_removed", "duplicates", "+"),
)
_MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d")
_MOST = 60  # columns, changes and the like in a list

Json = Mapping[str, Any]


def read(report: Json) -> Markup:
    """A card per source."""
    cards = [_source(report, i, source) for i, source in enumerate(report.get("sources") or ())]
    body: Node = cards or note("Nothing was read.")
    return el("section", el("h2", "What was read", id="read"), body, aria_labelledby="read")


def _source(report: Json, i: int, source: Json) -> Markup:
    metrics, balance = source.get("metrics") or {}, source.get("balance") or {}
    at = pointer("sources", i)
    sums = [
        el(
            "div",
            el("dt", el("span", sign, aria_hidden="true"), label),
            el("dd", figure(report, f"{at}/balance/{key}")),
        )
        for key, label, sign in _BALANCE
    ]
    shares = [balance.get(key) or 0 for key, _, _ in _BALANCE[1:]]
    rate = metrics.get("rows_per_second")
    return el(
        "article",
        el("h3", str(source.get("name")), " ", state(source.get("state"))),
        el("p", el("code", cut(source.get("location") or "", 300)), class_="place"),
        el("dl", sums, class_="balance"),
        chart.parts(shares, ("ok", "bad", "warn", "note"), _spoken(balance)) if sum(shares) else None,
        el(
            "p",
            f"{seconds(metrics.get('duration_seconds'))} to read and land",
            f", {whole(rate)} rows a second" if rate else None,
            f"; {plural(metrics['retries'], 'retry', 'retries')}" if metrics.get("retries") else None,
            ". ",
            " ".join(_notes(source)),
            class_="quiet",
        ),
        more("How it was read", facts(_facts(report, at, source))),
        _changes(source),
        _columns(source),
        class_="card",
    )


def _spoken(balance: Json) -> str:
    return ", ".join(f"{whole(balance.get(key))} {label}" for key, label, _ in _BALANCE[1:])


def _facts(report: Json, at: str, source: Json) -> Iterator[tuple[str, Node]]:
    metrics, promise = source.get("metrics") or {}, source.get("promise") or {}
    yield "mode", str(source.get("mode"))
    for key, label in (
        ("rows", "rows of the table now"),
        ("rows_replaced", "rows replaced"),
        ("rows_deleted", "rows deleted"),
        ("chunks", "chunks"),
        ("chunks_skipped", "chunks that had landed before"),
        ("retries", "retries"),
    ):
        if key in metrics:
            yield label, figure(report, f"{at}/metrics/{key}")
    yield "size of its columns", size(metrics.get("bytes_processed"))
    yield "error rate", number(metrics.get("error_rate"))
    snapshot = {
        "one": "one moment for all rows",
        "per_chunk": "one moment per chunk, not for all rows",
        "none": "no moment is vouched for",
    }
    yield "snapshot", snapshot.get(str(promise.get("snapshot")), "–")
    yield "count compared with the source's own", "yes" if promise.get("counted") else "no"
    if promise.get("late_commits"):
        yield "late commits", str(promise["late_commits"]).replace("_", " ")
    if promise.get("note"):
        yield "note", cut(promise["note"], 400)


def _notes(source: Json) -> Iterator[str]:
    metrics, carried = source.get("metrics") or {}, (source.get("balance") or {}).get("carried_over") or {}
    if carried.get("judged"):
        yield f"{plural(carried['judged'], 'row')} of runs that were blocked were judged again."
    for column, count in list((metrics.get("values_discarded") or {}).items())[:_MOST]:
        yield f"{plural(count, 'value')} of {column} left out, which do not fit the contract."


def _changes(source: Json) -> Markup | None:
    changes = (source.get("metrics") or {}).get("schema_changes") or ()
    if not changes:
        return None
    rows = [
        [str(c.get("column")), *(_text(c.get(k)) for k in ("change", "before", "after", "action"))] for c in changes
    ]
    heads = ("Column", "Change", "Before", "After", "What became of it")
    shown_ = table(f"Changed columns of {source.get('name')}", heads, rows[:_MOST])
    return more(f"{plural(len(changes), 'column')} changed since the read before", shown_, open_=True)


def _text(value: Any) -> str:
    return "–" if value is None else cut(value, 200)


def _columns(source: Json) -> Markup | None:
    columns = (source.get("metrics") or {}).get("columns") or {}
    if not columns or source.get("profile"):  # which shows them with their types
        return None
    rows = [[column, str(dtype)] for column, dtype in list(columns.items())[:_MOST]]
    left = len(columns) - len(rows)
    return more(
        plural(len(columns), "column"),
        table(f"Columns of {source.get('name')}", ("Column", "Type"), rows),
        note(f"… and {plural(left, 'more column')}.") if left else None,
    )


def quarantined(report: Json) -> Markup | None:
    """Rows that were set aside, by what they broke."""
    rows: list[list[Node]] = []
    for i, source in enumerate(report.get("sources") or ()):
        metrics, where = source.get("metrics") or {}, str(source.get("name"))
        for column in metrics.get("failed_by_column") or {}:
            if count := metrics["failed_by_column"][column]:
                at = pointer("sources", i, "metrics", "failed_by_column", column)
                why = f"breaks the {column}" if column.startswith("contract.") else f"null in {column}"
                rows.append([where, why, "quarantined", figure(report, at) if count else None])
        for j, result in enumerate((source.get("validation") or {}).get("results") or ()):
            how = (result.get("details") or {}).get("on_violation")
            if how in ("quarantine", "drop") and result.get("failed_records"):
                at = pointer("sources", i, "validation", "results", j, "failed_records")
                became = {"quarantine": "quarantined", "drop": "dropped"}[how]
                rows.append([where, el("code", name(result)), became, figure(report, at)])
    if not rows:
        return None
    return el(
        "section",
        el("h2", "What was set aside", id="quarantine"),
        table("Rows that were set aside", ("Source", "Because", "Became", "Rows"), rows[:500], numbers=(3,)),
        note("A row may break several checks. ", el("code", "maestro quarantine show"), " lists the rows."),
        aria_labelledby="quarantine",
    )


def profile(report: Json, room: Room) -> Markup | None:
    """What each table looked like, column by column."""
    parts = [p for source in report.get("sources") or () if (p := _profile(source, room))]
    if not parts:
        return None
    return el("section", el("h2", "What the tables looked like", id="profile"), parts, aria_labelledby="profile")


def _profile(source: Json, room: Room) -> Markup | None:
    found = source.get("profile") or {}
    columns = found.get("columns") or ()
    if not columns:
        return None
    total, hidden = found.get("rows") or 0, set(source.get("pii") or ())
    rows = [_column(column, total, masked=column.get("name") in hidden) for column in columns[: room.columns]]
    left = len(columns) - len(rows)
    heads = ("Column", "Type", "Nulls", "Distinct", "Least", "Mean", "Greatest", "Values")
    return more(
        [el("strong", str(source.get("name"))), f": {plural(total, 'row')}, {plural(len(columns), 'column')}"],
        table(f"Profile of {source.get('name')}", heads, rows, numbers=(2, 3, 4, 5, 6), class_="profile"),
        note(f"… and {plural(left, 'more column')}, in the report's JSON.") if left else None,
    )


def _column(column: Json, total: int, *, masked: bool) -> list[Node]:
    nulls = column.get("nulls")
    share = percent(nulls / total) if total and isinstance(nulls, int) else "–"
    least, greatest = ("masked" if masked else _value(column.get(key)) for key in ("min", "max"))
    mean = "masked" if masked else _value(column.get("mean"))
    return [
        str(column.get("name")),
        str(column.get("dtype") or ""),
        share,
        whole(column.get("distinct")),
        least,
        mean,
        greatest,
        "masked" if masked else _drawn(column),
    ]


def _value(value: Any) -> str:
    if isinstance(value, str) and _MOMENT.match(value):
        return value[:16].replace("T", " ")  # to the minute
    return "–" if value is None else number(value) if isinstance(value, int | float) else cut(shown(value), 40)


def _drawn(column: Json) -> Markup:
    counts = (column.get("histogram") or {}).get("counts") or ()
    if counts:
        return chart.histogram(counts, f"histogram of {column.get('name')}")
    top = (column.get("top") or ())[:3]
    if top and not any((t.get("count") or 0) > 1 for t in top):
        return markup("no value is frequent")
    said = [[el("bdi", cut(shown(t.get("value")), 24)), f" ({whole(t.get('count'))})"] for t in top]
    return markup([[", " if i else None, *one] for i, one in enumerate(said)])

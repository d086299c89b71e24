"""The checks on the page: those that failed, with the rows that break them, and then all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.page.figures import badge, cut, figure, more, note, percent, plural, pointer, result_mark, shown, table
from engine.page.html import Markup, Node, el
from engine.page.room import Room
from engine.page.summary import family, is_failed, name, results

_ORDER = {"error": 0, "warning": 1, "info": 2}
APART = ("drift", "anomaly")  # families with a section of their own

_COUNT = re.compile(r"^[\d,]+ of [\d,]+(?: \([^)]* %\))? ")  # which stands before it already

Json = Mapping[str, Any]


def failures(report: Json, room: Room) -> Markup | None:
    """What failed, the worst first."""
    failed = [f for f in results(report) if is_failed(f[3]) and family(f[3]) not in APART]
    failed.sort(key=lambda f: _ORDER.get(str(f[3].get("severity")), 0))
    if not failed:
        return None
    full = [_failure(report, *f, room=room) for f in failed[: room.full]]
    rest = [_line(report, *f, room=room, placed=True) for f in failed[room.full : room.lines]]
    left = len(failed) - len(full) - len(rest)
    return el(
        "section",
        el("h2", "What failed ", el("small", plural(len(failed), "check")), id="failed"),
        full,
        table("The other failed checks", _HEADS, rest, numbers=(2, 3), class_="checks") if rest else None,
        note(f"… and {plural(left, 'more failed check')}, in the report's JSON.") if left else None,
        aria_labelledby="failed",
    )


_HEADS = ("Check", "Result", "Rows", "Share", "Found")


def _failure(report: Json, i: int, j: int, source: Json, result: Json, *, room: Room) -> Markup:
    at = pointer("sources", i, "validation", "results", j)
    fraction = _fraction(result)
    said: Node = message(result, room)
    if fraction is not None and not (result.get("details") or {}).get("cannot_run"):
        count, rest = result.get("failed_records"), _COUNT.sub("", message(result, room), count=1)
        noun = "row" if count == 1 else "rows"
        said = [el("strong", figure(report, f"{at}/failed_records"), f" {noun}, {percent(fraction)}"), f": {rest}"]
    return el(
        "article",
        el("h3", badge(result_mark(result)), " ", el("code", name(result)), el("span", f" on {source.get('name')}")),
        el("p", said),
        _sample(result, room),
        class_=f"failure {result_mark(result)[0]}",
    )


def _sample(result: Json, room: Room) -> Markup | None:
    sample = result.get("sample") or ()
    if not sample:
        return None
    some = f"The first {len(sample):,} of them" if len(sample) < (result.get("failed_records") or 0) else "The rows"
    return more(some if len(sample) > 1 else "An example", rows_table(sample, f"Rows that break {name(result)}", room))


def message(result: Json, room: Room) -> str:
    """What a check found, without the name of its column, which stands beside it."""
    return cut(str(result.get("message") or "").removeprefix(f"{result.get('column')}: "), room.letters)


def rows_table(sample: Sequence[Json], caption: str, room: Room) -> Markup:
    """Rows of a sample: position first, then where they came from, then their values."""
    heads = list(sample[0])
    right = [i for i, head in enumerate(heads) if all(_is_plain_number(row.get(head)) for row in sample)]
    return table(
        caption,
        heads,
        [[el("bdi", cut(shown(row.get(h)), room.cell)) for h in heads] for row in sample],
        numbers=right,
        class_="rows",
    )


def _is_plain_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fraction(result: Json) -> float | None:
    details = result.get("details") or {}
    known = (details.get(key) for key in ("failed_fraction", "null_fraction", "duplicate_fraction"))
    return next((float(f) for f in known if isinstance(f, int | float) and not isinstance(f, bool)), None)


def _line(report: Json, i: int, j: int, source: Json, result: Json, *, room: Room, placed: bool = False) -> list[Node]:
    at = pointer("sources", i, "validation", "results", j, "failed_records")
    fraction = _fraction(result)
    count = figure(report, at) if fraction is not None else None
    return [
        [el("code", name(result)), *([" ", el("span", str(source.get("name")), class_="where")] if placed else [])],
        badge(result_mark(result)),
        count,
        percent(fraction) if fraction and result.get("failed_records") else None,
        message(result, room),
    ]


def every(report: Json, room: Room) -> Markup:
    """All checks, by source."""
    parts = list(_by_source(report, room))
    body: Node = parts or note("No checks are declared: add a validation section to the pipeline file.")
    return el("section", el("h2", "All checks", id="checks"), body, aria_labelledby="checks")


def _by_source(report: Json, room: Room) -> Iterator[Markup]:
    left = room.lines
    for i, source in enumerate(report.get("sources") or ()):
        validation = source.get("validation") or {}
        found = [(i, j, source, result) for j, result in enumerate(validation.get("results") or ())]
        if not found:
            continue
        at = pointer("sources", i, "validation")
        said = [
            el("strong", str(source.get("name"))),
            ": ",
            figure(report, f"{at}/passed"),
            " of ",
            figure(report, f"{at}/total_checks"),
            " passed",
        ]
        lines = [_line(report, *f, room=room) for f in found[:left]]
        left -= len(lines)
        hidden = len(found) - len(lines)
        yield more(
            said,
            table(f"Checks of {source.get('name')}", _HEADS, lines, numbers=(2, 3), class_="checks"),
            note(f"… and {plural(hidden, 'more check')}, in the report's JSON.") if hidden else None,
        )

"""Figures as people read them, and as the page's tables and lines show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.page.html import Markup, Node, el, markup

LONGEST = 120  # characters of a value that is shown
MARKS = {
    "passed": ("ok", "✓", "passed"),
    "error": ("bad", "✕", "ERROR"),
    "warning": ("warn", "!", "WARNING"),
    "info": ("note", "i", "INFO"),
}
STATES = {
    "done": ("ok", "✓", "done"),
    "blocked": ("bad", "✕", "blocked"),
    "failed": ("bad", "✕", "failed"),
    "partial": ("bad", "✕", "partial"),
    "interrupted": ("warn", "!", "interrupted"),
    "running": ("note", "…", "running"),
    "accepted": ("ok", "✓", "accepted"),
    "landed": ("note", "i", "landed, not judged"),
}


def whole(number: Any) -> str:
    """``12,345``."""
    return f"{int(number):,}" if is_number(number) else "–"


def number(value: Any) -> str:
    """A measured number, short."""
    if not is_number(value):
        return shown(value) if value is not None else "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e15 or abs(value) < 1e-4:
        return f"{value:.3e}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(fraction: Any) -> str:
    """``8.0 %``; of a tiny share its first digits, never 0 for something."""
    if not is_number(fraction):
        return "–"
    hundred = 100 * float(fraction)
    return f"{hundred:.1f} %" if hundred == 0 or abs(hundred) >= 0.1 else f"{hundred:.2g} %"


def seconds(value: Any) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if not is_number(value):
        return "–"
    if value < 59.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: Any) -> str:
    """Bytes, in the unit they are most easily read in."""
    if not is_number(count):
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value of the data: text as it is, null as such, anything else as JSON has it; cut where it is long."""
    text = "null" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return cut(text, LONGEST)


def cut(text: Any, most: int) -> str:
    """``text``, at most so long."""
    text = str(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plural(count: Any, noun: str, many: str | None = None) -> str:
    """``1 check``, ``3 checks``."""
    return f"{whole(count)} {noun if count == 1 else many or noun + 's'}"


def moment(text: Any, *, brief: bool = False) -> Markup:
    """A moment of the JSON: to the second, in UTC; where that is said elsewhere, briefly, to the minute."""
    said = str(text or "")
    if brief:
        return el("time", said[:16].replace("T", " "), datetime=said)
    short = said.removesuffix("Z").partition(".")[0].replace("T", " ")
    return el("time", f"{short} UTC" if said.endswith("Z") else short, datetime=said)


def figure(report: Mapping[str, Any], at: str, write: Any = whole) -> Markup:
    """A figure of the report's JSON with its place there (a JSON pointer), so that the two can be compared."""
    value: Any = report
    for part in at.split("/")[1:]:
        key: Any = int(part) if isinstance(value, Sequence) and not isinstance(value, str) else _unescaped(part)
        value = value[key] if isinstance(value, Sequence) else (value or {}).get(key)
    return el("data", write(value), value=value if is_number(value) else None, data_at=at)


def pointer(*parts: str | int) -> str:
    """A place in the JSON: ``/sources/0/balance/read``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def badge(mark: tuple[str, str, str]) -> Markup:
    """A verdict in colour, with a sign and in words: none of them is needed to tell it."""
    kind, sign, words = mark
    return el("span", el("span", sign, aria_hidden="true"), f" {words}" if words else None, class_=f"badge {kind}")


def state(word: Any) -> Markup:
    """The badge of a run's or a table's state."""
    return badge(STATES.get(str(word), ("note", "?", str(word))))


def result_mark(result: Mapping[str, Any]) -> tuple[str, str, str]:
    """Passed, or how bad a failure is."""
    return MARKS["passed" if result.get("passed") else str(result.get("severity") or "error")]


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[Node]], *, numbers: Iterable[int] = (), class_: str = ""
) -> Markup:
    """A table with a caption and named columns, of which the first names the row; it scrolls where it is too wide."""
    right = set(numbers)
    head = el("tr", [el("th", h, scope="col", class_="num" if i in right else None) for i, h in enumerate(heads)])
    body = [el("tr", [_cell(i, cell, i in right) for i, cell in enumerate(row)]) for row in rows]
    inner = el("table", el("caption", caption), el("thead", head), el("tbody", body), class_=class_ or None)
    return el("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(position: int, cell: Node, right: bool) -> Markup:
    if position == 0:
        return el("th", cell, scope="row")
    return el("td", cell, class_="num" if right else None)


def facts(pairs: Iterable[tuple[str, Node]]) -> Markup:
    """Names and values."""
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in pairs], class_="facts")


def more(summary: Node, *content: Node, open_: bool = False) -> Markup:
    """What is shown at a click, or a key."""
    return el("details", el("summary", summary), *content, open=open_)


def section(identity: str, title: Node, *content: Node) -> Markup:
    """A part of the page with its heading."""
    return el("section", el("h2", title, id=identity), *content, aria_labelledby=identity)


def note(*content: Node) -> Markup:
    return el("p", markup(*content), class_="note")

"""The page of one run: the verdict first, then what failed, then the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from engine.page import checks, drift, published, reading
from engine.page.figures import STATES, badge, cut, moment, note, plural, seconds, whole
from engine.page.html import Markup, Node, content_policy, document, el, markup
from engine.page.room import MOST_BYTES, Room
from engine.page.summary import headline, summary

Json = Mapping[str, Any]


@cache
def style() -> str:
    """The style of all pages."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def policy() -> str:
    """The content policy of all pages."""
    return content_policy(style())


def render(report: Json, *, index: str | None = "index.html") -> str:
    """The page of a run, as a whole HTML document of at most a megabyte.

    Args:
        report: what `engine.outcome.RunReport.to_dict` gives; of an older form, whatever is in it.
        index: the page that leads to the other runs; None: there is none.
    """
    room = Room()
    while True:
        html = _page(report, index, room)
        less = room.smaller()
        if less is None or len(html.encode("utf-8", "backslashreplace")) <= MOST_BYTES:
            return html
        room = less


def _page(report: Json, index: str | None, room: Room) -> str:
    sections = [
        checks.failures(report, room),
        drift.drifted(report, room),
        drift.anomalies(report, room),
        reading.read(report),
        reading.quarantined(report),
        checks.every(report, room),
        reading.profile(report, room),
        published.published(report),
        published.stages(report),
    ]
    there = [found for found in sections if found]
    title = f"{report.get('pipeline')}: {report.get('status')}, {report.get('created_timestamp')}"
    return document(
        title,
        style(),
        el("a", "Skip to the verdict", href="#verdict", class_="skip"),
        _header(report, index),
        el("main", _verdict(report), _contents(there), there, id="main", tabindex="-1"),
        el("footer", el("p", f"Run {report.get('run_id')}. The same figures: {report.get('run_id')}.json.")),
    )


def _header(report: Json, index: str | None) -> Markup:
    crumbs = el("nav", el("a", "All runs", href=index), aria_label="Pages") if index else None
    when = el("p", "begun ", moment(report.get("created_timestamp")), class_="quiet")
    return el("header", crumbs, el("h1", str(report.get("pipeline"))), when)


def _verdict(report: Json) -> Markup:
    kind, sign, _ = STATES.get(str(report.get("status")), ("note", "?", ""))
    sums = summary(report)
    if kind == "ok" and sums["warnings"]:
        kind, sign = "warn", "!"
    tiles = [
        el("div", el("dt", name), el("dd", value), class_="wide" if name == "as of" else None)
        for name, value in _tiles(report, sums)
    ]
    return el(
        "section",
        el("h2", badge((kind, sign, "")), " ", el("span", headline(report)), id="verdict"),
        _error(report.get("error")),
        [note(el("strong", "Warning: "), cut(text, 400)) for text in report.get("warnings") or ()],
        el("dl", tiles, class_="tiles"),
        class_=f"verdict {kind}",
        aria_labelledby="verdict",
    )


def _tiles(report: Json, sums: Json) -> Iterator[tuple[str, Node]]:
    passed = sums["checks"] - sums["errors"] - sums["warnings"]
    yield "rows read", _sum("rows_read", sums)
    yield "checks", el("data", f"{whole(sums['checks'])}", value=sums["checks"], data_sum="checks")
    if sums["checks"] and passed != sums["checks"]:
        yield "errors", _sum("errors", sums)
        yield "warnings", _sum("warnings", sums)
    if sums["drifted"]:
        yield "drifted", _sum("drifted", sums)
    yield "quarantined", _sum("quarantined", sums)
    yield "rows published", _sum("published", sums)
    yield "took", seconds(sums["seconds"])
    as_of = report.get("as_of") or ()
    if as_of:
        yield "as of", [moment(as_of[-1]), f" and {plural(len(as_of) - 1, 'more')}" if len(as_of) > 1 else None]


def _sum(key: str, sums: Json) -> Markup:
    return el("data", whole(sums[key]), value=sums[key], data_sum=key)


def _error(error: Json | None) -> Markup | None:
    if not error:
        return None
    parts = [("where", "where"), ("allowed", "allowed"), ("fix", "what to do"), ("code", "code")]
    said = [el("div", el("dt", label), el("dd", cut(error[key], 600))) for key, label in parts if error.get(key)]
    return el("dl", said, class_="facts error")


def _contents(sections: list[Markup]) -> Markup:
    """Links to the parts of the page, by their headings."""
    names = {
        "failed": "failed",
        "drift": "drifted",
        "anomalies": "past runs",
        "read": "read",
        "quarantine": "set aside",
        "checks": "all checks",
        "profile": "profile",
        "published": "published",
        "stages": "time",
    }
    whole_text = str(markup(sections))
    links = [el("a", label, href=f"#{key}") for key, label in names.items() if f'id="{key}"' in whole_text]
    return el("nav", links, class_="contents", aria_label="On this page")

"""The index of past runs: how each ended, and how the figures went from run to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from engine.page import chart
from engine.page.figures import STATES, badge, cut, moment, note, percent, plural, seconds, table, whole
from engine.page.html import Markup, Node, document, el
from engine.page.run import style

DRAWN = 60  # runs
CARDS = 12  # sources, and columns, whose trend is drawn
Json = Mapping[str, Any]


def render(pipeline: str, runs: Sequence[Json]) -> str:
    """The index page.

    Args:
        runs: what `engine.page.summary.summary` gives of each, oldest first.
    """
    return document(
        f"{pipeline}: runs",
        style(),
        el("a", "Skip to the runs", href="#runs", class_="skip"),
        el("header", el("h1", pipeline), el("p", plural(len(runs), "run"), class_="quiet")),
        el(
            "main",
            _last(runs[-1]) if runs else note("There is no run yet."),
            _trends(runs) if runs else None,
            _list(runs) if runs else None,
            id="main",
        ),
    )


def _mark(run: Json) -> tuple[str, str, str]:
    """A run's badge; done with warnings is not simply done."""
    mark = STATES.get(str(run.get("status")), ("note", "?", str(run.get("status"))))
    return ("warn", "!", "done, with warnings") if mark[0] == "ok" and run.get("warnings") else mark


def _page(run: Json) -> str:
    return f"{run.get('run_id')}.html"


def _last(run: Json) -> Markup:
    mark = _mark(run)
    link = el("a", "Open its page", href=_page(run))
    return el(
        "section",
        el("h2", badge((*mark[:2], "")), " ", el("span", str(run.get("headline"))), id="verdict"),
        el("p", "The newest run, begun ", moment(run.get("created_timestamp")), ". ", link),
        class_=f"verdict {mark[0]}",
        aria_labelledby="verdict",
    )


def _trends(runs: Sequence[Json]) -> Markup:
    strip = [
        el(
            "li",
            el("a", mark[1], href=_page(run), class_=mark[0], aria_label=_spoken(run, mark), title=_spoken(run, mark)),
        )
        for run in runs[-DRAWN:]
        for mark in [_mark(run)]
    ]
    return el(
        "section",
        el("h2", "From run to run", id="trends"),
        el("ol", strip, class_="strip"),
        el("div", list(_cards(runs[-DRAWN:])), class_="cards"),
        aria_labelledby="trends",
    )


def _spoken(run: Json, mark: tuple[str, str, str]) -> str:
    return f"{run.get('created_timestamp')}: {mark[2]}"


def _cards(runs: Sequence[Json]) -> Iterator[Markup]:
    when = [str(run.get("created_timestamp")) for run in runs]
    failed = [[run.get("errors") or 0, run.get("warnings") or 0] for run in runs]
    label = f"failed checks over {plural(len(runs), 'run')}"
    bars = chart.columns(failed, ("bad", "warn"), label)
    legend = [el("span", class_="key bad"), "errors ", el("span", class_="key warn"), "warnings"]
    yield _card("Failed checks", whole(sum(failed[-1])), bars, [*legend, f"; most: {max(map(sum, failed)):,}"])
    times = [run.get("seconds") for run in runs]
    yield _line("Time", times, when, seconds)
    for source in _names(runs, "rows"):
        values = [(run.get("rows") or {}).get(source) for run in runs]
        yield _line(f"Rows of {source}", values, when, whole)
    for column in _names(runs, "nulls"):
        values = [(run.get("nulls") or {}).get(column) for run in runs]
        if any(values):
            yield _line(f"Nulls in {column}", values, when, percent)


def _names(runs: Sequence[Json], key: str) -> list[str]:
    """Sources in order; columns by how much their null rate moved."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, value in (run.get(key) or {}).items():
            found.setdefault(name, []).append(value or 0)
    names = (
        list(found) if key == "rows" else sorted(found, key=lambda n: (min(found[n]) - max(found[n]), -max(found[n])))
    )
    return names[:CARDS]


def _line(title: str, values: Sequence[Any], when: Sequence[str], write: Callable[[Any], str]) -> Markup:
    known = [value for value in values if value is not None]
    if not known:
        return _card(title, "–", None, "not measured")
    titles = [f"{moment_}: {write(value)}" for moment_, value in zip(when, values, strict=True)]
    spoken = f"{title} over {plural(len(known), 'run')}: from {write(min(known))} to {write(max(known))}"
    drawn = chart.trend(values, spoken, titles)
    last = write(values[-1]) if values[-1] is not None else "–"
    return _card(title, last, drawn, f"{write(min(known))} to {write(max(known))}")


def _card(title: str, value: str, drawn: Markup | None, below: Node) -> Markup:
    heading = el("h3", title)
    return el(
        "article", heading, el("p", value, class_="now-value"), drawn, el("p", below, class_="quiet"), class_="card"
    )


def _list(runs: Sequence[Json]) -> Markup:
    heads = ("Begun (UTC)", "Result", "As of (UTC)", "Rows read", "Failed checks", "Set aside", "Published", "Time")
    rows = [_row(run) for run in reversed(runs)]
    return el(
        "section",
        el("h2", "Runs", id="runs"),
        table("All runs that are kept, the newest first", heads, rows, numbers=(3, 4, 5, 6, 7), class_="runs"),
        aria_labelledby="runs",
    )


def _row(run: Json) -> list[Node]:
    as_of, count = run.get("as_of") or (), run.get("as_ofs") or 1
    said = [moment(as_of[-1], brief=True), f" and {count - 1:,} more" if count > 1 else None] if as_of else None
    why = cut(run.get("headline") or "", 160) if run.get("status") != "done" else None
    return [
        el("a", moment(run.get("created_timestamp"), brief=True), href=_page(run)),
        [badge(_mark(run)), el("p", why, class_="quiet") if why else None],
        said,
        whole(run.get("rows_read")),
        whole((run.get("errors") or 0) + (run.get("warnings") or 0)),
        whole(run.get("quarantined")),
        whole(run.get("published")),
        seconds(run.get("seconds")),
    ]

"""What was published, and how long each stage took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.page import chart
from engine.page.figures import cut, figure, note, number, percent, plural, pointer, seconds, table, whole
from engine.page.html import Markup, Node, el

LISTED = 400
WAITED = 0.005  # seconds of waiting that are worth a word
STAGES = ("start", "read", "check", "profile", "compute", "publish", "feast", "finish")

Json = Mapping[str, Any]


def published(report: Json) -> Markup:
    """The files of each view, and what a reader of the features should know."""
    rows: list[list[Node]] = []
    notes: list[str] = []
    for i, view in enumerate(report.get("views") or ()):
        files, counts = view.get("files") or (), view.get("rows") or ()
        for j, file in enumerate(files):
            again = " (again: its definition changed)" if file in (view.get("again") or ()) else ""
            again = " (again: late or changed rows)" if file in (view.get("redone") or ()) else again
            count = figure(report, pointer("views", i, "rows", j)) if j < len(counts) else None
            rows.append([str(view.get("name")), count, el("code", file), again])
        notes += [f"{view.get('name')}: {line}." for line in _began(view.get("start") or {})]
        notes += _notes(view)
    feast = report.get("feast")
    if feast:
        loaded = " and loaded into its online store" if feast.get("materialized") else ""
        notes.append(f"Registered with Feast in {feast.get('repo')}{loaded}.")
    body: Node = note("Nothing was published by this run.")
    if rows:
        lines = [[name, count, [file, again]] for name, count, file, again in rows[:LISTED]]
        left = len(rows) - len(lines)
        body = [
            table("Published files", ("View", "Rows", "File"), lines, numbers=(1,), class_="files"),
            note(f"… and {plural(left, 'more file')}.") if left else None,
        ]
    listed = el("ul", [el("li", cut(text, 500)) for text in notes[:LISTED]], class_="notes") if notes else None
    return el("section", el("h2", "What was published", id="published"), body, listed, aria_labelledby="published")


def came(start: Json) -> Iterator[str]:
    """What a view went on from, and what came to its events."""
    if start.get("from") == "saved state":
        new = ", ".join(f"{whole(count)} new ones of {source}" for source, count in start["new"].items() if count)
        yield f"went on from saved state: {whole(start['rows_read'])} rows of events read, {new or 'none of them new'}"
    for source, count in (start.get("late") or {}).items():
        if count:
            late = f"{whole(count)} rows of {source} came too late to move what was published"
            yield f"{late}: they count from the next as-of on; a backfill takes them into the past"


def _began(start: Json) -> Iterator[str]:
    """Where the computing of a view began, and why, and what came to its events."""
    if start.get("because"):
        yield f"computed from whole tables, {whole(start['rows_read'])} rows of events: {start['because']}"
    yield from came(start)
    for source, count in (start.get("changed") or {}).items():
        if count:
            yield f"{plural(count, 'row')} of {source} had changed or gone"


def _notes(view: Json) -> Iterator[str]:
    name = view.get("name")
    if view.get("settings"):
        yield f"{name}: " + ", ".join(f"{k} = {v}" for k, v in view["settings"].items()) + "."
    for role, columns in (view.get("timeless_attributes") or {}).items():
        yield f"{name}: taken as they stood when read, whatever the as-of: {role} {', '.join(columns)}."
    for role, columns in (view.get("absent_columns") or {}).items():
        yield f"{name}: {role} has no {', '.join(columns)}, read as null."
    for role, counts in (view.get("left_out") or {}).items():
        said = [f"{whole(n)} with a {str(k).removesuffix('s').replace('_', ' ')}" for k, n in counts.items() if n]
        if said:
            yield f"{name}: rows of {role} that took part in nothing: {', '.join(said)}."
    for dropped in view.get("dropped") or ():
        if dropped:
            yield f"{name}: {plural(dropped, 'row')} dropped for a null feature."
    for clipped in view.get("clipped") or ():
        if clipped:
            yield f"{name}: beyond the pinned range, clipped: " + ", ".join(
                f"{k} ({whole(n)})" for k, n in clipped.items()
            )
    for columns in view.get("all_null") or ():
        if columns:
            yield f"{name}: all null, nothing to impute from: {', '.join(columns)}."


def stages(report: Json) -> Markup | None:
    """A bar of the stages, a table of them, and another of what each spent on which source or view."""
    took: Mapping[str, float] = report.get("seconds") or {}
    if not took:
        return None
    order = [s for s in STAGES if s in took] + [s for s in took if s not in STAGES]
    total = sum(took.values())
    classes = [f"s{i % chart.SERIES}" for i in range(len(order))]
    rows: list[list[Node]] = [
        [
            [el("span", class_=f"key {kind}"), f" {stage}"],
            figure(report, pointer("seconds", stage), seconds),
            percent(took[stage] / total) if total else "–",
        ]
        for stage, kind in zip(order, classes, strict=True)
    ]
    rows.append(["all", seconds(total), ""])
    spoken = ", ".join(f"{stage} {number(took[stage])} s" for stage in order)
    return el(
        "section",
        el("h2", "How long it took", id="stages"),
        chart.parts([took[stage] for stage in order], classes, spoken),
        table("Seconds by stage", ("Stage", "Time", "Share"), rows, numbers=(1, 2), class_="stages"),
        _laps(report, total, dict(zip(order, classes, strict=True))),
        aria_labelledby="stages",
    )


def _laps(report: Json, total: float, kinds: Mapping[str, str]) -> Markup | None:
    """The critical path: what came one after another, when, how busy the processors were, and what was waited for."""
    laps: Sequence[Json] = report.get("stages") or ()
    if not laps:
        return None
    end = max((ended for lap in laps for _, ended in lap.get("spans") or ()), default=0.0)
    stood: dict[str, float] = {}
    for lap in laps:
        for what, waited in (lap.get("waited") or {}).items():
            stood[what] = stood.get(what, 0.0) + waited
    rows: list[list[Node]] = [
        [
            [lap["stage"], " ", cut(lap["name"], 120)],
            figure(report, pointer("stages", i, "seconds"), seconds),
            figure(report, pointer("stages", i, "cpu_seconds"), seconds),
            f"{lap['cpu_seconds'] / lap['seconds']:.1f}" if lap["seconds"] else "–",
            percent(lap["seconds"] / total) if total else "–",
            _waits(lap.get("waited") or {}),
            chart.spans(lap.get("spans") or (), end, kinds.get(lap["stage"], "s0")) if end else "",
        ]
        for i, lap in enumerate(laps)
    ]
    rows.append(["all", seconds(total), seconds(sum(lap["cpu_seconds"] for lap in laps)), "", "", _waits(stood), ""])
    heads = ("Stage", "Time", "CPU", "Processors busy", "Share", "Of it waiting for", "When")
    title = "The critical path: one after another; what it waited for was done by threads and processes beside it"
    return table(title, heads, rows, numbers=(1, 2, 3, 4), class_="path")


def _waits(waited: Mapping[str, float]) -> str:
    """What was waited for, the longest first; not what took no time to speak of."""
    longest = sorted(waited.items(), key=lambda item: -item[1])
    return ", ".join(f"{what} {seconds(took)}" for what, took in longest if took >= WAITED)

"""What changed: distributions drawn against their baseline, and figures that stand out from those of past runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.page import chart
from engine.page.checks import message
from engine.page.figures import badge, cut, more, note, number, percent, plural, result_mark, shown, table, whole
from engine.page.html import Markup, Node, el
from engine.page.room import Room
from engine.page.summary import family, is_failed, results

BINS = 40
_APART = {"bins", "history", "baseline", "cannot_run", "reason"}  # shown in a place of their own

Json = Mapping[str, Any]


def drifted(report: Json, room: Room) -> Markup | None:
    """Every comparison with a baseline, those that drifted first."""
    found = [(source, result) for _, _, source, result in results(report) if family(result) == "drift"]
    if not found:
        return None
    found.sort(key=lambda pair: not is_failed(pair[1]))
    failed = sum(is_failed(result) for _, result in found)
    said = f"{failed:,} of {len(found):,}" if failed else f"none of {len(found):,}"
    lines: list[list[Node]] = [
        [f"{source.get('name')}.{result.get('column') or ''}", badge(result_mark(result)), message(result, room)]
        for source, result in found[room.drawn : room.lines]
    ]
    return el(
        "section",
        el("h2", "What drifted ", el("small", said), id="drift"),
        el(
            "p",
            el("span", class_="key base"),
            " baseline  ",
            el("span", class_="key now"),
            " this run",
            class_="legend",
        ),
        [_distribution(source, result, room) for source, result in found[: room.drawn]],
        table("The other comparisons", ("Column", "Result", "Found"), lines, class_="checks") if lines else None,
        note("… and more, in the report's JSON.") if len(found) > room.lines else None,
        aria_labelledby="drift",
    )


def _distribution(source: Json, result: Json, room: Room) -> Markup:
    details, column = result.get("details") or {}, str(result.get("column") or "")
    masked = bool({*column.split(",")} & {*(source.get("pii") or ())})
    baseline = details.get("baseline")
    title = [el("code", column or "the table"), el("span", f" of {source.get('name')}")]
    body = [
        el("p", message(result, room)),
        el("p", f"Baseline: {_named(baseline)}", class_="quiet") if baseline else None,
        _bins(details.get("bins") or (), column, masked=masked),
        more("Statistics", _statistics(details, column)),
    ]
    if is_failed(result):
        return el("article", el("h3", badge(result_mark(result)), " ", title), body, class_="failure warn")
    return more([badge(result_mark(result)), " ", title], body)


def _bins(bins: Sequence[Json], column: str, *, masked: bool) -> Markup | None:
    if not bins:
        return None
    most = max((max(b.get("baseline") or 0, b.get("current") or 0) for b in bins), default=0)
    rows: list[list[Node]] = [
        [
            f"value {i + 1} (masked)" if masked else el("bdi", cut(shown(b.get("label")), 40)),
            chart.twin(b.get("baseline") or 0, b.get("current") or 0, most),
            percent(b.get("baseline")),
            percent(b.get("current")),
        ]
        for i, b in enumerate(bins[:BINS])
    ]
    heads = ("Value", "Share", "Baseline", "This run")
    return table(f"Distribution of {column} against its baseline", heads, rows, numbers=(2, 3), class_="bins")


def _statistics(details: Json, column: str) -> Markup:
    """Everything measured, each beside its threshold where it has one."""
    rows = []
    thresholds = details.get("thresholds") or details.get("threshold") or {}
    for key, value in _flat(details):
        bare = key.rpartition(".")[2]
        threshold = thresholds.get(bare) if isinstance(thresholds, Mapping) else None
        rows.append([key.replace("_", " "), _said(value), number(threshold) if threshold is not None else ""])
    return table(
        f"Statistics of {column}", ("Measure", "Value", "Threshold"), rows[:60], numbers=(1, 2), class_="measures"
    )


def _named(baseline: Any) -> str:
    if isinstance(baseline, Mapping):
        baseline = ", ".join(f"{key} {_said(value)}" for key, value in baseline.items())
    return cut(shown(baseline), 200)


def _flat(details: Json) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in details.items():
        if key in _APART or key.startswith("threshold"):
            continue
        if isinstance(value, Mapping):
            found += [(f"{key}.{inner}" if key != "statistics" else str(inner), v) for inner, v in value.items()]
        else:
            found.append((key, value))
    return found


def _said(value: Any) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else cut(shown(value), 80)


def anomalies(report: Json, room: Room) -> Markup | None:
    """Figures beside those of past runs."""
    found = [(source, result) for _, _, source, result in results(report) if family(result) == "anomaly"]
    if not found:
        return None
    found.sort(key=lambda pair: not is_failed(pair[1]))
    failed = sum(is_failed(result) for _, result in found)
    rows = [_anomaly(source, result, room) for source, result in found[: room.lines]]
    heads = ("Figure", "Result", "Over the runs", "Found")
    return el(
        "section",
        el("h2", "Against past runs ", el("small", plural(failed, "anomaly", "anomalies")), id="anomalies"),
        table("Figures against those of past runs", heads, rows, class_="checks"),
        aria_labelledby="anomalies",
    )


def _anomaly(source: Json, result: Json, room: Room) -> list[Any]:
    details = result.get("details") or {}
    history = [v if isinstance(v, int | float) else None for v in details.get("history") or ()]
    now = details.get("value")
    values = [*history[-60:], now if isinstance(now, int | float) else None]
    drawn = chart.trend(values, f"{whole(len(history))} runs and this one") if history else None
    label = f"{source.get('name')}: {result.get('column') or 'rows'}"
    return [label, badge(result_mark(result)), drawn, message(result, room)]

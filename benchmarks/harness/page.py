"""``benchmarks/RESULTS.md``: all scenarios, their tables and pictures, from what each one's ``results.json`` keeps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import chart
from benchmarks.harness.contest import FLOOR, PEER, ROOT, Score
from benchmarks.harness.reporting import spread, table
from benchmarks.harness.results import Goal, Part, figures, load, ratios
from benchmarks.harness.scenario import Scenario

FOLDER = ROOT / "benchmarks"
INTRODUCTION = """\
# Results

Made by `scripts/bench`; how, and how to do it yourself, is in [README.md](README.md). Answers are compared first: who
is wrong is named and not timed. Every run is a fresh process, imports included; each round runs each contender once, in
turning order. All figures are medians, with the least and the most in brackets; seconds, CPU and memory are those of
the process with all its descendants, servers left out; memory is the peak of summed resident memory, in MB of 10^6
bytes.
`ours / it` is the median of the ratios within the rounds: below 1, ours took less. A `floor` is no product but a
limit: the work, or a part of it, by hand for this one table, without guards, or what the machine takes at least. A
peer does the same work; being ahead of every peer, by wall and by CPU seconds, is one of the things that are asked.
`elsewhere` is how many of the machine's cores all other processes had meanwhile, the servers of the benchmark among
them: where it is large, believe CPU seconds and ratios, not wall seconds.
"""
NAMES = {
    "wall": "wall s",
    "cpu": "CPU s",
    "peak": "peak MB",
    "inside": "inside s",
    "inside_cpu": "inside CPU s",
    "call": "call s",
}
FORMS = {"peak": ".0f"}


def write(scenarios: Sequence[Scenario]) -> Path:
    """The page and its pictures."""
    parts = {scenario.name: _ordered(load(scenario.results)) for scenario in scenarios}
    for scenario in scenarios:
        roles = {contender.name: contender.role for contender in scenario.contenders}
        for score in (score for part in parts[scenario.name] for score in part.scores):
            score.role = roles.get(score.name, score.role)  # as it is seen now
    lines = [INTRODUCTION, *_overview(scenarios, parts)]
    for scenario in scenarios:
        lines += ["", f"## {scenario.title}", "", scenario.what.strip(), ""]
        if not parts[scenario.name]:
            lines.append("Not measured yet.")
        else:
            lines += _pictures(scenario, parts[scenario.name])
        for part in parts[scenario.name]:
            lines += _part(scenario, part)
        if scenario.remarks and parts[scenario.name]:
            lines += ["", scenario.remarks.strip()]
    path = FOLDER / "RESULTS.md"
    path.write_text("\n".join(lines).rstrip() + "\n")
    return path


def _ordered(parts: dict[str, Part]) -> list[Part]:
    """Size M first, for it is what is asked about."""
    order = {size: i for i, size in enumerate(("M", "L", "S", "XS"))}
    return sorted(parts.values(), key=lambda part: order.get(part.size, 9))


def _overview(scenarios: Sequence[Scenario], parts: dict[str, list[Part]]) -> list[str]:
    rows = []
    for scenario in scenarios:
        for part in parts[scenario.name]:
            if part.size != "M" or not (ours := part.ours):
                continue
            peers = [s for s in part.scores if s.role == PEER and s.runs]
            best = min(peers, key=lambda s: statistics.median(figures(s, "wall")), default=None)
            floors = [f"{s.name}: {_ratio(ours, s, 'wall')}" for s in part.scores if s.role == FLOOR and s.runs]
            asked = [met for _, met, _ in _asked(scenario, part)] + ([_ahead(part)] if best else [])
            rows.append(
                [
                    f"{scenario.title}: {part.title}",
                    f"{statistics.median(figures(ours, 'wall')):.2f}",
                    f"{statistics.median(figures(ours, 'cpu')):.2f}",
                    f"{statistics.median(figures(ours, 'peak')) / 1e6:.0f}",
                    f"{best.name}: {_ratio(ours, best, 'wall')}" if best else "–",
                    "; ".join(floors) or "–",
                    f"{sum(asked)} of {len(asked)}" if asked else "–",
                ]
            )
    head = ("at size M", "wall s", "CPU s", "peak MB", "fastest peer: ours / it", "floor: ours / it", "asked and met")
    return table(head, rows) if rows else []


def _pictures(scenario: Scenario, parts: Sequence[Part]) -> list[str]:
    folder, made = FOLDER / "charts", []
    folder.mkdir(exist_ok=True)
    shown = [part for part in parts if part.size == parts[0].size]
    for what, unit, scale, title in (("wall", "s", 1, "wall seconds"), ("peak", "MB", 1e6, "peak memory")):
        groups = [
            (
                f"{part.title}, size {part.size}",
                [(s.name, s.role, statistics.median(figures(s, what)) / scale) for s in part.scores if s.runs],
            )
            for part in shown
        ]
        groups = [(name, rows) for name, rows in groups if rows]
        if groups:
            path = folder / f"{scenario.name}-{what}.svg"
            path.write_text(chart.bars(f"{scenario.title}: {title}", groups, unit))
            made.append(f"![{title}](charts/{path.name})")
    series = _memory(parts)
    if series:
        path = folder / f"{scenario.name}-sizes.svg"
        path.write_text(chart.lines(f"{scenario.title}: peak memory against size", series, "rows", "MB"))
        made.append(f"![peak memory against size](charts/{path.name})")
    return made


def _memory(parts: Sequence[Part]) -> dict[str, tuple[str, list[tuple[float, float]]]]:
    """By contender, where the first case was measured at several sizes: (rows, MB), as the part's first fact says."""
    found: dict[str, tuple[str, list[tuple[float, float]]]] = {}
    for part in parts:
        if part.case != parts[0].case or not part.facts:
            continue
        rows = float(next(iter(part.facts.values())).split()[0].replace(",", ""))
        for score in part.scores:
            if score.runs:
                found.setdefault(score.name, (score.role, []))[1].append(
                    (rows, statistics.median(figures(score, "peak")) / 1e6)
                )
    if not any(len(points) > 1 for _, points in found.values()):
        return {}
    return {name: (role, sorted(points)) for name, (role, points) in found.items()}


def _part(scenario: Scenario, part: Part) -> list[str]:
    lines = ["", f"### {part.title}, size {part.size}", ""]
    lines += [", ".join(f"{name}: {value}" for name, value in part.facts.items()), ""]
    own = [what for what in ("inside", "inside_cpu", "call") if any(figures(s, what) for s in part.scores)]
    shown = [*own, "wall", "cpu", "peak"]
    compared = [*own[:1], "wall", "cpu", "peak"]
    head = ["contender", "runs", *(NAMES[what] for what in shown), "start-up s", "left MB", "written MB", "elsewhere"]
    head += [f"ours / it: {NAMES[what].split()[0]}" for what in compared]
    rows = []
    for score in part.scores:
        if not score.runs:
            continue
        cells = [score.name + {FLOOR: " (floor)"}.get(score.role, ""), str(len(score.runs))]
        cells += [_figure(score, what) for what in shown]
        cells += [f"{score.startup:.2f}" if score.startup else "–", f"{score.size / 1e6:.0f}" if score.size else "–"]
        cells.append(_written(score))
        cells.append(_elsewhere(score))
        ours = part.ours
        cells += ["–" if score is ours or not ours else _ratio(ours, score, what) for what in compared]
        rows.append(cells)
    lines += table(head, rows) if rows else ["Nobody was timed."]
    lines += [*_asked_lines(scenario, part), *_stages(part), *_notes(part)]
    about = "; ".join(f"{name}: {value}" for name, value in part.about.items())
    return [*lines, "", f"<sub>{about}</sub>"]


def _figure(score: Score, what: str) -> str:
    scale = 1e6 if what == "peak" else 1
    return spread([value / scale for value in figures(score, what)], FORMS.get(what, ".2f"))


def _written(score: Score) -> str:
    found = [value for value in figures(score, "written") if value]
    return f"{statistics.median(found) / 1e6:.0f}" if found else "–"


def _elsewhere(score: Score) -> str:
    shares = [run["elsewhere"] / run["wall"] for run in score.runs if run.get("elsewhere") is not None and run["wall"]]
    return f"{statistics.median(shares):.1f}" if shares else "–"


def _ratio(ours: Score, other: Score, what: str) -> str:
    return spread(ratios(ours, other, what), ".2f")


def _asked(scenario: Scenario, part: Part) -> list[tuple[Goal, bool, float]]:
    """What is asked of ours here, whether it is met, and the figure."""
    found = []
    for goal in scenario.goals:
        if part.size not in goal.sizes or (goal.cases and part.case not in goal.cases) or not part.ours:
            continue
        ours = part.score(goal.who) if goal.who else part.ours
        if ours is None:
            continue
        if goal.than is None:
            values = figures(ours, goal.what)
        elif (other := part.score(goal.than)) and other.runs:
            values = ratios(ours, other, goal.what)
        else:
            continue
        if values:
            figure = max(values) if goal.than is None and goal.what == "peak" else statistics.median(values)
            found.append((goal, figure <= goal.must, figure))
    return found


def _asked_lines(scenario: Scenario, part: Part) -> list[str]:
    lines = []
    for goal, met, figure in _asked(scenario, part):
        name = NAMES.get(goal.what, goal.what).rsplit(" ", 1)[0]
        if goal.than is None:
            value, limit = (f"{x / 1e6:.0f} MB" if goal.what == "peak" else f"{x:.2f} s" for x in (figure, goal.must))
            text = f"{name} at most {limit}: {_yes(met)} ({value})"
        else:
            text = f"{name} at most {_times(goal.must)} of {goal.than}: {_yes(met)} ({_times(figure)})"
            if goal.aim is not None:
                text += f"; aim {_times(goal.aim)}: {_yes(figure <= goal.aim)}"
            if goal.what == "wall" and (other := part.score(goal.than)) and part.ours:
                text += f"; by CPU seconds {_times(statistics.median(ratios(part.ours, other, 'cpu')))}"
        lines.append(f"- {goal.who + ': ' if goal.who else ''}{text}")
    if behind := _behind(part):
        lines.append(f"- ahead of every peer: {behind}")
    return ["", "Asked of ours:", "", *lines] if lines else []


def _behind(part: Part) -> str:
    """Of the fastest peer, by wall and by CPU seconds; empty where there is none."""
    ours, found = part.ours, []
    peers = [score for score in part.scores if score.role == PEER and score.runs]
    for what in ("wall", "cpu") if ours else ():
        medians = {score.name: statistics.median(of) for score in peers if (of := ratios(ours, score, what))}
        if medians:
            name = max(medians, key=lambda peer: medians[peer])
            met = _yes(medians[name] < 1)
            found.append(f"{met} by {NAMES[what].split()[0]} ({_times(medians[name])} of {name})")
    return ", ".join(found)


def _ahead(part: Part) -> bool:
    """Of every peer, by wall and by CPU seconds."""
    ours = part.ours
    peers = [score for score in part.scores if score.role == PEER and score.runs]
    found = [ratios(ours, score, what) for score in peers for what in ("wall", "cpu")] if ours else []
    return all(statistics.median(of) < 1 for of in found if of)


def _times(ratio: float) -> str:
    return f"1/{1 / ratio:.3g}" if ratio < 0.75 else f"{ratio:.2f}"


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


def _stages(part: Part) -> list[str]:
    """Seconds by stage, of those who tell; of some CPU seconds too, with their share in what the process took."""
    lines = []
    for score in part.scores:
        runs = [run for run in score.runs if run.get("stages")]
        if not runs:
            continue
        spent: dict[str, tuple[float, float]] = {}
        for stage, one in runs[0]["stages"].items():
            told = [run["stages"].get(stage, one) for run in runs]
            pairs = [(of["seconds"], of["cpu_seconds"]) if isinstance(of, dict) else (of, 0.0) for of in told]
            spent[stage] = (statistics.median(wall for wall, _ in pairs), statistics.median(cpu for _, cpu in pairs))
        wall, cpu = (sum(of) for of in zip(*spent.values(), strict=True))
        largest = sorted(spent.items(), key=lambda of: -of[1][0])
        said = ", ".join(f"{stage} {_lap(*of)}" for stage, of in largest if of[0] >= wall / 100)
        share = (
            f", {cpu / statistics.median(run['cpu'] for run in runs):.0%} of the process's CPU seconds" if cpu else ""
        )
        lines.append(f"- {score.name}: {said}; {_lap(wall, cpu)} in all{share}{_stood(runs)}")
    return ["", "Where the seconds go (CPU seconds in brackets), stages of 1 % and more:", "", *lines] if lines else []


def _stood(runs: Sequence[dict[str, Any]]) -> str:
    """How long the run's own thread stood still, by what it waited for; of those who tell."""
    spent: dict[str, list[float]] = {}
    for run in runs:
        sums: dict[str, float] = {}
        for of in run["stages"].values():
            for what, seconds in (of.get("waited", {}) if isinstance(of, dict) else {}).items():
                sums[what] = sums.get(what, 0.0) + seconds
        for what, seconds in sums.items():
            spent.setdefault(what, []).append(seconds)
    waits = sorted(((statistics.median(of), what) for what, of in spent.items()), reverse=True)
    said = ", ".join(f"{what} {seconds:.2f}" for seconds, what in waits if seconds >= 0.005)
    return f"; of the wall seconds waiting for: {said}" if said else ""


def _lap(wall: float, cpu: float) -> str:
    return f"{wall:.2f} ({cpu:.2f})" if cpu else f"{wall:.2f}"


def _notes(part: Part) -> list[str]:
    """Pins, remarks, and who was not timed and why."""
    lines = []
    for score in part.scores:
        said = [", ".join(score.pins)] if score.pins else []
        said += [f"**not timed, it failed**: {score.failure}"] if score.failure else []
        said += [f"**wrong, not timed**: {score.wrong}"] if score.wrong else []
        said += score.notes
        if said:
            lines.append(f"- {score.name}: {'. '.join(said)}.")
    return ["", *lines] if lines else []

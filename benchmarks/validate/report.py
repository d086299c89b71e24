"""RESULTS.md and results.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from environments import OURS
from harness.reporting import about, spread, table

if TYPE_CHECKING:
    from run import Run, Score

OWN = ("polars", "duckdb", "numpy", "pyarrow")
INTRODUCTION = """\
# Seven checks over a table in Parquet

Made by `benchmarks/validate/run.py`: schema, completeness, uniqueness (of text that hardly repeats), ranges,
categories, freshness and the mean, over seven of the twelve columns of one Parquet file (`checks.json`; nine checks of
seven families). `ours` is a suite of this engine that returns all failing rows; `polars_query` and `duckdb_query` are
one query each, written by hand, that only counts.

Answers come first: what each contender found was compared with what plain DuckDB queries find; whoever differs is not
timed. Each run is a fresh process; every round runs each contender once, in turning order. Wall, CPU and memory are of
the whole process and its descendants, imports included; `inside` are the seconds from the end of its imports to its
answers. All are medians, with the least and the most. Memory is the peak of the summed resident memory, in MB of 10^6
bytes, sampled every 10 ms. Start-up is the same process with nothing to check, the least of three. `ours / peer` is the
median of the ratios within the rounds, with the least and the most: below 1, ours took less. Slow contenders were run
less often.
"""

Measure = Callable[["Run"], float]


def _wall(run: Run) -> float:
    return run.process.wall


def _inside(run: Run) -> float:
    return run.seconds


def _cpu(run: Run) -> float:
    return run.process.cpu


def _peak(run: Run) -> float:
    return run.process.peak / 1e6


MEASURES: tuple[tuple[Measure, str], ...] = ((_wall, ".2f"), (_inside, ".2f"), (_cpu, ".2f"), (_peak, ".0f"))
HEAD = ("contender", "runs", "wall s", "inside s", "CPU s", "peak MB", "start-up s", "failing rows")
RATIOS = ("ours / peer: wall", "inside", "CPU", "memory")


def write_report(folder: Path, rows: int, scores: Sequence[Score], begun: datetime, load: float) -> None:
    """Both files, into ``folder``."""
    made = about(begun, load, OWN)
    lines = [INTRODUCTION, *(f"- {key}: {value}" for key, value in made.items())]
    lines += ["", f"## {rows:,} rows", "", *table((*HEAD, *RATIOS), [_cells(s) for s in scores if s.runs])]
    lines += ["", *_asked(scores), "", *_notes(scores)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text("\n".join(lines).rstrip() + "\n")
    raw = {"about": made, "rows": rows, "scores": [asdict(score) for score in scores]}
    (folder / "results.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {folder / 'RESULTS.md'}")


def _cells(score: Score) -> list[str]:
    cells = [score.name, str(len(score.runs))]
    cells += [spread([of(run) for run in score.runs], form) for of, form in MEASURES]
    cells.append(f"{score.startup:.2f}" if score.startup is not None else "–")
    cells.append("yes" if score.verdict and score.verdict.rows else "no")
    return cells + [_ratios(score, of) for of, _ in MEASURES]


def _ratios(score: Score, of: Measure) -> str:
    if score.name == OURS or not score.pairs:
        return "–"
    return spread([of(ours) / of(theirs) for ours, theirs in score.pairs], ".2f")


def _asked(scores: Sequence[Score]) -> list[str]:
    """What ours is to reach, and whether it does."""
    by_name = {score.name: score for score in scores if score.runs}
    if OURS not in by_name:
        return []
    lines = []
    libraries = [score for score in by_name.values() if score.pairs and not score.by_hand and score.name != OURS]
    for of, name in ((_wall, "wall time"), (_inside, "time inside")):
        if libraries:
            worst = max(libraries, key=lambda score: _median(score, of))
            ratio = _median(worst, of)
            lines.append(f"- the least {name} of all libraries: {_met(ratio < 1)} ({ratio:.2f} of {worst.name})")
    if (by_hand := by_name.get("polars_query")) and by_hand.pairs:
        ratio = _median(by_hand, _wall)
        lines.append(f"- at most 1.4 (aim 1.15) of the wall time of polars_query: {_met(ratio <= 1.4)} ({ratio:.2f})")
    peak = statistics.median(_peak(run) for run in by_name[OURS].runs)
    lines.append(f"- a peak under 700 MB (aim 500): {_met(peak < 700)} ({peak:.0f})")
    return ["Asked of ours:", "", *lines]


def _median(score: Score, of: Measure) -> float:
    return statistics.median(of(ours) / of(theirs) for ours, theirs in score.pairs)


def _met(met: bool) -> str:
    return "yes" if met else "**no**"


def _notes(scores: Sequence[Score]) -> list[str]:
    """Versions, what a contender does not tell, and who was not timed and why."""
    lines = []
    for score in scores:
        said = [", ".join(score.pins)] if score.pins else []
        if score.failure:
            said.append(f"**not timed, it failed**: {score.failure}")
        if verdict := score.verdict:
            if verdict.wrong:
                wrong = "; ".join(f"{check}: {what}" for check, what in verdict.wrong.items())
                said.append(f"**wrong, not timed**: {wrong}")
            if verdict.unsaid:
                unsaid = "; ".join(f"{', '.join(names)} of {check}" for check, names in verdict.unsaid.items())
                said.append(f"it does not tell: {unsaid}")
        if said:
            lines.append(f"- {score.name}: {'. '.join(said)}.")
    return lines

"""RESULTS.md and results.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.measure import Measurement
from harness.reporting import about, spread, table

if TYPE_CHECKING:
    from run import Score

INTRODUCTION = """\
# Extraction from a REST server into Parquet

Made by `benchmarks/rest/run.py`: records of eight fields in pages of 1,000, read whole and written as zstd Parquet.
`ours` is `maestro run` of a pipeline of one REST source without checks, views and profile, its ledger on, up to eight
pages in flight. `httpx_polars` is a script by hand: one page after the other, no retries, no ledger. `dlt` is its
rest_api.

Contents come first: whoever lands not every record as it was is not timed. Each run is a fresh process, imports
included; every round runs each contender once, in turning order. Seconds and memory are those of the reading process
and all its descendants, without the server: medians, with the least and the most. Memory is the peak of the summed
resident memory of that tree, in MB of 10^6 bytes, sampled every 10 ms. Start-up is the same process with nothing to
read, the least of three. `peer / ours` is the median of the ratios within the rounds: above 1, ours took less.
"""
PACKAGES = ("httpx", "polars", "pyarrow", "pydantic-core", "sqlalchemy")


def write_report(folder: Path, rows: int, found: dict[int, list[Score]], begun: datetime, load: float) -> None:
    """Both files, into ``folder``."""
    facts = about(begun, load, PACKAGES)
    lines = [INTRODUCTION, *(f"- {key}: {value}" for key, value in facts.items())]
    for latency, scores in found.items():
        lines += ["", f"## {rows:,} records, {latency} ms latency", "", *_table(scores), "", *_notes(scores)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text("\n".join(lines).rstrip() + "\n")
    raw = {"about": facts, "rows": rows} | {f"{k} ms": [asdict(score) for score in v] for k, v in found.items()}
    (folder / "results.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {folder / 'RESULTS.md'}")


def _table(scores: list[Score]) -> list[str]:
    head = ("contender", "runs", "wall s", "CPU s", "peak MB", "start-up s")
    rows = []
    for score in scores:
        if score.runs:
            spreads = [spread([of(run) for run in score.runs], form) for of, form in MEASURES]
            startup = f"{score.startup:.2f}" if score.startup is not None else "–"
            rows.append(
                [score.name, str(len(score.runs)), *spreads, startup, *(_ratios(score, of) for of, _ in MEASURES)]
            )
    return table((*head, "peer / ours: wall", "CPU", "memory"), rows)


def _notes(scores: list[Score]) -> list[str]:
    """Versions, types, and who was not timed and why."""
    lines = []
    for score in scores:
        said = [", ".join(score.pins)] if score.pins else []
        if score.failure:
            said.append(f"**not timed, it failed**: {score.failure}")
        if score.contents and score.contents.wrong:
            said.append(f"**wrong, not timed**: {'; '.join(f'{c}: {w}' for c, w in score.contents.wrong.items())}")
        if score.contents and score.contents.types:
            types = ", ".join(f"{column} as {dtype}" for column, dtype in score.contents.types.items())
            said.append(f"right values of other types: {types}")
        if said:
            lines.append(f"- {score.name}: {'. '.join(said)}.")
    return lines


MEASURES: tuple[tuple[Callable[[Measurement], float], str], ...] = (
    (lambda run: run.wall, ".2f"),
    (lambda run: run.cpu, ".2f"),
    (lambda run: run.peak / 1e6, ".0f"),
)


def _ratios(score: Score, of: Callable[[Measurement], float]) -> str:
    if score.name == "ours" or not score.pairs:
        return "–"
    return spread([of(theirs) / of(ours) for ours, theirs in score.pairs], ".2f")

"""RESULTS.md and results.json."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.measure import Measurement

if TYPE_CHECKING:
    from run import Score

OWN = ("connectorx", "adbc-driver-postgresql", "pyarrow", "polars", "duckdb", "sqlalchemy")
TITLES = {"postgres": "PostgreSQL", "mariadb": "MariaDB"}
INTRODUCTION = """\
# Extraction from a database into Parquet

Made by `benchmarks/extract/run.py`: one table of twelve columns, read whole and written as Parquet. `ours` is
`maestro run` of a pipeline of one database source without checks and views, its ledger on. `copy` is the floor: the
server's fastest way out, and nothing done with it (a binary COPY; for MariaDB its client's text), so it writes nothing.

Contents come first: what landed was compared with what the database's own client says, every column of every row
(floats to 1e-9); whoever differs is not timed. Each run is a fresh process, imports included; every round runs each
contender once, in turning order. Seconds and memory are those of the reading process and all its descendants, without
the server: medians, with the least and the most. Memory is the peak of the summed resident memory of that tree, in MB
of 10^6 bytes, sampled every 10 ms. Start-up is the same process with nothing to read, the least of three.
`ours / peer` is the median of the ratios within the rounds, with the least and the most: below 1, ours took less.
Slow contenders were run less often.
"""


def write_report(folder: Path, found: dict[str, dict[str, Any]], begun: datetime) -> None:
    """Both files, into ``folder``."""
    about = _about(begun)
    lines = [INTRODUCTION, *(f"- {key}: {value}" for key, value in about.items())]
    for name, part in found.items():
        lines += [
            "",
            f"## {TITLES[name]}, {part['rows']:,} rows",
            "",
            *_table(part["scores"]),
            "",
            *_notes(part["scores"]),
        ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text("\n".join(lines).rstrip() + "\n")
    raw = {name: part | {"scores": [asdict(score) for score in part["scores"]]} for name, part in found.items()}
    (folder / "results.json").write_text(json.dumps({"about": about} | raw, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {folder / 'RESULTS.md'}")


def _about(begun: datetime) -> dict[str, str]:
    """When, where and with what."""
    minutes = (datetime.now(UTC) - begun).total_seconds() / 60
    model = _field(Path("/proc/cpuinfo"), "model name")
    memory = int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) / 1e6
    return {
        "begun": f"{begun:%Y-%m-%d %H:%M} UTC, {minutes:.0f} minutes",
        "machine": f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "servers": f"PostgreSQL {_number('psql')}, MariaDB {_number('mariadb')}",
        "ours": f"commit {_commit()}, " + ", ".join(f"{name} {_version(name)}" for name in OWN),
    }


def _table(scores: Sequence[Score]) -> list[str]:
    head = ("contender", "runs", "wall s", "CPU s", "peak MB", "Parquet MB", "start-up s")
    ratios = ("ours / peer: wall", "CPU", "memory")
    lines = [_row((*head, *ratios)), _row(["---"] + ["---:"] * (len(head) + len(ratios) - 1))]
    for score in scores:
        if not score.runs:
            continue
        landed = f"{score.contents.size / 1e6:.0f}" if score.contents else "–"
        cells = [score.name, str(len(score.runs))]
        cells += [_spread([of(run) for run in score.runs], form) for of, form in zip(MEASURES, FORMS, strict=True)]
        cells += [landed, f"{score.startup:.2f}" if score.startup is not None else "–"]
        cells += [_ratios(score, of) for of in MEASURES]
        lines.append(_row(cells))
    return lines


def _notes(scores: Sequence[Score]) -> list[str]:
    """Versions, codecs, types, and who was not timed and why."""
    lines = []
    for score in scores:
        said = [", ".join(score.pins)] if score.pins else []
        if score.failure:
            said.append(f"**not timed, it failed**: {score.failure}")
        if contents := score.contents:
            if contents.wrong:
                wrong = "; ".join(f"{column}: {what}" for column, what in contents.wrong.items())
                said.append(f"**wrong, not timed**: {wrong}")
            if contents.codecs != ["ZSTD"]:
                said.append(f"written as {', '.join(contents.codecs).lower()}")
            if contents.types:
                said.append(
                    "right values of other types: " + ", ".join(f"{c} as {t}" for c, t in contents.types.items())
                )
        if said:
            lines.append(f"- {score.name}: {'. '.join(said)}.")
    return lines


def _wall(run: Measurement) -> float:
    return run.wall


def _cpu(run: Measurement) -> float:
    return run.cpu


def _peak(run: Measurement) -> float:
    return run.peak / 1e6


MEASURES: tuple[Callable[[Measurement], float], ...] = (_wall, _cpu, _peak)
FORMS = (".2f", ".2f", ".0f")


def _ratios(score: Score, of: Callable[[Measurement], float]) -> str:
    if score.name == "ours" or not score.pairs:
        return "–"
    return _spread([of(ours) / of(theirs) for ours, theirs in score.pairs], ".2f")


def _spread(values: list[float], form: str) -> str:
    middle = format(statistics.median(values), form)
    return f"{middle} ({min(values):{form}}–{max(values):{form}})" if len(values) > 1 else middle


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _field(path: Path, name: str) -> str:
    found = [line.partition(":")[2].strip() for line in path.read_text().splitlines() if line.startswith(name)]
    return found[0] if found else "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _number(program: str) -> str:
    """The version in what a server's client says: its last number of several parts."""
    found = re.findall(r"(?<![\w.])\d+\.\d+(?:\.\d+)?", _said(program, "--version").partition("(Debian")[0])
    return found[-1] if found else "unknown"


def _commit() -> str:
    here = Path(__file__).parent
    revision = _said("git", "-C", str(here), "rev-parse", "--short", "HEAD")
    changed = _said("git", "-C", str(here), "status", "--porcelain", "--", ":/engine")
    return f"{revision} with changes in engine" if changed else revision


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

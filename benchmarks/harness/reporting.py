"""What reports have in common: rows of a table, spreads, and what they were made on."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OWN = ("polars", "duckdb", "pyarrow", "numpy", "numba", "feast")


def about(begun: datetime, load: float, packages: Sequence[str] = OWN) -> dict[str, str]:
    """When, where and with what; ``load`` is what else the machine had to do, the load average before the first run."""
    minutes = (datetime.now(UTC) - begun).total_seconds() / 60
    model = _field(Path("/proc/cpuinfo"), "model name")
    memory = int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) / 1e6
    return {
        "begun": f"{begun:%Y-%m-%d %H:%M} UTC, {minutes:.0f} minutes",
        "machine": f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.release()}",
        "load before the first run": f"{load:.1f}",
        "Python": platform.python_version(),
        "ours": f"commit {_commit()}, " + ", ".join(f"{name} {_version(name)}" for name in packages),
    }


def spread(values: Sequence[float], form: str) -> str:
    """The median, with the least and the most."""
    if not values:
        return "–"
    middle = format(statistics.median(values), form)
    return f"{middle} ({min(values):{form}}–{max(values):{form}})" if len(values) > 1 else middle


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown, all but its first column aligned to the right."""
    return [_row(head), _row(["---"] + ["---:"] * (len(head) - 1)), *map(_row, rows)]


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

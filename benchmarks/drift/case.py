"""Drift of one table against another: the tables, how contenders are called, and whether their figures are SciPy's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.drift.tables import make_tables
from benchmarks.harness.contest import DATA, PEER, Answer, Contender


@contextmanager
def cases(size: tuple[int, int], _: str) -> Iterator[list[Case]]:
    """One case: rows of the baseline, and of the current table."""
    yield [Case(size, make_tables(DATA / "drift" / f"{size[0]}-{size[1]}", *size))]


class Case:
    """25 columns of two tables; the first contender's answers are what others are compared with."""

    name = "tables"

    def __init__(self, size: tuple[int, int], files: tuple[Path, Path]) -> None:
        self.files, self.expected = files, dict[str, Any]()
        self.title = f"{size[0]:,} rows against {size[1]:,}"
        self.facts = {"current rows": f"{size[1]:,}", "baseline rows": f"{size[0]:,}", "columns": "25"}

    def environment(self) -> Mapping[str, str]:
        return {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        return [*self.files, out / "answers.json"]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        found = json.loads((out / "answers.json").read_text())
        self.expected = self.expected or found["answers"]
        figures = {"inside": found["seconds"], "inside_cpu": found["cpu"]}
        try:
            count, worst = _compare(contender, found["answers"], self.expected)
        except ValueError as error:
            return Answer(str(error))
        return Answer(None, (f"{count} figures compared, the largest relative difference is {worst:.0e}",), figures)


def _compare(contender: Contender, found: dict[str, Any], expected: dict[str, Any]) -> tuple[int, float]:
    """How many figures were compared, and the largest relative difference."""
    count, worst, close = 0, 0.0, 1e-5 if contender.role == PEER else 1e-9
    for column, answers in found.items():
        errors = answers.get("errors", {})
        for name, value in answers.items():
            if value is None or name == "errors" or name not in expected.get(column, {}):
                continue
            if contender.mode == ("profile",) and name in ("psi", "js", "ks_p_value") and errors:
                continue  # of other bins, and of another D
            right = expected[column][name]
            off = abs(value - right)
            if not math.isfinite(value) or off > errors.get(name, 0.0) + close * max(abs(right), 1e-3):
                raise ValueError(f"{name} of {column} is {value!r}, SciPy has {right!r}")
            count, worst = count + 1, max(worst, off / max(abs(right), 1e-9))
    if not count:
        raise ValueError("there was nothing to compare")
    return count, worst

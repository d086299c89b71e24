"""Checks over a table in Parquet: the table, how contenders are called, and whether they find what there is to find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.contest import DATA, OURS, Answer, Contender
from benchmarks.validate.answers import CHECKS, Answers, compare, reference
from benchmarks.validate.tables import make_table

MEMORY_LIMIT = "512MB"  # of ours, where it has one


@contextmanager
def cases(size: tuple[int, bool], _: str) -> Iterator[list[Case]]:
    """One case: rows, and whether ours has a memory limit."""
    rows, limited = size
    files = make_table(DATA / "validate" / str(rows), rows)
    yield [Case(rows, files, reference(files), limited=limited)]


class Case:
    """Nine checks of seven families; plain DuckDB queries say what must be found."""

    name = "checks"

    def __init__(self, rows: int, files: list[Path], expected: Answers, *, limited: bool) -> None:
        self.files, self.expected, self.limited = files, expected, limited
        self.title = "Seven families of checks"
        self.facts = {"rows": f"{rows:,}", "columns": "12, of which 7 are checked"}
        if limited:
            self.facts["memory_limit of ours"] = MEMORY_LIMIT

    def environment(self) -> Mapping[str, str]:
        return {}

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        data = self.files[0] if len(self.files) == 1 else self.files[0].parent / "part-*.parquet"
        limit = [MEMORY_LIMIT] if self.limited and contender.role == OURS else []
        return [str(data), str(CHECKS), str(out / "answers.json"), *limit]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        verdict = compare(self.expected, out / "answers.json")
        wrong = "; ".join(f"{check}: {what}" for check, what in verdict.wrong.items())
        notes = ["names the failing rows" if verdict.rows else "counts only"]
        if verdict.unsaid:
            unsaid = "; ".join(f"{', '.join(names)} of {check}" for check, names in verdict.unsaid.items())
            notes.append(f"it does not tell: {unsaid}")
        return Answer(wrong or None, tuple(notes), {"inside": verdict.seconds})

"""What a scenario declares, and how one of its sizes is run."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.contest import DATA, ROOT, Case, Contender, Rounds, contest
from benchmarks.harness.reporting import about
from benchmarks.harness.results import Goal, Part


@dataclass(frozen=True)
class Scenario:
    """Work that several ways of doing it are measured at.

    Attributes:
        name: of its folder, whose module ``case`` has ``cases(size, name)``: a context manager that makes the data,
            starts the servers, and gives the cases.
        what: a few sentences of Markdown for the page.
        sizes: S, M, L and what each means to ``cases``.
        contenders: in the order of the page; whose answers others are compared with comes first.
        remarks: Markdown that follows the tables, such as a profile of where the time goes.
    """

    name: str
    title: str
    what: str
    sizes: Mapping[str, Any]
    contenders: Sequence[Contender]
    goals: Sequence[Goal] = ()
    remarks: str = ""
    slow_runs: int = 1

    @property
    def folder(self) -> Path:
        return ROOT / "benchmarks" / self.name

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    def open(self, size: str) -> AbstractContextManager[Sequence[Case]]:
        module = importlib.import_module(f"benchmarks.{self.name}.case")
        opened: AbstractContextManager[Sequence[Case]] = module.cases(self.sizes[size], size)
        return opened

    def run(self, size: str, rounds: Rounds, *, only: Sequence[str] = (), cases: Sequence[str] = ()) -> list[Part]:
        """Each case at this size, of all contenders or ``only`` some."""
        parts = []
        with self.open(size) as opened:
            for case in opened:
                if cases and case.name not in cases:
                    continue
                begun, load = datetime.now(UTC), os.getloadavg()[0]
                there = [c for c in self.contenders if self._takes_part(c, case.name, size, only)]
                scores = contest(case, there, rounds, work=DATA / "run" / self.name)
                facts = dict(case.facts)
                parts.append(Part(case.name, size, case.title, facts, about(begun, load), scores))
        shutil.rmtree(DATA / "run" / self.name, ignore_errors=True)
        return parts

    @staticmethod
    def _takes_part(contender: Contender, case: str, size: str, only: Sequence[str]) -> bool:
        if only and contender.name not in only:
            return False
        return (not contender.sizes or size in contender.sizes) and (not contender.cases or case in contender.cases)


def contenders(name: str, *of: Contender | tuple[str, dict[str, Any]]) -> list[Contender]:
    """Those of a scenario; a pair is the name of a script and what is said of it."""
    folder = ROOT / "benchmarks" / name / "contenders"
    made = []
    for one in of:
        if isinstance(one, Contender):
            made.append(one)
            continue
        title, said = one
        script = folder / f"{said.pop('script', title)}.py"
        made.append(Contender(title, script, **said))
    return made

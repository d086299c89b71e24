"""What is kept of each scenario: ``results.json``, a part per case and size; what runs again replaces its part."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.harness.contest import Score


@dataclass(frozen=True)
class Goal:
    """What is asked of ours.

    Attributes:
        what: wall, cpu, peak, or a figure that contenders give themselves, such as inside.
        must, aim: ours over the other's is at most this; without ``than``, ours itself.
        than: a contender; None: the figure itself.
        who: of ours, where there are several; None: the first.
        cases: those where it is asked; empty: all. ``sizes`` likewise.
    """

    what: str
    must: float
    than: str | None = None
    aim: float | None = None
    who: str | None = None
    cases: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ("M",)


@dataclass
class Part:
    """One case at one size, as it was measured."""

    case: str
    size: str
    title: str
    facts: dict[str, str]
    about: dict[str, str]
    scores: list[Score] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.size}/{self.case}"

    def score(self, name: str) -> Score | None:
        return next((score for score in self.scores if score.name == name), None)

    @property
    def ours(self) -> Score | None:
        return next((score for score in self.scores if score.role == "ours" and score.runs), None)


def load(path: Path) -> dict[str, Part]:
    """The parts of a scenario, by key; none where nothing was measured."""
    if not path.exists():
        return {}
    raw = json.loads(path.read_text())["parts"]
    return {key: Part(**(part | {"scores": [Score(**score) for score in part["scores"]]})) for key, part in raw.items()}


def store(path: Path, part: Part) -> None:
    """Replaces this part, and no other."""
    parts = load(path) | {part.key: part}
    raw = {key: asdict(parts[key]) for key in sorted(parts)}
    path.write_text(json.dumps({"parts": raw}, indent=1, ensure_ascii=False) + "\n")


def figures(score: Score, what: str) -> list[float]:
    return [run[what] for run in score.runs if run.get(what) is not None]


def ratios(ours: Score, other: Score, what: str) -> list[float]:
    """Ours over the other's, within each round that both have."""
    theirs = {run["round"]: run.get(what) for run in other.runs}
    pairs = [(run.get(what), theirs.get(run["round"])) for run in ours.runs]
    return [a / b for a, b in pairs if a is not None and b]

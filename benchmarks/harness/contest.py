"""Who takes part in a case, and how often: equal answers first, then fresh processes in turn."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from benchmarks.harness.measure import Measurement, RunFailed, measure
from benchmarks.harness.programs import Program

ROOT = Path(__file__).parents[2]
DATA = ROOT / "benchmarks" / ".data"
OURS, PEER, FLOOR = "ours", "peer", "floor"
STARTS = 3


@dataclass(frozen=True)
class Contender:
    """A script and how it is called.

    Attributes:
        mode: further arguments of its script, after those of the case.
        role: ours, a peer, or the floor: what the work takes by hand, or the machine at least.
        slow: it has fewer rounds.
        sampled: it does a part of the work only, such as some of the as-ofs; its case scales the seconds.
        sizes: where it takes part; empty: everywhere.
        cases: likewise.
    """

    name: str
    script: Path
    mode: tuple[str, ...] = ()
    role: str = PEER
    slow: bool = False
    sampled: bool = False
    sizes: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()

    @property
    def program(self) -> Program:
        return Program(self.script)


@dataclass(frozen=True)
class Answer:
    """What a contender did.

    Attributes:
        wrong: in what it is not right; None: in nothing that was looked at.
        notes: what a reader should know besides, such as right values of another type.
        figures: what it measured itself, such as ``inside`` seconds; ``stages`` by name.
        size: bytes that it left.
        scale: what its seconds are multiplied by.
    """

    wrong: str | None = None
    notes: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    scale: float = 1.0


class Case(Protocol):
    """One piece of work over data that is there."""

    name: str
    title: str
    facts: Mapping[str, str]

    def environment(self) -> Mapping[str, str]:
        """Variables of each run, over those of this process."""

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        """Of its script; called before each run, to empty what it fills. ``out`` is an empty folder."""

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        """What the run that has just ended did; ``thorough`` the first time, when all of it is compared."""


@dataclass
class Score:
    """All that is known of one contender in one case; ``runs`` are those that count, each with its round."""

    name: str
    role: str
    pins: list[str]
    slow: bool = False
    failure: str | None = None
    wrong: str | None = None
    notes: list[str] = field(default_factory=list)
    startup: float | None = None
    size: int | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def timed(self) -> bool:
        return self.failure is None and self.wrong is None


@dataclass(frozen=True)
class Rounds:
    """How often: ``first`` says whether the round whose answers are compared in full counts too."""

    fast: int = 5
    slow: int = 1
    first: bool = False
    timeout: float = 3_600


def contest(
    case: Case,
    contenders: Sequence[Contender],
    rounds: Rounds,
    *,
    work: Path,
    say: Callable[[str], None] = print,
) -> list[Score]:
    """Every contender that answers right is timed; the others say why not.

    The first round runs everyone and compares everything. In those that follow each contender that was right runs once,
    in turning order, so that what is compared is of the same minute; slow ones take part in the first of them only.
    """
    scores = {c.name: Score(c.name, c.role, c.program.pins, c.slow, c.program.install()) for c in contenders}
    for name, score in scores.items():
        if score.failure:
            score.failure = f"does not install: {score.failure}"
            say(f"{name}: {score.failure}")
    there = [c for c in contenders if scores[c.name].timed]
    for contender in there:
        _once(case, contender, scores[contender.name], work, rounds, number=0, say=say)
    for number in range(1, rounds.fast + (0 if rounds.first else 1)):
        right = [c for c in there if scores[c.name].timed and (not c.slow or _has(scores[c.name], rounds))]
        turn = number % len(right) if right else 0
        for contender in right[turn:] + right[:turn]:
            _once(case, contender, scores[contender.name], work, rounds, number=number, say=say)
    return list(scores.values())


def _has(score: Score, rounds: Rounds) -> bool:
    """Whether a slow contender has a round left."""
    return len(score.runs) < rounds.slow


def _once(
    case: Case,
    contender: Contender,
    score: Score,
    work: Path,
    rounds: Rounds,
    *,
    number: int,
    say: Callable[[str], None],
) -> None:
    try:
        if number == 0:
            score.startup = _startup(contender, case, work)
        arguments = _empty(work) and case.arguments(contender, work / "out")
        load = os.getloadavg()[0]
        found = _run(contender, [*arguments, *contender.mode], case.environment(), work, rounds.timeout)
        answer = case.answer(contender, work / "out", thorough=number == 0)
    except RunFailed as error:
        score.failure = _private(str(error), work)
        say(f"{case.title}, {contender.name}: FAILED: {score.failure}")
        return
    score.wrong = answer.wrong
    if answer.wrong:
        score.runs.clear()
        say(f"{case.title}, {contender.name}: WRONG: {answer.wrong}")
        return
    score.notes += [note for note in answer.notes if note not in score.notes]
    score.size = answer.size if answer.size is not None else score.size
    if number or rounds.first:
        figures = {name: value for name, value in answer.figures.items() if value is not None}
        found = replace(found, wall=found.wall * answer.scale, cpu=found.cpu * answer.scale)
        score.runs.append({"round": number, **asdict(found), "load": load, **figures})
    counted = f"round {number}" if number or rounds.first else "answers right"
    say(f"{case.title}, {contender.name}, {counted}: {words(found)}")


def _startup(contender: Contender, case: Case, work: Path) -> float | None:
    """The least seconds of its script with nothing to do; None where it does not run so."""
    with contextlib.suppress(RunFailed):
        return min(_run(contender, [], case.environment(), work, timeout=300).wall for _ in range(STARTS))
    return None


def _empty(work: Path) -> bool:
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("out", "home", "tmp"):
        (work / folder).mkdir(parents=True)
    return True


def _run(
    contender: Contender, arguments: Sequence[str | Path], extra: Mapping[str, str], work: Path, timeout: float
) -> Measurement:
    """A fresh process with a home and a temporary folder of its own.

    A safe path because scripts are named like what they import. Byte code may be written: this engine runs from its
    sources, and is to run as installed packages do. Who has an environment of his own does not see the engine.
    """
    for folder in ("home", "tmp"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"HOME": str(work / "home"), "TMPDIR": str(work / "tmp"), "PYTHONSAFEPATH": "1", "TZ": "UTC"}
    env |= {"PYTHONPATH": "" if contender.program.pins else str(ROOT), **extra}
    command = [contender.program.python, contender.script, *arguments]
    return measure(command, env=env, cwd=work, log=work / "log.txt", timeout=timeout)


def _private(text: str, work: Path) -> str:
    """Without the folders of this machine."""
    return text.replace(f"{work}/", "").replace(f"{ROOT}/", "")


def words(run: Measurement) -> str:
    return f"{run.wall:.2f} s, {run.cpu:.2f} CPU s, {run.peak / 1e6:.0f} MB"

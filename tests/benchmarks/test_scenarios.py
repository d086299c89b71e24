"""What the scenarios declare; and that one of them, which needs no server, runs from beginning to end. Never for time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import scenarios
from benchmarks.harness.__main__ import main
from benchmarks.harness.contest import FLOOR, OURS, PEER, Score
from benchmarks.harness.results import Part, load
from benchmarks.harness.scenario import Scenario

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda scenario: scenario.name)
def test_what_a_scenario_names_is_there(scenario: Scenario) -> None:
    assert {"S", "M"} <= set(scenario.sizes)
    assert "def cases(" in (scenario.folder / "case.py").read_text()
    names = [contender.name for contender in scenario.contenders]
    assert len(set(names)) == len(names)
    assert {contender.role for contender in scenario.contenders} <= {OURS, PEER, FLOOR}
    assert any(contender.role == OURS for contender in scenario.contenders)
    for contender in scenario.contenders:
        assert all("==" in pin for pin in contender.program.pins), contender.name
        assert (contender.role != OURS) or not contender.program.pins
    for goal in scenario.goals:
        assert {goal.than, goal.who} <= {*names, None}
        assert set(goal.sizes) <= set(scenario.sizes)
    for part in load(scenario.results).values():
        assert {score.name for score in part.scores} <= set(names)
        assert f"### {part.title}, size {part.size}" in (ROOT / "benchmarks" / "RESULTS.md").read_text()


def test_the_page_is_what_the_results_give() -> None:
    """Each scenario has its place on it."""
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert [f"## {of.title}" for of in scenarios.ALL] == [line for line in text.splitlines() if line.startswith("## ")]
    for name in (line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")):
        assert (ROOT / "benchmarks" / name).exists()


@pytest.mark.parametrize("right", [True, False])
def test_whoever_runs_it_learns_that_ours_is_wrong(monkeypatch: pytest.MonkeyPatch, right: bool) -> None:
    asked: list[Sequence[str]] = []

    def run(self: Scenario, size: str, *_: object, only: Sequence[str], **__: object) -> list[Part]:
        asked.append(only)
        runs = [{"round": 0.0, "wall": 1.0}] if right or self.name != "drift" else []
        return [Part("case", size, "Case", {}, {}, [Score("ours", OURS, [], runs=runs), Score("peer", PEER, [])])]

    monkeypatch.setattr(Scenario, "run", run)
    monkeypatch.setattr(sys, "argv", ["bench", "all", "S", "--ours", "--runs", "1", "--dry"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main() == (0 if right else 1)
    assert len(asked) == 9
    assert all(only[0] == of.contenders[0].name for only, of in zip(asked, scenarios.ALL, strict=True))
    assert all("ours" in name or name == "plugin" for only in asked for name in only[1:])


def test_the_stages_of_the_pipeline_are_its_process() -> None:
    """CPU seconds by stage against those that the system counted of the whole tree, where a run is long enough."""
    for part in load(scenarios.PIPELINE.results).values():
        ours = part.score("ours") if part.size in ("M", "L") else None
        for run in ours.runs if ours else ():
            told = sum(lap["cpu_seconds"] for lap in run["stages"].values())
            assert 0.95 <= told / run["cpu"] <= 1.05


def test_a_scenario_runs() -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.harness",
        "validate",
        "S",
        "--ours",
        "--runs",
        "1",
        "--first",
        "--dry",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Seven families of checks, ours, round 0: " in done.stdout

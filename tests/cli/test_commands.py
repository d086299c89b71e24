"""The command tree: every command and option explains itself and stands in the README."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import __version__
from engine.cli import parser
from tests.cli.conftest import Maestro

ROOT = Path(__file__).parents[2]
QUARANTINE = tuple(f"quarantine {name}" for name in ("list", "show", "replay", "drop"))
COMMANDS = (
    "demo",
    "init",
    "check",
    "plan",
    "run",
    "sources",
    "schema",
    "backfill",
    "runs",
    "verify",
    "gc",
    "report",
    "materialize",
    "online get",
    "online check",
    "feast diff",
    "feast apply",
    "training-set",
    "fit export",
    "quarantine list",
    "quarantine show",
    "quarantine replay",
    "quarantine drop",
    "validate",
    "profile",
    "suggest",
    "drift",
)
REPORTING = (
    "check",
    "plan",
    "run",
    "backfill",
    "runs",
    "verify",
    "gc",
    "report",
    "materialize",
    "online get",
    "online check",
    "feast diff",
    "feast apply",
    "training-set",
    *QUARANTINE,
    "validate",
    "profile",
    "sources",
    "drift",
    "profile",
)


def tree() -> dict[str, argparse.ArgumentParser]:
    """Every command that does something, by its words."""
    return {name: command for name, command, _ in _leaves(parser())}


def _leaves(parent: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Words, parser and summary of each."""
    for action in parent._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {a.dest: a.help or "" for a in action._choices_actions}
            for name, command in action.choices.items():
                leaves = list(_leaves(command, f"{before}{name} "))
                yield from leaves or [(before + name, command, summaries[name])]


def options() -> Iterator[tuple[str, argparse.Action]]:
    for name, command in tree().items():
        yield from ((name, action) for action in command._actions)


def test_these_are_the_commands() -> None:
    assert tuple(tree()) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_is_for(maestro: Maestro, name: str) -> None:
    [summary] = [text for words, _, text in _leaves(parser()) if words == name]
    assert summary
    assert summary[0].islower()
    said = maestro(*name.split(), "--help")
    assert (said.code, said.err) == (0, "")
    assert summary[1:] in " ".join(said.out.split())


def test_every_option_has_a_help_text() -> None:
    silent = [f"{name} {a.dest}" for name, a in options() if not a.help]
    assert not silent


def test_the_help_lists_commands_and_exit_codes(maestro: Maestro) -> None:
    said = maestro("--help")
    assert said.code == 0
    for name in COMMANDS:
        assert re.search(rf"^    {name.split()[0]}\b", said.out, re.MULTILINE)
    for words in ("0 done", "1 an ERROR check failed", "2 usage or configuration", "3 a source or sink failed"):
        assert words in " ".join(said.out.split())


def test_commands_that_report_take_json_and_all_take_loudness() -> None:
    for name, command in tree().items():
        known = {text for action in command._actions for text in action.option_strings}
        assert known >= {"--help", "--verbose", "--quiet"}
        assert ("--json" in known) is (name in REPORTING), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_readme(name: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"maestro {name}\b", text)


def test_what_the_readme_calls_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:\.venv/bin/)?maestro (.*?)(?: *[#>].*)?$", text, re.MULTILINE)
    assert lines
    for line in lines:
        parser().parse_args(line.split())
    assert {f"maestro {name}" for name in re.findall(r"`maestro (\w+)", text)} <= {
        f"maestro {c.split()[0]}" for c in COMMANDS
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["rum"], "rum"),
        (["run"], "PIPELINE"),
        (["run", "a.yaml", "--asof", "now"], "--asof"),
        (["run", "a.yaml", "--verbose", "--quiet"], "not allowed with"),
        (["plan", "a.yaml", "--as-of"], "expected one argument"),
        (["quarantine"], "COMMAND"),
        (["quarantine", "show", "a.yaml"], "--source"),
    ],
)
def test_a_command_line_that_makes_no_sense(maestro: Maestro, arguments: list[str], words: str) -> None:
    said = maestro(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("usage: maestro")
    assert words in said.err


def test_options_are_never_guessed_from_a_beginning(maestro: Maestro) -> None:
    said = maestro("run", "a.yaml", "--re")
    assert said.code == 2
    assert "unrecognized arguments: --re" in said.err


def test_python_m_engine_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine", "--version"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"maestro {__version__}\n"

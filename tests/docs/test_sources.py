"""The page about writing a source is true: what it builds is built, installed, tested and run as it stands there."""

from __future__ import annotations

import importlib
import json
import mailbox
import os
import re
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import load_pipeline, run_pipeline
from engine.plugin.kit import check_source
from tests.plugin.packages import installed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def compiled(number: int) -> Any:
    return compile(blocks("python")[number], f"docs/sources.md {number}", "exec", dont_inherit=True)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The page's package, built and installed, and the environment that finds it."""
    folder = tmp_path_factory.mktemp("mbox")
    source, test, *_ = blocks("python")
    (folder / "mbox_source.py").write_text(source)
    (folder / "test_mbox.py").write_text(test)
    (folder / "pyproject.toml").write_text(blocks("toml")[0])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--target", folder / "site", "."], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder, {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'site'}"}


def maestro(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_the_package_is_found_and_its_pipeline_runs(package: tuple[Path, dict[str, str]]) -> None:
    folder, environment = package
    box = mailbox.mbox(folder / "inbox.mbox")
    for number in (0, 1, 2, 1):
        mail = EmailMessage()
        mail["Message-ID"], mail["From"], mail["Subject"] = f"<{number}@x>", "ann@example.com", "Hello"
        box.add(mail)
    box.close()
    listed = json.loads(maestro(folder, environment, "sources", "--json").stdout)
    assert [kind["type"] for kind in listed] == ["database", "file", "api", "s3", "mbox"]
    assert listed[-1] == {
        "type": "mbox",
        "description": "Mails of an mbox file.",
        "package": "maestro-mbox 1.0",
        "target": "mbox_source:Mbox",
        "keys": ["path"],
        "problem": None,
    }
    (folder / "post.yaml").write_text(blocks("yaml")[0])
    assert maestro(folder, environment, "check", "post.yaml").returncode == 0
    done = maestro(folder, environment, "run", "post.yaml", "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["sources"][0]["metrics"]
    assert (metrics["records_read"], metrics["duplicates_removed"], metrics["rows"]) == (4, 1, 3)


def test_its_test_passes(package: tuple[Path, dict[str, str]]) -> None:
    folder, environment = package
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "test_mbox.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert "1 passed" in done.stdout, done.stdout


def test_mistakes_in_its_keys_have_their_place(package: tuple[Path, dict[str, str]]) -> None:
    folder, environment = package
    text = blocks("yaml")[0]
    (folder / "wrong.yaml").write_text(text.replace("    path:", "    pth:"))
    told = maestro(folder, environment, "check", "wrong.yaml")
    assert told.returncode == 2
    assert "wrong.yaml:6:5" in told.stderr
    assert "did you mean 'path'?" in told.stderr
    (folder / "wrong.yaml").write_text(text.replace("type: mbox", "type: mbx"))
    told = maestro(folder, environment, "check", "wrong.yaml")
    assert "allowed: database, file, api, s3, mbox" in told.stderr
    assert "did you mean 'mbox'?" in told.stderr
    schema = json.loads(maestro(folder, environment, "schema").stdout)
    assert schema["$defs"]["mbox"]["properties"]["path"]["type"] == "string"


def test_a_secret_is_masked() -> None:
    exec(compiled(2), {})  # noqa: S102 - the page's own text


def test_the_folder_of_lines_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(compiled(3), names)  # noqa: S102 - the page's own text
    (tmp_path / "in").mkdir()
    for name, text in {"a.txt": "1\n2\n", "b.txt": "", "c.txt": "3\n"}.items():
        (tmp_path / "in" / name).write_text(text)
    checked = check_source(names["Lines"], {"folder": "in"}, pl.DataFrame({"line": ["1", "2", "3"]}), base=tmp_path)
    assert (checked.chunks, checked.resumable) == (3, True)


def test_the_journal_gives_new_entries_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As the page has it, from the class to the pipeline file."""
    monkeypatch.syspath_prepend(
        installed(
            tmp_path, "maestro-journal", {"journal": "journal_source:Journal"}, {"journal_source": blocks("python")[4]}
        )
    )
    request.addfinalizer(lambda: sys.modules.pop("journal_source", None))
    journal = tmp_path / "journal.tsv"
    journal.write_text("".join(f"{at}\ttext {at % 3}\n" for at in range(5)))
    expected = pl.DataFrame({"at": range(5), "text": [f"text {at % 3}" for at in range(5)]})
    keys = {"path": "journal.tsv", "cursor": "at", "batch_size": 2}
    checked = check_source(importlib.import_module("journal_source").Journal, keys, expected, base=tmp_path)
    assert "incremental" in checked.rules
    (tmp_path / "p.yaml").write_text(f"version: 1\nname: p\n{blocks('yaml')[1]}")
    for more, rows in ({}, (5, 3)), ({5: "text 1", 4: "text 9"}, (7, 4)):
        with journal.open("a") as file:
            file.writelines(f"{at}\t{text}\n" for at, text in more.items())
        report = run_pipeline(load_pipeline(tmp_path / "p.yaml"))
        assert tuple(source.metrics.rows for source in report.sources) == rows
    assert [source.metrics.records_read for source in report.sources] == [3, 3], "those of 4, landed or not, and of 5"

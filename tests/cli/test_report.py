"""``maestro report``: finds, publishes and serves the pages; a run says where its page is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Maestro

ROOT = Path(__file__).parents[2]
FOLDER = Path(".maestro/reports/small")


def test_a_run_says_where_its_page_is(maestro: Maestro, folder: Path) -> None:
    said = maestro("run", "pipeline.yaml", "--as-of", "2025-10-04")
    [line] = [line for line in said.out.splitlines() if line.startswith("Report: ")]
    page = Path(line.removeprefix("Report: "))
    assert page.parent == folder / FOLDER
    assert "<h1>small</h1>" in page.read_text()
    assert maestro("run", "blocked.yaml", "--as-of", "2025-10-04").code == 1
    assert maestro("run", "absent.yaml", "--as-of", "2025-10-04").code == 3
    runs = [run["run_id"] for run in maestro("runs", "pipeline.yaml", "--json").json]
    assert {path.stem for path in (folder / FOLDER).glob("*.html")} == {*runs, "index"}


def test_it_makes_the_page_of_a_run_anew(maestro: Maestro, folder: Path) -> None:
    run = maestro("run", "pipeline.yaml", "--as-of", "2025-10-04", "--json").json["run_id"]
    maestro("run", "pipeline.yaml", "--as-of", "2025-10-05", "--quiet")
    for path in (folder / FOLDER).glob("*.html"):
        path.unlink()
    said = maestro("report", "pipeline.yaml", "--run", run)
    assert said.out.splitlines() == [str(folder / FOLDER / f"{run}.html"), str(folder / FOLDER / "index.html")]
    newest = maestro("report", "pipeline.yaml", "--json").json
    assert newest["pipeline"] == "small"
    assert all(Path(page).is_file() for page in newest["pages"])
    assert newest["pages"][0] != str(folder / FOLDER / f"{run}.html")


def test_it_publishes_pages_as_files(maestro: Maestro, folder: Path) -> None:
    for day in ("2025-10-04", "2025-10-05", "2025-10-06"):
        maestro("run", "pipeline.yaml", "--as-of", day, "--quiet")
    said = maestro("report", "pipeline.yaml", "--out", "public/pages")
    assert said.out.splitlines()[-1] == "and 2 more pages in public/pages"
    there = sorted(path.name for path in (folder / "public/pages").iterdir())
    assert len(there) == 4
    assert "index.html" in there
    run = maestro("runs", "pipeline.yaml", "--json").json[0]["run_id"]
    assert maestro("report", "pipeline.yaml", "--out", "one", "--run", run).out == f"one/{run}.html\n"
    assert "index.html" not in (folder / "one" / f"{run}.html").read_text()
    (folder / "file").write_text("")
    said = maestro("report", "pipeline.yaml", "--out", "file/below")
    assert (said.code, "[report.unwritable]" in said.err) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--run", "20990101"], "report.unknown_run"),
        (["--run", "../../x"], "report.unknown_run"),
        (["--serve", "--out", "x"], "report.options"),
        (["--serve", "--run", "x"], "report.options"),
        (["--port", "8000"], "report.options"),
    ],
)
def test_what_makes_no_sense_is_said(maestro: Maestro, folder: Path, arguments: list[str], code: str) -> None:
    said = maestro("report", "pipeline.yaml")
    assert (said.code, "[report.none]" in said.err) == (2, True)
    maestro("run", "pipeline.yaml", "--as-of", "2025-10-04", "--quiet")
    said = maestro("report", "pipeline.yaml", *arguments)
    assert said.code == 2
    assert f"[{code}]" in said.err
    assert maestro("report", "pipeline.yaml", "--serve", "--port", "70000").code == 2


def test_it_serves_them_until_it_is_interrupted(maestro: Maestro, folder: Path) -> None:
    maestro("run", "pipeline.yaml", "--as-of", "2025-10-04", "--quiet")
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", "report", "pipeline.yaml", "--serve", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    url = json.loads("".join(process.stdout.readline() for _ in range(3)))["url"]
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
        assert b"<h1>small</h1>" in answer.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_sources_are_listed_in_lines_that_can_be_read(maestro: Maestro) -> None:
    lines = maestro("sources").out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line[:1].strip()] == ["database", "file", "api", "s3"]

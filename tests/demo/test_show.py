"""`maestro demo` from beginning to end: real sources, real REST server, real Feast."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.config import load_pipeline
from engine.demo import run_demo, serve_demo, server, world
from engine.plan import compile_plan
from engine.run import execute


def test_the_demo_shows_warnings_features_and_an_online_look_up_and_runs_again_without_its_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo-out"
    assert run_demo(folder) == 0
    shown = capsys.readouterr().out
    for check in ("schema", "uniqueness", "freshness", "range", "completeness", "categorical", "distribution"):
        assert re.search(rf"WARNING +{check}\b", shown)
    assert "ERROR " not in shown
    looked_up = re.findall(r"^(\w+) +(\S+) +(\S+)$", shown.partition("offline")[2], re.MULTILINE)
    assert len(looked_up) == 1 + 14  # the key and the user set
    assert all(offline == online for _, offline, online in looked_up)
    assert run_demo(folder, quiet=True) == 0, "a second demo runs the same world again"
    again = execute(compile_plan(load_pipeline(folder / "pipeline.yaml")))
    assert again.status == "done"
    assert {path.name for path in (folder / "features").iterdir()} == {v.name for v in again.views}


def test_serving_again_takes_the_port_of_the_pipeline_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.build(tmp_path / "demo", now=datetime.now(UTC), port=9123)
    asked: list[list[str]] = []
    monkeypatch.setattr(server, "main", lambda arguments: asked.append(arguments) or 0)
    assert serve_demo(tmp_path / "demo") == 0
    assert asked == [[str(tmp_path / "demo/data/tasks.json"), "--port", "9123"]]

"""Where the time of a run went: nothing is left out, nothing counted twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.progress import Silent
from engine.stopwatch import Lap, Stopwatch
from tests.run.world import run, write_world


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_every_moment_belongs_to_one_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([(0.0, 0.0), (1.0, 1.5), (3.0, 2.5), (7.0, 8.5), (15.0, 16.5), (31.0, 20.5), (63.0, 40.5)])
    monkeypatch.setattr("engine.stopwatch._now", lambda: next(moments))
    watch = Stopwatch(Silent())
    watch.step("read", "a")
    with watch.within("publish", "v"):
        pass
    watch.step("read", "b")
    watch.enter("read", "a")
    assert watch.laps() == [
        Lap("start", "", 1.0, 1.5),
        Lap("read", "a", 2.0 + 8.0 + 32.0, 1.0 + 8.0 + 20.0),
        Lap("publish", "v", 4.0, 6.0),
        Lap("read", "b", 16.0, 4.0),
    ]


PIPELINE = """
version: 1
name: small
sources:
  users:
    {type: file, path: data/users.parquet, column_mapping: {id: user_id}, critical_columns: [user_id],
     deduplicate: {keys: [user_id], order_by: updated_at}}
  activities: {type: file, path: "data/activities/*.parquet"}
validation:
  users: {required_columns: [user_id]}
features:
  user_features: {}
"""


def test_the_stages_of_a_command_add_up_to_its_process(tmp_path: Path) -> None:
    """Its report's CPU seconds against those that the system counted; what comes after the report is its page."""
    write_world(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    before = os.times()
    command = [sys.executable, "-m", "engine", "run", "pipeline.yaml", "--as-of", "2025-10-04", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    after = os.times()
    whole = after.children_user + after.children_system - before.children_user - before.children_system
    stages = json.loads(done.stdout)["stages"]
    told = sum(lap["cpu_seconds"] for lap in stages)
    assert (stages[0]["stage"], stages[-1]["stage"]) == ("start", "finish")
    assert {"read", "check", "compute", "publish"} <= {lap["stage"] for lap in stages}
    assert stages[0]["cpu_seconds"] > 0.1, "the packages have loaded by then"
    assert 0.6 * whole <= told <= whole + 0.03, "of so short a run, its page and the end of the process are a part"


def test_a_run_of_a_library_counts_from_its_call(tmp_path: Path) -> None:
    write_world(tmp_path)
    burn(0.5)
    report = run(tmp_path)
    stages = {(lap.stage, lap.name) for lap in report.stages}
    assert {("read", "users"), ("compute", "user_features"), ("publish", "user_features")} <= stages
    assert report.stages[0].cpu_seconds < 0.5
    assert report.to_dict()["stages"][0]["stage"] == "start"

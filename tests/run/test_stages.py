"""Where the time of a run went: nothing is left out, nothing counted twice."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.progress import Silent
from engine.stopwatch import DRAWN, Lap, Stopwatch, waiting
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
        Lap("start", "", 1.0, 1.5, spans=[(0, 1)]),
        Lap("read", "a", 2.0 + 8.0 + 32.0, 1.0 + 8.0 + 20.0, spans=[(1, 3), (7, 15), (31, 63)]),
        Lap("publish", "v", 4.0, 6.0, spans=[(3, 7)]),
        Lap("read", "b", 16.0, 4.0, spans=[(15, 31)]),
    ]


@given(gaps=st.lists(st.floats(0, 100), min_size=1, max_size=60), every=st.integers(1, 4))
def test_the_spans_of_all_stages_cover_a_run(gaps: list[float], every: int) -> None:
    """What is drawn leaves nothing out, and adds no more than what is too short to be drawn."""
    moments = [(sum(gaps[:i]), 0.0) for i in range(len(gaps) + 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.stopwatch._now", iter(moments).__next__)
        watch = Stopwatch(Silent())
        for i in range(len(gaps) - 1):
            watch.enter("read", str(i % every))
        laps = watch.laps()
    whole = moments[-1][0]
    assert sum(lap.seconds for lap in laps) == pytest.approx(whole)
    for lap in laps:
        assert all(b > a for (_, a), (b, _) in itertools.pairwise(lap.spans))
        drawn = sum(ended - begun for begun, ended in lap.spans)
        assert lap.seconds - 1e-9 <= drawn <= lap.seconds + len(gaps) * whole / DRAWN + 1e-9
    edges = {moment for moment, _ in moments}
    assert {edge for lap in laps for span in lap.spans for edge in span} <= edges


def test_what_a_run_waits_for_is_told_of_its_own_thread_only() -> None:
    watch, other = Stopwatch(Silent()), Stopwatch(Silent())
    with waiting("nobody's"), watch.running():
        watch.enter("compute", "v")
        with waiting("writer"), waiting("what the writer waits for"):
            burn(0.02)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: waiting("elsewhere").__enter__()).result()
        watch.enter("feast", "v")
        with suppress(ValueError), waiting("Feast"):
            raise ValueError
        with other.running(), waiting("another's"):
            pass
    told = {lap.stage: dict(lap.waited) for lap in watch.laps()}
    assert {stage: list(of) for stage, of in told.items()} == {"start": [], "compute": ["writer"], "feast": ["Feast"]}
    assert 0 < told["compute"]["writer"] <= next(lap.seconds for lap in watch.laps() if lap.stage == "compute")
    assert [list(lap.waited) for lap in other.laps()] == [["another's"]]


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
    assert 0.95 * whole - 0.15 <= told <= whole + 0.03, "the rest are its page and the end of the process"
    assert stages[-1]["spans"][-1][1] == pytest.approx(sum(lap["seconds"] for lap in stages), abs=0.01)
    assert {what for lap in stages for what in lap["waited"]} == {"source", "writer"}


def test_a_run_of_a_library_counts_from_its_call(tmp_path: Path) -> None:
    write_world(tmp_path)
    burn(3)
    report = run(tmp_path)
    stages = {(lap.stage, lap.name) for lap in report.stages}
    assert {("read", "users"), ("compute", "user_features"), ("publish", "user_features")} <= stages
    assert report.stages[0].cpu_seconds < 3
    assert report.to_dict()["stages"][0]["stage"] == "start"

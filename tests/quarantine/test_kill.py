"""A replay killed at each of its steps, and asked for again: each row is in the table or in quarantine, once."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine import RunReport
from engine.errors import UsageError
from engine.quarantine import replay
from tests.faults.world import (
    DAY,
    Database,
    Order,
    T,
    Watching,
    activity,
    change,
    differences,
    fill,
    held,
    in_file,
    in_process,
    pipeline,
    settle,
)

STEPS = (
    *("run.begun", "read.begun", "piece.written", "piece.committed", "table.written", "table.landed"),
    *("rows.quarantined", "table.judged", "files.staged", "files.recorded", "file.published", "files.published"),
    *("run.finished", "landing.collected"),
)
LONGEST = 5_500  # rows beyond 5,000 were set aside; those beyond this go back


@dataclass(frozen=True)
class Replay(Order):
    """A replay of what the range had set aside, once that is wider."""

    def run(self) -> RunReport:
        declared = pipeline(self.folder, self.url, fits=self.fits, longest=LONGEST)
        return replay(declared, as_of=self.as_of)


@pytest.fixture(autouse=True)
def _pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)


@dataclass(frozen=True)
class World:
    database: Database
    folder: Path

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.folder / "base", self.folder / name))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two runs over a database that changed in between, and an undisturbed replay in ``whole``."""
    folder = tmp_path_factory.mktemp("replay")
    database = in_file(folder / "app.db")
    fill(database)
    (folder / "base").mkdir()
    assert in_process(Order(folder / "base", database.url, as_of=[T - DAY])) == 0
    change(database, random.Random(0))
    database.insert("activities", [activity(i) for i in range(1000, 1200)])
    assert in_process(Order(folder / "base", database.url, as_of=[T - DAY])) == 0
    world = World(database, folder)
    assert in_process(Replay(world.copy("whole"), database.url)) == 0
    return world


def reasons(folder: Path) -> Counter[tuple[int, tuple[str, ...], str, int | None]]:
    return Counter((r[0], tuple(r[-1]["checks"]), r[-1]["origin"], r[-1]["row"]) for r in held(folder, "activities"))


def test_an_undisturbed_replay_takes_what_passes_now(world: World) -> None:
    before, after = held(world.folder / "base", "activities"), held(world.folder / "whole", "activities")
    assert {row[4] > LONGEST or row[3] is None for row in after} == {True}
    assert len(after) < len(before)
    assert {tuple(row[-1]["checks"]) for row in after} == {
        ("range.completion_time",), ("critical_columns.task_type",)
    }  # fmt: skip
    assert differences(world.folder / "whole", world.database) == []


@pytest.mark.parametrize("step", STEPS)
def test_killed_and_asked_for_again(world: World, step: str) -> None:
    folder = world.copy(step)
    with Watching(folder) as watching:
        assert in_process(Replay(folder, world.database.url, (step, 1))) == -9
        report = Replay(folder, world.database.url).run()
    assert watching.wrong == []
    assert report.status == "done"
    assert differences(folder, world.database, world.folder / "whole") == []
    assert reasons(folder) == reasons(world.folder / "whole")


def test_killed_and_followed_by_an_ordinary_run(world: World) -> None:
    for step in ("table.landed", "table.judged"):
        folder = world.copy(f"ordinary-{step}")
        assert in_process(Replay(folder, world.database.url, (step, 1))) == -9
        assert Order(folder, world.database.url, fits=False).run().status == "done"
        assert differences(folder, world.database) == []


def test_nothing_is_replayed_twice(world: World) -> None:
    folder = world.copy("twice")
    assert Replay(folder, world.database.url).run().status == "done"
    first = reasons(folder)
    assert Replay(folder, world.database.url).run().status == "done"
    assert reasons(folder) == first
    with pytest.raises(UsageError) as caught:
        replay(pipeline(folder, world.database.url), source="users")
    assert caught.value.code == "quarantine.empty"

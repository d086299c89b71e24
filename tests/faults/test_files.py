"""Reading files and objects, killed with SIGKILL at each step of it, and run again: every row once, and nothing left."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import Pipeline, RunReport, run_pipeline, steps
from engine.ledger import Ledger
from engine.sources import file_reading, store
from tests.faults.world import ended
from tests.run.world import T
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph

FILES, ROWS = 5, 40


@dataclass(frozen=True)
class World:
    """A pipeline of one source, and a folder of its own for temporary files."""

    folder: Path
    source: dict[str, Any]

    def run(self) -> RunReport:
        pipeline = Pipeline(base=self.folder, name="files", sources={"s": self.source})
        return run_pipeline(pipeline, as_of=T)

    def killed_at(self, step: str, count: int) -> None:
        process = multiprocessing.get_context("forkserver").Process(target=die, args=(self, step, count), daemon=True)
        process.start()
        assert ended(process) == -signal.SIGKILL

    def rows(self) -> list[tuple[Any, ...]]:
        with Ledger(self.folder / ".maestro") as ledger:
            table = ledger.table("files", "s", accepted=True)
        assert table is not None
        frames = [pl.read_parquet(self.folder / ".maestro" / file.path) for file in table.files]
        return pl.concat(frames).rows()

    def landed(self) -> set[str]:
        """What lies in the landing zone."""
        root = self.folder / ".maestro"
        return {path.relative_to(root).as_posix() for path in (root / "landing").rglob("*.parquet")}

    def named(self) -> set[str]:
        with Ledger(self.folder / ".maestro") as ledger:
            return {file.path for table in ledger.tables("files") for file in table.files}


def small(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """A file is a piece, and a copy on disk while it is read."""
    patch.setattr(file_reading, "BATCH_FILES", 1)
    patch.setattr(store, "HELD_BYTES", 0)
    patch.setattr(tempfile, "tempdir", str(folder / "temporary"))


def die(world: World, step: str, count: int) -> None:
    """What the process does that is killed when it has made a step so often."""
    small(pytest.MonkeyPatch(), world.folder)
    left = iter(range(count - 1, -1, -1))
    steps.listener = lambda made: os.kill(os.getpid(), signal.SIGKILL) if made == step and not next(left) else None
    world.run()


def part(number: int) -> pl.DataFrame:
    first = number * ROWS
    return pl.DataFrame({"n": range(first, first + ROWS), "name": [f"row {n:04}" for n in range(first, first + ROWS)]})


EXPECTED = pl.concat(map(part, range(FILES))).rows()
STEPS = (("read.begun", 1), ("piece.written", 2), ("piece.committed", 2), ("table.written", 1), ("table.landed", 1))


def made_good(world: World, step: str, count: int, again: int) -> None:
    """Killed, then run again.

    Args:
        again: how many pieces need not be read again.
    """
    world.killed_at(step, count)
    left = list((world.folder / "temporary").glob("maestro-files-*"))
    assert bool(left) == step.startswith("piece.")
    report = world.run()
    assert report.status == "done"
    assert report.sources[0].metrics.chunks_skipped == again
    assert world.rows() == EXPECTED
    assert world.landed() == world.named()
    assert list((world.folder / "temporary").glob("*maestro*")) == []
    assert world.run().sources[0].metrics.rows == len(EXPECTED)
    assert world.rows() == EXPECTED


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    multiprocessing.util.get_temp_dir()  # of all tests: not in the folder of this one
    small(monkeypatch, tmp_path)
    return tmp_path


@pytest.mark.parametrize(("step", "count"), STEPS)
def test_new_files_of_a_folder(folder: Path, step: str, count: int) -> None:
    world = World(folder, {"type": "file", "path": "in/*.csv", "mode": "append"})
    (folder / "in").mkdir()
    for number in range(2):
        part(number).write_csv(folder / f"in/{number}.csv")
    world.run()
    for number in range(2, FILES):
        part(number).write_csv(folder / f"in/{number}.csv")
    made_good(world, step, count, {"piece.committed": 2, "table.written": 3}.get(step, int(step == "piece.written")))


@pytest.mark.parametrize(("step", "count"), STEPS[1:])
def test_objects(folder: Path, ceph_server: Ceph, step: str, count: int) -> None:
    prefix = f"killed/{folder.name}"
    for number in range(FILES):
        with ceph_server.store().open(f"{BUCKET}/{prefix}/{number}.parquet", "wb") as file:
            part(number).write_parquet(file)
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "endpoint_url": ceph_server.url}
    world = World(folder, {"type": "s3", "bucket": BUCKET, "key": f"{prefix}/*.parquet", **keys})
    again = {"piece.written": 1, "piece.committed": 2}.get(
        step, FILES
    )  # a table that had not been judged is read again
    made_good(world, step, count, again)

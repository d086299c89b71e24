"""A disk that is full: the run says so and what to do, nothing published is lost, and with room again it goes on.

Each test mounts a file system of its own, which takes root and the right to mount.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine import RunReport, run_pipeline, steps
from engine.errors import LedgerError, MaestroError, SinkError, SourceError
from engine.ledger import Ledger
from engine.plan import compile_plan
from engine.run import execute
from tests.faults.world import DAY, NAME, Database, T, contents, in_file, pipeline, plain, published, settle

KIB = 1024


@dataclass(frozen=True)
class Disk:
    """A small disk.

    Attributes:
        path: where it is mounted.
    """

    path: Path

    def resize(self, size: int) -> None:
        _mount("-o", f"remount,size={size}", str(self.path))

    def fill(self) -> None:
        """Takes all the room there is."""
        with (self.path / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4 * KIB)):
                pass
        assert os.statvfs(self.path).f_bavail == 0

    def free(self) -> None:
        (self.path / "ballast").unlink()

    def fill_with_files(self) -> None:
        """Room, but for no more files."""
        folder = self.path / "ballasts"
        folder.mkdir()
        with suppress(OSError):
            for number in range(100_000):
                (folder / str(number)).touch()
        assert os.statvfs(self.path).f_favail == 0


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"these tests mount a tmpfs: run them as root, with CAP_SYS_ADMIN ({done.stderr.strip()})")


@contextmanager
def mounted(path: Path, size: int, files: int = 0) -> Iterator[Disk]:
    """A disk for so many bytes and ``files``; 0: any number."""
    path.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size},nr_inodes={files}", "tmpfs", str(path))
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@dataclass
class World:
    """A pipeline over one table; where its workdir and its output are is said by the test."""

    database: Database
    folder: Path
    workdir: Path
    output: Path

    def insert(self, first: int, rows: int) -> None:
        """Rows that do not compress."""
        random_ = random.Random(first)
        texts = (random_.randbytes(200).hex() for _ in range(rows))
        self.database.insert("tasks", [(first + i, text, random_.random()) for i, text in enumerate(texts)])

    def pipeline(self) -> Any:
        source = {"type": "database", "connection_string": self.database.url, "table": "tasks", "max_retries": 0}
        return pipeline(
            self.folder,
            self.database.url,
            sources={"tasks": source},
            validation={"tasks": {"unique_columns": ["task_id"]}},
            features={"task_features": {"handle_missing": "keep", "normalize": False}},
            workdir=str(self.workdir),
            output={"path": str(self.output)},
        )

    def run(self, day: int) -> RunReport:
        return run_pipeline(self.pipeline(), as_of=T + day * DAY)

    def fails(self, *allowed: tuple[type[MaestroError], str]) -> MaestroError:
        before = self.contents()
        assert before
        with pytest.raises(MaestroError) as caught:
            self.run(1)
        assert (type(caught.value), caught.value.code) in allowed, str(caught.value)
        assert caught.value.exit_code == 3
        assert caught.value.fix
        assert self.contents() == before
        return caught.value

    def contents(self) -> dict[str, bytes]:
        return {name: data for name, data in contents(self.output.parent).items() if not name.startswith(".")}

    def whole(self) -> None:
        """Makes sure that a run at the second moment is exact."""
        with Ledger(self.workdir) as ledger:
            table = ledger.table(NAME, "tasks", accepted=True)
            assert table is not None
            assert {file["state"] for file in ledger.published(NAME)} == {"published"}
            assert ledger.runs(NAME)[-1]["status"] == "done"
        import polars as pl

        rows = pl.read_parquet([self.workdir / file.path for file in table.files], glob=False).rows()
        assert plain(rows) == plain(self.database.rows("SELECT * FROM tasks"))
        frame = published(self.output.parent, "task_features")
        newest = frame.filter(frame["event_timestamp"] == T + DAY)
        want = self.database.rows("SELECT task_id, length(description), estimated_hours FROM tasks ORDER BY task_id")
        assert newest.select("task_id", "description_length", "estimated_hours").sort("task_id").rows() == want


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """A world whose first run has published; ``workdir`` and ``output`` are given once the disks are mounted."""
    settle(monkeypatch, 100)

    def make(workdir: Path, output: Path) -> World:
        database = in_file(tmp_path / "app.db")
        database.execute("CREATE TABLE tasks (task_id INTEGER PRIMARY KEY, description TEXT, estimated_hours REAL)")
        world = World(database, tmp_path, workdir, output)
        world.insert(0, 50)
        assert world.run(0).status == "done"
        return world

    return make


@pytest.mark.parametrize("size", [612 * KIB, 644 * KIB, 688 * KIB])
def test_no_room_to_land(made: Callable[..., World], tmp_path: Path, size: int) -> None:
    """Some pieces land before it is full; they are not read again."""
    with mounted(tmp_path / "disk", 32 * KIB * KIB) as disk:
        world = made(disk.path / "work", tmp_path / "features")
        world.insert(50, 3000)
        disk.resize(size)
        # Whatever needs room first, the ledger or a piece, says so.
        error = world.fails((SourceError, "source.disk_full"), (LedgerError, "ledger.unreadable"))
        assert "disk is full" in error.message
        if isinstance(error, SourceError):
            assert error.where == "sources.tasks"
            assert "workdir" in str(error.fix)
        with Ledger(world.workdir) as ledger:
            last = ledger.runs(NAME)[-1]
            assert last["status"] in ("failed", "running"), "there may be no room to record that either"
            [read] = ledger.reads(last["run_id"])
            pieces = len(ledger.pieces(read.read_id))
        assert pieces > 0
        disk.resize(32 * KIB * KIB)
        metrics = world.run(1).sources[0].metrics
        assert (metrics.chunks_skipped, metrics.chunks + metrics.chunks_skipped) == (pieces, 31)
        world.whole()


@pytest.mark.parametrize("inside", [False, True])
def test_no_room_to_publish(made: Callable[..., World], tmp_path: Path, inside: bool) -> None:
    """The output is on a disk of its own: a folder of it, or all of it."""
    with mounted(tmp_path / ("features" if inside else "disk"), 128 * KIB) as disk:
        world = made(tmp_path / "work", disk.path if inside else disk.path / "features")
        world.insert(50, 15_000)
        error = world.fails((SinkError, "output.unwritable"))
        assert "No space left" in error.message
        assert "free disk space" in str(error.fix)
        with Ledger(world.workdir) as ledger:
            assert ledger.runs(NAME)[-1]["status"] == "partial"
            assert [file["state"] for file in ledger.published(NAME)] == ["published"]
        left = [path for path in disk.path.rglob("*") if path.is_file()]
        assert len(left) == 1, "what was staged is gone, so that its room is free"
        disk.resize(32 * KIB * KIB)
        assert world.run(1).status == "done"
        world.whole()


@pytest.mark.parametrize(
    "step",
    [
        "before",
        "run.begun",
        "read.begun",
        "piece.written",
        "table.written",
        "table.landed",
        "files.staged",
        "file.published",
    ],
)
def test_no_room_for_the_ledger(
    made: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It fills up at that very step: whatever comes next in the ledger cannot be written."""
    with mounted(tmp_path / "disk", 8 * KIB * KIB) as disk:
        world = made(disk.path / "work", tmp_path / "features")
        world.insert(50, 500)
        filled = []

        def heard(made_: str) -> None:
            if made_ == step and not filled:
                filled.append(step)
                disk.fill()

        if step == "before":
            heard(step)
        monkeypatch.setattr(steps, "listener", heard)
        before = world.contents()
        with pytest.raises(MaestroError) as caught:
            world.run(1)
        assert filled == [step]
        assert (type(caught.value), caught.value.exit_code) in ((LedgerError, 3), (SourceError, 3)), str(caught.value)
        assert "disk" in caught.value.message
        assert caught.value.fix
        assert before.items() <= world.contents().items()
        disk.free()
        assert world.run(1).status == "done"
        world.whole()


def test_no_room_for_the_ledger_says_the_command(made: Callable[..., World], tmp_path: Path) -> None:
    """A plan made while there was room."""
    with mounted(tmp_path / "disk", 8 * KIB * KIB) as disk:
        world = made(disk.path / "work", tmp_path / "features")
        plan = compile_plan(world.pipeline(), T + DAY)
        disk.fill()
        with pytest.raises(LedgerError) as caught:
            execute(plan)
        assert str(world.workdir) in str(caught.value.where)
        assert caught.value.fix
        disk.free()
        assert world.run(1).status == "done"
        world.whole()


@pytest.mark.parametrize("step", ["run.begun", "read.begun", "piece.committed", "table.written"])
def test_no_more_files(made: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A disk may run out of files, or a user of the quota for them, before it is full."""
    with mounted(tmp_path / "disk", 8 * KIB * KIB, files=200) as disk:
        world = made(disk.path / "work", tmp_path / "features")
        world.insert(50, 500)
        filled = []

        def heard(made_: str) -> None:
            if made_ == step and not filled:
                filled.append(step)
                disk.fill_with_files()

        monkeypatch.setattr(steps, "listener", heard)
        if step == "table.written":  # all that is left to write goes into the ledger, whose files are there
            assert world.run(1).status == "done"
        elif step == "run.begun":
            assert "No space left" in world.fails((LedgerError, "workdir.unwritable")).message
        else:
            world.fails((SourceError, "source.disk_full"))
        assert filled == [step]
        shutil.rmtree(disk.path / "ballasts")
        assert world.run(1).status == "done"
        world.whole()

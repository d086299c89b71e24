"""Published features: one Parquet file per view and as-of, seen whole or not at all.

``<output>/<view>/event_date=YYYY-MM-DD/part-<as-of>.parquet``; staging lies beside the output folder, on the same
file system and outside every folder that readers list, and each file gets its place by one rename; in an object
store, by one PUT.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import SinkError
from engine.objects import Objects
from engine.sinks.paths import part_path


@dataclass(frozen=True)
class Part:
    """A staged file: complete, durable, not yet visible."""

    staged: Path
    output: Path | Objects
    path: str  # below it
    rows: int
    sha256: str

    @property
    def target(self) -> str:
        """Its place, for people."""
        return f"{self.output}/{self.path}"

    def publish(self) -> None:
        """Puts the file in its place, over an earlier one of the same name, in one step.

        Raises:
            SinkError: the output folder cannot be written.
        """
        if isinstance(self.output, Objects):
            self.output.put(self.staged, self.path)
            return
        target = self.output / self.path
        try:
            new = [p for p in (target.parent, target.parent.parent) if not p.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            self.staged.replace(target)
            sync(target.parent)
            for folder in new:
                sync(folder.parent)
        except OSError as error:
            raise unwritable(target.parent, error) from None


class Staging:
    """A folder for files that are not yet published; gone when the run ends.

    It lies beside the output folder; where that is a mount point, inside it, since files move by renaming; for an
    object store in the workdir.
    """

    def __init__(self, output: Path | Objects, pipeline: str, run_id: str, workdir: Path) -> None:
        self.output = output
        if isinstance(output, Objects):
            self._root = workdir / "staging"
        else:
            beside = output.parent / f".{output.name}.staging"
            self._root = output / ".staging" if output.is_mount() else beside
        self.folder = self._root / pipeline / f"{run_id}-{uuid.uuid4().hex[:8]}"  # a resumed run stages once more

    @contextmanager
    def open(self) -> Iterator[Staging]:
        """Makes the folder, and removes what killed runs of the same pipeline left beside it."""
        ours = self.folder.parent
        try:
            self.folder.mkdir(parents=True)
            handle = (self.folder / "lock").open("w")
            fcntl.flock(handle, fcntl.LOCK_EX)
            for other in ours.iterdir():
                if other != self.folder and _is_dead(other):
                    shutil.rmtree(other, ignore_errors=True)
        except OSError as error:
            raise unwritable(ours, error) from None
        try:
            with handle:
                yield self
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # another run stages here too
                ours.rmdir()
                self._root.rmdir()

    def write(
        self, rows: Iterable[pl.DataFrame], view: str, as_of: datetime, metadata: Mapping[str, str] | None = None
    ) -> Part:
        """Writes rows (in their order) as the file of ``view`` and ``as_of``, durably, but not yet visible.

        Args:
            rows: one or more frames; each is a row group.
            metadata: goes into the file's footer.

        Raises:
            SinkError: the disk is full or cannot be written.
        """
        relative = part_path(view, as_of)
        staged = self.folder / relative
        try:
            staged.parent.mkdir(parents=True, exist_ok=True)
            count = _write(staged, rows, metadata or {})
            sync(staged)
            with staged.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise unwritable(staged.parent, error) from None
        return Part(staged, self.output, relative.as_posix(), count, digest)


def _write(path: Path, frames: Iterable[pl.DataFrame], metadata: Mapping[str, str]) -> int:
    """How many rows were written."""
    count, writer = 0, None
    with ExitStack() as stack:
        file = stack.enter_context(pa.OSFile(str(path), "wb"))
        for frame in frames:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(file, table.schema, compression="zstd"))
                writer.add_key_value_metadata(dict(metadata))
            writer.write_table(table, row_group_size=max(frame.height, 1))
            count += frame.height
    return count


def _is_dead(folder: Path) -> bool:
    """Whether the run that staged here has ended: the operating system has freed its lock."""
    try:
        with (folder / "lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def unwritable(folder: Path, error: Exception, setting: str = "output.path") -> SinkError:
    """The error for a place that cannot be written; ``setting`` is what names the place."""
    return SinkError(
        f"cannot write: {getattr(error, 'strerror', None) or error}",
        code="output.unwritable",
        where=str(folder),
        fix=f"free disk space, or choose another {setting}, one that can be written",
    )


def sync(path: Path) -> None:
    """Makes what was written to a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

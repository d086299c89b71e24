"""A landed table: its files in order, which of its rows came in which read, and the table without some of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from engine.landing import files, origin
from engine.landing.metrics import Metrics
from engine.landing.origin import Segment
from engine.ledger import File, Read
from engine.sources import Promise


@dataclass(frozen=True)
class LandedTable:
    """A landed table: its files in order (at least one, maybe without rows), and how it came about.

    Attributes:
        root: the folder that the files' paths start from.
        position: where the next read goes on, JSON-ready; None without a cursor.
        trace: what the source left for its next read.
        schema: column: dtype.
        quarantined: files of the rows set aside while it landed.
        witness: has seen all its rows, and no others, while they landed; None: nobody has.
    """

    root: Path
    files: tuple[File, ...]
    metrics: Metrics
    schema: Mapping[str, str] = field(default_factory=dict)
    position: Mapping[str, Any] | None = None
    trace: Mapping[str, Any] | None = None
    promise: Promise = field(default_factory=Promise)
    quarantined: tuple[File, ...] = ()
    witness: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, root: Path, read: Read) -> LandedTable:
        """The table that a read of an earlier run landed; nothing is read of it now."""
        metrics = Metrics(rows=sum(file.rows for file in read.files))
        return cls(root, read.files, metrics, dict(read.schema or {}), read.position, read.trace)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, absolute."""
        return tuple(self.root / file.path for file in self.files)

    def scan(self) -> pl.LazyFrame:
        """The whole table, lazily."""
        return pl.scan_parquet(list(self.paths), hive_partitioning=False, glob=False)

    def rows(self, reads: Collection[str] | None = None) -> Rows:
        """The rows that came in some reads; None: all."""
        if reads is None:
            return Rows(self, tuple(Slice(i, 0, file.rows) for i, file in enumerate(self.files) if file.rows))
        return Rows(self, tuple(self._came_in(reads)))

    def _came_in(self, reads: Collection[str]) -> Iterator[Slice]:
        for number, path in enumerate(self.paths):
            first = 0
            for is_of, segments in groupby(origin.of(path), lambda segment: segment.read in reads):
                count = sum(segment.rows for segment in segments)
                if is_of:
                    yield Slice(number, first, count)
                first += count

    def origins(self) -> pl.DataFrame:
        """Where each row came from; see `engine.landing.origin.table`."""
        return self.rows().origins()


@dataclass(frozen=True)
class Slice:
    """Neighbouring rows of one file: the file's number in the table, the first of them, how many."""

    file: int
    first: int
    rows: int


@dataclass(frozen=True)
class Rows:
    """Some rows of a landed table, in its order."""

    table: LandedTable
    slices: tuple[Slice, ...]

    @property
    def count(self) -> int:
        """How many they are."""
        return sum(part.rows for part in self.slices)

    def scan(self) -> pl.LazyFrame:
        """The rows, lazily."""
        if self.count == sum(file.rows for file in self.table.files):
            return self.table.scan()
        paths = self.table.paths
        frames = []
        for is_whole, parts in groupby(self.slices, self._is_whole):
            if is_whole:
                whole = [paths[part.file] for part in parts]
                frames.append(pl.scan_parquet(whole, hive_partitioning=False, glob=False))
            else:
                frames += [files.scan(paths[part.file]).slice(part.first, part.rows) for part in parts]
        return pl.concat(frames) if frames else files.scan(paths[0]).head(0)

    def parts(self) -> Iterator[pl.LazyFrame]:
        """The rows file by file: of one scan of all, Polars holds some files decoded."""
        for part in self.slices:
            whole = files.scan(self.table.paths[part.file])
            yield whole if self._is_whole(part) else whole.slice(part.first, part.rows)

    def _is_whole(self, part: Slice) -> bool:
        return part.rows == self.table.files[part.file].rows

    def origins(self) -> pl.DataFrame:
        """Where each came from, counted over these rows; see `engine.landing.origin.table`."""
        return origin.table(self._segments())

    def came_in(self, reads: Collection[str], among: pl.Series) -> int:
        """How many of the rows that are true in ``among`` came in some reads."""
        found = at = 0
        for segment in (segment for segments in self._segments() for segment in segments):
            if segment.read in reads:
                found += int(among.slice(at, segment.rows).sum())
            at += segment.rows
        return found

    def _segments(self) -> Iterator[list[Segment]]:
        for part in self.slices:
            segments = origin.of(self.table.paths[part.file])
            yield segments if self._is_whole(part) else origin.kept(segments, [(part.first, part.rows)])

    def without(self, removed: pl.Series | None, folder: Path) -> LandedTable:
        """The table without those of the rows that are true in ``removed`` (None: none is).

        The files that lose some are copied to ``folder``; none changes.
        """
        if removed is None or not removed.any():
            return self.table
        gone: dict[int, list[pl.Series]] = {}
        at = 0
        for part in self.slices:
            numbers = removed.slice(at, part.rows).arg_true().cast(pl.Int64) + part.first
            if numbers.len():
                gone.setdefault(part.file, []).append(numbers)
            at += part.rows
        left = tuple(self._left(gone, folder))
        rows = sum(file.rows for file in left)
        if at != removed.len() or rows != sum(file.rows for file in self.table.files) - removed.sum():
            raise AssertionError(f"{at} rows, of which {removed.sum()} of {removed.len()} go, leave {rows}")
        return replace(self.table, files=left)

    def _left(self, gone: Mapping[int, list[pl.Series]], folder: Path) -> Iterator[File]:
        root, none = self.table.root, True
        for number, file in enumerate(self.table.files):
            rows = pl.concat(gone[number]) if number in gone else None
            if rows is not None and rows.len() == file.rows:
                continue
            none = False
            yield file if rows is None else files.seal(files.without(root / file.path, rows, folder), root)
        if none:
            yield files.seal(files.empty(files.schema(self.table.paths[0]), folder), root)

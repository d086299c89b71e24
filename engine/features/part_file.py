"""What the footer of a published file says, and whether it is still the same file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from engine.errors import SinkError
from engine.features.ways import FITS
from engine.types import epoch_microseconds, parse_moment

_UNITS = {"microseconds": 1, "milliseconds": 1_000}


@dataclass(frozen=True)
class Seen:
    """A file as it was when its footer was read."""

    inode: int
    size: int
    changed: int

    def check(self, path: Path) -> Path:
        """The path, if that file is still there or gone.

        Raises:
            SinkError: another one has taken its place.
        """
        if path.exists() and _seen(path.stat()) != self:
            raise replaced(str(path))
        return path

    def fetch(self, path: Path) -> Callable[[], Path]:
        return lambda: self.check(path)


def identity(handle: BinaryIO) -> Seen:
    return _seen(os.fstat(handle.fileno()))


def _seen(found: os.stat_result) -> Seen:
    return Seen(found.st_ino, found.st_size, found.st_mtime_ns)


def replaced(target: str) -> SinkError:
    return SinkError(
        "the file has been published again meanwhile",
        code="training.changed",
        where=target,
        fix="make the training set again",
    )


def marks_in(footer: pq.FileMetaData) -> dict[str, Any] | None:
    """What a footer says of the fits of its columns; None: nothing, as those of earlier versions."""
    text = (footer.metadata or {}).get(FITS.encode())
    return None if text is None else dict(json.loads(text))


def extremes(footer: pq.FileMetaData, name: str) -> tuple[int | None, int | None]:
    """The first and last moment of a column, in microseconds; None where the footer does not say, or one is null."""
    lows, highs = [], []
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        for i in range(row_group.num_columns):
            found = row_group.column(i)
            if found.path_in_schema == name and row_group.num_rows:
                statistics = found.statistics
                if statistics is None or not statistics.has_min_max or statistics.null_count:
                    return None, None
                unit = _unit(statistics)
                if unit is not None:
                    lows.append(statistics.min_raw * unit)
                    highs.append(statistics.max_raw * unit)
                else:
                    lows.append(epoch_microseconds(parse_moment(statistics.min)))
                    highs.append(epoch_microseconds(parse_moment(statistics.max)))
    return (min(lows), max(highs)) if lows else (None, None)


def _unit(statistics: pq.Statistics) -> int | None:
    """The microseconds of a unit of raw moments. pyarrow itself would import pandas for them, which takes long."""
    if statistics.physical_type != "INT64" or statistics.logical_type.type != "TIMESTAMP":
        return None
    return _UNITS.get(json.loads(statistics.logical_type.to_json())["timeUnit"])

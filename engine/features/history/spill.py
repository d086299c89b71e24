"""Rows on disk, in the order in which they will be asked for: one file, columns of numbers, few reads.

Rows come in any order. They are gathered to runs that fit into memory; each run is sorted by *cell* and appended,
column by column. A cell is then a slice of each run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.features.raw import writing

Array = npt.NDArray[Any]


class Spill:
    """Rows by cell.

    Args:
        columns: name: dtype.
        cells: how many there are.
        budget: bytes that may be held before a run is written.

    Attributes:
        rows: how many have been added.
    """

    def __init__(self, path: Path, columns: Mapping[str, npt.DTypeLike], cells: int, budget: int) -> None:
        self._dtypes = {name: np.dtype(dtype) for name, dtype in columns.items()}
        self._width = sum(dtype.itemsize for dtype in self._dtypes.values())
        self._cells = cells
        self._most = max(budget // (3 * (self._width + 8)), 10_000)  # rows, their sorted copy, their order
        self._held: list[tuple[Array, dict[str, Array]]] = []
        self._held_rows = 0
        self._runs: list[tuple[dict[str, int], Array]] = []  # where each column begins; where each cell begins in it
        self.path = path
        self._file = path.open("w+b", buffering=0)
        self._end = 0
        self.rows = 0

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    @property
    def bytes(self) -> int:
        """On disk."""
        return self._end

    def add(self, cells: Array, columns: Mapping[str, Array]) -> None:
        """Rows: the cell of each, and their columns."""
        self._held.append((cells, dict(columns)))
        self._held_rows += len(cells)
        self.rows += len(cells)
        if self._held_rows >= self._most:
            self.flush()

    def flush(self) -> None:
        """Writes what is held as a run.

        Raises:
            SinkError: the disk is full or cannot be written.
        """
        if not self._held_rows:
            return
        cells = np.concatenate([cells for cells, _ in self._held])
        if self._cells <= 2**16:
            cells = cells.astype(np.uint16, copy=False)  # numpy sorts these by radix
        counts = np.bincount(cells, minlength=self._cells)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        order = np.argsort(cells, kind="stable")
        places = {}
        for name, dtype in self._dtypes.items():
            column = np.concatenate([columns.pop(name) for _, columns in self._held])
            places[name] = self._end
            column = column.astype(dtype, copy=False)[order]
            write_all(self._file.fileno(), column, self._end, self.path)
            self._end += column.nbytes
        self._runs.append((places, starts))
        self._held, self._held_rows = [], 0

    def parts(self, first: int, last: int, most: int) -> Iterator[dict[str, Array]]:
        """The rows of the cells from ``first`` on and before ``last``, at most so many at once."""
        for places, starts in self._runs:
            begin, end = int(starts[first]), int(starts[last])
            for at in range(begin, end, most):
                count = min(most, end - at)
                found = {}
                for name, dtype in self._dtypes.items():
                    size = dtype.itemsize
                    data = os.pread(self._file.fileno(), count * size, places[name] + at * size)
                    found[name] = np.frombuffer(data, dtype)
                yield found

    def read(self, first: int, last: int) -> Mapping[str, Array]:
        """As `parts`, all at once."""
        parts = list(self.parts(first, last, max(self.rows, 1)))
        return together(parts) if parts else {name: np.empty(0, dtype) for name, dtype in self._dtypes.items()}


def together(parts: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    """Rows one after the other; there are some."""
    return parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def write_all(file: int, values: Array, place: int, path: Path) -> None:
    """Writes an array's bytes at ``place`` of a file.

    Raises:
        SinkError: the disk is full or cannot be written.
    """
    data = np.ascontiguousarray(values).reshape(-1).data.cast("B") if values.size else memoryview(b"")
    with writing(path.parent, "what a backfill needs grows with its events"):
        while data:
            written = os.pwrite(file, data, place)
            data, place = data[written:], place + written

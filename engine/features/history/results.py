"""Values of aggregates by as-of, made for some of the entities at a time and asked for one as-of at a time."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.features.history.spill import write_all

Array = npt.NDArray[Any]


class Part:
    """The values of one aggregate for some entities: a block of the file with a row per as-of.

    Attributes:
        ids: theirs.
        width: how many values each has; of lists the longest.
        is_total: whether each has a value at every as-of, so that there are no flags.
    """

    def __init__(
        self, ids: Array, dtype: npt.DTypeLike, width: int, begin: int, as_ofs: int, *, is_total: bool = False
    ) -> None:
        self.ids, self.dtype, self.width, self.begin, self.is_total = ids, np.dtype(dtype), width, begin, is_total
        self.size = len(ids) * width * self.dtype.itemsize
        self.there = begin + as_ofs * self.size
        self.end = self.there + (0 if is_total else as_ofs * len(ids))


class Results:
    """A file of such parts.

    Where an entity has no value at an as-of, a flag says 0; for lists it says how many values there are.
    """

    def __init__(self, path: Path, as_ofs: int, entities: int) -> None:
        self._path, self._as_ofs, self._entities = path, as_ofs, entities
        self._file = path.open("w+b", buffering=0)
        self._parts: dict[str, list[Part]] = {}
        self._end = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def part(self, name: str, ids: Array, dtype: npt.DTypeLike, width: int = 1, *, is_total: bool = False) -> Part:
        """The place for an aggregate's values of some entities."""
        with self._lock:
            part = Part(ids, dtype, width, self._end, self._as_ofs, is_total=is_total)
            self._end = part.end
            self._parts.setdefault(name, []).append(part)
        return part

    def put(self, part: Part, first: int, values: Array, there: Array | None) -> None:
        """Keeps rows from the as-of ``first`` on: arrays with one row per as-of.

        Raises:
            SinkError: the disk is full or cannot be written.
        """
        data = np.ascontiguousarray(values, part.dtype)
        write_all(self._file.fileno(), data, part.begin + first * part.size, self._path)
        if not part.is_total:
            rows = values.size // max(len(part.ids) * part.width, 1)
            flags = np.ones((rows, len(part.ids)), np.uint8) if there is None else np.ascontiguousarray(there, np.uint8)
            write_all(self._file.fileno(), flags, part.there + first * len(part.ids), self._path)

    def get(self, name: str, as_of: int) -> tuple[Array, Array | None]:
        """The values of all entities, by id, at the as-of of this number, and the flags."""
        parts = self._parts[name]
        width = parts[0].width
        values = np.zeros((self._entities, width) if width > 1 else self._entities, parts[0].dtype)
        there = None if all(part.is_total for part in parts) else np.zeros(self._entities, np.uint8)
        for part in parts:
            rows = np.frombuffer(os.pread(self._file.fileno(), part.size, part.begin + as_of * part.size), part.dtype)
            values[part.ids] = rows.reshape(-1, width) if width > 1 else rows
            if there is not None:
                there[part.ids] = self._flags(part, as_of)
        return values, there

    def _flags(self, part: Part, as_of: int) -> Array:
        count = len(part.ids)
        if part.is_total:
            return np.ones(count, np.uint8)
        return np.frombuffer(os.pread(self._file.fileno(), count, part.there + as_of * count), np.uint8)

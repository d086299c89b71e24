"""Values put in the places of the rows that want them, by several threads, and without a copy of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

_NUMBERS = (
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64),
    *(pl.Date, pl.Datetime, pl.Duration),
)
_Rows = npt.NDArray[np.intp]


class Placed:
    """Columns of so many rows, null where nothing is put.

    Numbers, moments and booleans go where they belong as they come; others are held as they came, until all are there.
    """

    def __init__(self, columns: Mapping[str, pl.DataType], count: int) -> None:
        self._columns, self._count = columns, count
        self._held = np.zeros(count, np.bool_)
        self._arrays = {name: np.zeros(count, _array_type(dtype)) for name, dtype in columns.items() if _fixed(dtype)}
        self._nulls: dict[str, list[_Rows]] = {name: [] for name in self._arrays}
        self._others: list[tuple[pl.DataFrame, _Rows]] = []

    def put(self, frame: pl.DataFrame, chosen: npt.NDArray[np.int64], rows: _Rows) -> None:
        """Row ``chosen[i]`` of the frame is that of ``rows[i]``, which no other call has."""
        self._held[rows] = True
        for name, array in self._arrays.items():
            series = frame[name].to_physical()
            if series.null_count():
                self._nulls[name].append(rows[series.is_null().to_numpy()[chosen]])
                series = series.fill_null(value=False if series.dtype == pl.Boolean else 0)
            array[rows] = series.to_numpy()[chosen]
        others = [name for name in self._columns if name not in self._arrays]
        if others:
            self._others.append((frame.select(pl.col(others))[pl.Series(chosen)], rows))

    def frame(self) -> pl.DataFrame:
        """What was put; nothing more can be."""
        found = {name: self._taken(name) for name in list(self._arrays)}
        others = {name: dtype for name, dtype in self._columns.items() if name not in found}
        if others and not self._others:
            found.update(pl.DataFrame(schema=others).clear(self._count).to_dict())
        elif others:
            table = pl.concat([frame for frame, _ in self._others], rechunk=True)  # gathering from pieces is slower
            order = np.full(self._count, table.height, np.int64)
            order[np.concatenate([rows for _, rows in self._others])] = np.arange(table.height)
            self._others.clear()
            chosen = pl.Series(order)
            chosen = chosen.set(chosen == table.height, None)
            found.update(table.select(pl.all().gather(chosen)).to_dict())
        return pl.DataFrame([found[name].alias(name) for name in self._columns])

    def _taken(self, name: str) -> pl.Series:
        array, held, dtype = self._arrays.pop(name), self._held, self._columns[name]
        nulls = self._nulls[name]
        if nulls:
            held = held.copy()
            held[np.concatenate(nulls)] = False
        kind: Any = pa.from_numpy_dtype(array.dtype)
        buffer = pa.py_buffer(_bits(array) if dtype == pl.Boolean else array)
        series = pl.Series(pa.Array.from_buffers(kind, self._count, [pa.py_buffer(_bits(held)), buffer]))
        return series if series.dtype == dtype else series.cast(dtype)


def _fixed(dtype: pl.DataType) -> bool:
    return dtype == pl.Boolean or dtype in _NUMBERS


def _array_type(dtype: pl.DataType) -> Any:
    return pl.Series(dtype=dtype).to_physical().to_numpy().dtype


def _bits(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    return np.packbits(flags, bitorder="little")

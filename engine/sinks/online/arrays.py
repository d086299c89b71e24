"""Arrow arrays of bytes, made and joined in native code.

Nothing here makes a Python object per row, and nothing calls what imports pandas: Arrow does for a mere constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_SKIP = pc.JoinOptions(null_handling="replace", null_replacement="")  # "skip" drops rows that are null in all
_SEVEN = np.uint64(7)


def array(offsets: Counts, data: Bytes, valid: Mask | None = None) -> Any:
    """A binary array over ``data``, which is not copied."""
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [bitmap, pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def constant(value: bytes, rows: int, valid: Mask | None = None) -> Any:
    """The same bytes in each row."""
    data = np.frombuffer(value * rows, np.uint8)
    return array(np.arange(rows + 1, dtype=np.int64) * len(value), data, valid)


def fixed(prefix: bytes, values: npt.NDArray[Any], valid: Mask | None = None) -> Any:
    """``prefix`` and the little-endian bytes of a number in each row; nothing where it is not valid."""
    width = values.dtype.itemsize
    table = np.empty((len(values), len(prefix) + width), np.uint8)
    table[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    table[:, len(prefix) :] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width)
    if valid is None:
        return array(np.arange(len(values) + 1, dtype=np.int64) * table.shape[1], table.reshape(-1))
    return array(offsets_of(valid * np.int64(table.shape[1])), table[valid].reshape(-1))


def varints(values: npt.NDArray[np.uint64], valid: Mask | None = None) -> Any:
    """Protobuf's variable-length integers."""
    width = max(1, (int(values.max(initial=0)).bit_length() + 6) // 7)
    table = np.empty((len(values), width), np.uint8)
    counts = np.ones(len(values), np.int64)
    rest = values
    for i in range(width):
        if i:
            counts += rest != 0
        table[:, i] = (rest & np.uint64(0x7F)).astype(np.uint8) | 0x80
        rest = rest >> _SEVEN
    table[np.arange(len(values)), counts - 1] &= 0x7F
    data = table.reshape(-1) if width == 1 else table[np.arange(width) < counts[:, None]]
    return array(offsets_of(counts), data, valid)


def join(*parts: Any) -> Any:
    """The arrays side by side, as one; null is nothing."""
    return pc.binary_join_element_wise(*parts, constant(b"", len(parts[0])), options=_SKIP)


def offsets_of(lengths: npt.NDArray[Any]) -> Counts:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def lengths(found: Any) -> Counts:
    """Bytes in each row; of null 0."""
    offsets = offsets_in(found)
    return np.asarray(offsets[1:] - offsets[:-1])


def offsets_in(found: Any) -> Counts:
    """Where each row of a binary, text or list array begins, and the last ends."""
    return np.frombuffer(found.buffers()[1], np.int64)[found.offset : found.offset + len(found) + 1]


def content(found: Any) -> Bytes:
    """What `offsets_in` points into."""
    buffer = found.buffers()[2]
    return np.frombuffer(buffer, np.uint8) if buffer is not None else np.empty(0, np.uint8)


def indices(found: npt.NDArray[Any]) -> Any:
    """For ``take``."""
    data = np.ascontiguousarray(found, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)])


def to_arrow(column: pl.Series) -> Any:
    """With 64-bit offsets, in one piece."""
    return column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())


def to_binary(column: pl.Series) -> Any:
    """A text or binary column as a binary array."""
    return to_arrow(column.cast(pl.Binary))

"""Entity keys as Feast stores them."""

from __future__ import annotations

import struct
from typing import Any

import polars as pl

from engine.sinks.online.arrays import constant, fixed, join, lengths, to_binary

_STRING, _INT64 = 2, 4  # Feast's ValueType


def encode(column: pl.Series, version: int) -> Any:
    """The stored bytes of each key, as an Arrow binary array; the column has the name of the join key.

    Args:
        version: ``entity_key_serialization_version`` of the feature repo.
    """
    name = column.name.encode()
    prefix = struct.pack("<I", _STRING) + name
    if version > 2:
        prefix = struct.pack("<III", 1, _STRING, len(name)) + name
    if column.dtype != pl.String:
        return fixed(prefix + struct.pack("<II", _INT64, 8), column.cast(pl.Int64).to_numpy().astype("<i8"))
    data = to_binary(column)
    sizes = lengths(data).astype("<u4")
    return join(constant(prefix + struct.pack("<I", _STRING), len(sizes)), fixed(b"", sizes), data)

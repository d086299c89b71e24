"""Entity keys as Feast stores them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import polars as pl

from engine.sinks.online.arrays import constant, fixed, join, lengths, to_binary

_STRING, _INT64 = 2, 4  # Feast's ValueType


def encode(columns: pl.DataFrame, version: int) -> Any:
    """The stored bytes of each key, as an Arrow binary array; the columns have the names of the join keys.

    Args:
        version: ``entity_key_serialization_version`` of the feature repo.
    """
    names = sorted(columns.columns)
    prefix = head(names, version)
    parts: list[Any] = []
    for name in names:
        parts += _value(prefix, columns[name])
        prefix = b""
    return parts[0] if len(parts) == 1 else join(*parts)


def head(names: Iterable[str], version: int) -> bytes:
    """What all keys of these columns begin with."""
    texts = [name.encode() for name in sorted(names)]
    found = struct.pack("<I", len(texts)) if version > 2 else b""
    for text in texts:
        found += struct.pack("<I", _STRING) + (struct.pack("<I", len(text)) if version > 2 else b"") + text
    return found


def _value(prefix: bytes, column: pl.Series) -> list[Any]:
    """Arrays that, side by side, are ``prefix`` and a key's type, length and bytes."""
    if column.dtype != pl.String:
        return [fixed(prefix + struct.pack("<II", _INT64, 8), column.cast(pl.Int64).to_numpy().astype("<i8"))]
    data = to_binary(column)
    sizes = lengths(data).astype("<u4")
    return [constant(prefix + struct.pack("<I", _STRING), len(sizes)), fixed(b"", sizes), data]

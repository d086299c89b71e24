"""Arrays as short texts, for JSON."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed(values: NDArray[Any]) -> str:
    """An array as text: little-endian, compressed, in base 64."""
    plain = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(plain, 6)).decode()


def unpacked(text: str, dtype: type[np.generic]) -> NDArray[Any]:
    """The array that `packed` made."""
    plain = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(plain, np.dtype(dtype).newbyteorder("<")).astype(dtype)


def differences(values: NDArray[np.int64]) -> str:
    """Ascending whole numbers as text."""
    return packed(np.diff(values, prepend=np.int64(0)))


def summed(text: str) -> NDArray[np.int64]:
    """The numbers that `differences` made a text of."""
    found: NDArray[np.int64] = np.cumsum(unpacked(text, np.int64))
    return found

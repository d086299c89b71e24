"""Numbers compared as they are written, without a detour over floats."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def exact(number: float) -> Fraction | float:
    """A number as it is written (0.1 is one tenth); infinities stay floats."""
    if isinstance(number, int):
        return Fraction(number)
    return Fraction(Decimal(repr(number))) if math.isfinite(number) else number


def limits(dtype: pl.DataType) -> tuple[int, int]:
    """The least and the greatest whole number that an integer type holds."""
    bits = int(re.sub(r"\D", "", str(dtype)))
    return (0, 2**bits - 1) if dtype.is_unsigned_integer() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def nearest_float(number: float) -> float:
    """The 64-bit float nearest to a number; an infinity for whole numbers beyond all floats."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf

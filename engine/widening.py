"""One type for what several parts of a table have: the one that holds each of their values, exactly.

Of JSON's kinds: truth values, numbers, texts, lists, objects. Kinds do not mix; of numbers, integers become floats or
unsigned where each of them is still the same number then (`exact` tells).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import cast

import polars as pl

_WORDS: dict[type[pl.DataType], str] = {
    pl.Boolean: "true/false",
    pl.Int64: "numbers",
    pl.UInt64: "numbers",
    pl.Float64: "numbers",
    pl.String: "texts",
    pl.List: "lists",
    pl.Struct: "objects",
}


class Unfit(Exception):  # noqa: N818 - for the caller to word
    """No type holds both.

    Attributes:
        path: the column, or what of it.
        kinds: what it has here and there, for people.
    """

    def __init__(self, path: str, *dtypes: pl.DataType) -> None:
        super().__init__(path)
        self.path = path
        self.kinds = sorted({_WORDS.get(dtype.base_type(), str(dtype)) for dtype in dtypes})


class Inexact(Unfit):
    """The type of the other values does not hold these exactly."""


def wider(path: str, one: pl.DataType, other: pl.DataType) -> pl.DataType:
    """The type that holds the values of both, if `exact` says so.

    Raises:
        Unfit: there is none.
    """
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        return pl.List(wider(f"{path}[]", _inner(one), _inner(other)))
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        return pl.Struct(merged(fields(one), fields(other), f"{path}."))
    if {one, other} == {pl.Int64(), pl.UInt64()}:
        return pl.UInt64()
    if {one, other} <= {pl.Int64(), pl.UInt64(), pl.Float64()}:
        return pl.Float64()
    raise Unfit(path, one, other)


def merged(one: Mapping[str, pl.DataType], other: Mapping[str, pl.DataType], path: str = "") -> dict[str, pl.DataType]:
    """The columns of both, each in a type that holds the values of both.

    Raises:
        Unfit: a column has none.
    """
    null = pl.Null()
    names = dict.fromkeys(chain(one, other))
    return {name: wider(f"{path}{name}", one.get(name, null), other.get(name, null)) for name in names}


def fields(dtype: pl.Struct) -> dict[str, pl.DataType]:
    """Name: type."""
    return {field.name: cast(pl.DataType, field.dtype) for field in dtype.fields}


def widened(value: pl.Expr, one: pl.DataType, to: pl.DataType) -> pl.Expr:
    """``value`` in a wider type; objects gain fields, null."""
    if one == to:
        return value
    if isinstance(one, pl.List) and isinstance(to, pl.List):
        return value.list.eval(widened(pl.element(), _inner(one), _inner(to)))
    if isinstance(one, pl.Struct) and isinstance(to, pl.Struct):
        have = {name: (number, dtype) for number, (name, dtype) in enumerate(fields(one).items())}
        parts = []
        for name, dtype in fields(to).items():
            number, narrow = have.get(name, (None, dtype))
            part = pl.lit(None, dtype) if number is None else widened(value.struct[number], narrow, dtype)
            parts.append(part.alias(name))
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    return value.cast(to, strict=False)


def exact(values: pl.Series, to: pl.DataType) -> bool:
    """Whether all ``values`` are the same in a wider type."""
    dtype = values.dtype
    if dtype in (to, pl.Null):
        return True
    if isinstance(dtype, pl.List) and isinstance(to, pl.List):
        return exact(values.drop_nulls().explode(), _inner(to))
    if isinstance(dtype, pl.Struct) and isinstance(to, pl.Struct):
        wide = fields(to)
        return all(exact(values.struct.field(name), wide[name]) for name in fields(dtype))
    if dtype.is_integer() and (to.is_float() or to.is_integer()):
        back = values.cast(to, strict=False).cast(dtype, strict=False)
        return bool(values.eq_missing(back).all())
    return dtype == to


def _inner(dtype: pl.List) -> pl.DataType:
    return cast(pl.DataType, dtype.inner)

"""Values as Feast stores them: bytes of its protobuf message ``Value``, a whole column at a time.

Where Feast has no one way, ours is this: integers are exact beside nulls too (Feast takes them through floats, and
corrupts those beyond 2^53), empty bytes are no null (they are for Feast in a batch that has no others), and lists that
it cannot store are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from engine.errors import SinkError
from engine.sinks.online.arrays import (
    Mask,
    array,
    constant,
    content,
    fixed,
    join,
    lengths,
    offsets_in,
    to_arrow,
    to_binary,
    varints,
)

_INTEGER, _EIGHT, _SIZED, _FOUR = 0, 1, 2, 5  # protobuf's wire types
# Field of a value, field of a list of such values, wire type.
_FIELDS: dict[Any, tuple[int, int, int]] = {
    pl.Binary: (1, 11, _SIZED),
    pl.String: (2, 12, _SIZED),
    pl.Int32: (3, 13, _INTEGER),
    pl.Int64: (4, 14, _INTEGER),
    pl.Float64: (5, 15, _EIGHT),
    pl.Float32: (6, 16, _FOUR),
    pl.Boolean: (7, 17, _INTEGER),
    pl.Datetime: (8, 18, _INTEGER),
}
_NO_MOMENT = np.iinfo(np.int64).min  # what Feast stores for a null timestamp


def encode(column: pl.Series) -> Any:
    """The stored bytes of each value, as an Arrow binary array.

    Raises:
        SinkError: a list of integers holds a null, or the type has no place in Feast.
    """
    if isinstance(column.dtype, pl.List):
        return _list(column)
    field, _, wire = _fields(column, column.dtype)
    tag = _tag(field, wire)
    if wire == _SIZED:
        data, valid = to_binary(column), _valid(column)
        sizes = lengths(data)
        return join(constant(tag, len(sizes), valid), varints(sizes.astype(np.uint64), valid), data)
    if wire in (_EIGHT, _FOUR):
        column = column.fill_nan(None)
        return fixed(tag, column.fill_null(0).to_numpy(), _valid(column))
    if isinstance(column.dtype, pl.Datetime):
        return join(constant(tag, len(column)), varints(_unsigned(column)))
    valid = _valid(column)
    return join(constant(tag, len(column), valid), varints(_unsigned(column), valid))


def text(column: pl.Series) -> pl.Series | None:
    """What Feast's SQLite store holds beside a value, for text search; None: nothing."""
    dtype = column.dtype
    if dtype == pl.String:
        return column
    if dtype == pl.Boolean:
        return column.replace_strict({True: "True", False: "False"}, return_dtype=pl.String)
    if dtype in (pl.Int32, pl.Int64):
        return column.cast(pl.String)
    if dtype in (pl.Float32, pl.Float64):
        numbers = column.cast(pl.Float64).fill_nan(None)
        size = numbers.abs()
        # Python and Polars write numbers with the same digits, and differ in when they use an exponent.
        odd = ((size < 1e-4) & (size != 0)) | (size >= 1e16)
        texts = numbers.cast(pl.String)
        if not odd.any():
            return texts
        places = odd.fill_null(False).arg_true()
        return texts.scatter(places, [repr(number) for number in numbers.gather(places).to_list()])
    return None


def as_stored(column: pl.Series) -> pl.Series:
    """A column as Feast gives it back: no NaN, moments in whole seconds."""
    if column.dtype in (pl.Float32, pl.Float64):
        return column.cast(pl.Float64).fill_nan(None)
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.truncate("1s")
    return column


def _list(column: pl.Series) -> Any:
    inner = column.dtype.inner  # type: ignore[attr-defined]
    _, field, wire = _fields(column, inner)
    lists, valid = to_arrow(column), _valid(column)
    starts = offsets_in(lists)
    items = pl.Series(column.name, pl.from_arrow(lists.values), inner)
    if inner in (pl.Int32, pl.Int64):
        if items.slice(int(starts[0]), int(starts[-1] - starts[0])).null_count():
            raise SinkError(
                f"the feature {column.name!r} has lists of integers with a null inside, which Feast cannot store",
                code="online.list_null",
                where=column.name,
                fix="publish it without those nulls, or as lists of floats",
            )
        items = items.fill_null(0)
    payload = _items(items, wire)
    # Rows of bytes instead of rows of items: the same data, other offsets. What a null row covers is no row's.
    spans = offsets_in(payload)[starts]
    body = array(spans, content(payload), valid)
    if wire != _SIZED:  # packed
        sizes = np.where(valid, np.diff(spans), 0)
        some = sizes > 0
        body = join(constant(b"\x0a", len(sizes), some), varints(sizes.astype(np.uint64), some), body)
    sizes = np.where(valid, lengths(body), 0).astype(np.uint64)
    return join(constant(_tag(field, _SIZED), len(sizes), valid), varints(sizes, valid), body)


def _items(items: pl.Series, wire: int) -> Any:
    if wire == _SIZED:
        data = to_binary(items.fill_null(b"" if items.dtype == pl.Binary else ""))
        return join(constant(b"\x0a", len(items)), varints(lengths(data).astype(np.uint64)), data)
    if wire in (_EIGHT, _FOUR):
        return fixed(b"", items.fill_null(float("nan")).to_numpy())
    return varints(_unsigned(items, inside=True))


def _unsigned(column: pl.Series, *, inside: bool = False) -> Any:
    """Integers, booleans and moments as protobuf writes them: negative ones from above."""
    if isinstance(column.dtype, pl.Datetime):
        moments = column.cast(pl.Int64)
        per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[column.dtype.time_unit]
        seconds = moments // per_second  # downwards, as numpy does
        if inside:  # a list holds Python's datetimes, whose seconds Feast cuts towards zero
            seconds = seconds + ((moments % per_second != 0) & (moments < 0)).cast(pl.Int64)
        return seconds.fill_null(_NO_MOMENT).to_numpy().astype(np.int64).view(np.uint64)
    return column.cast(pl.Int64).fill_null(0).to_numpy().astype(np.int64).view(np.uint64)


def _valid(column: pl.Series) -> Mask:
    valid: Mask = column.is_not_null().to_numpy()
    return valid


def _fields(column: pl.Series, dtype: Any) -> tuple[int, int, int]:
    try:
        return _FIELDS[dtype.base_type()]
    except KeyError:
        raise SinkError(
            f"the feature {column.name!r} is of type {column.dtype}",
            code="feast.feature_type",
            where=column.name,
            allowed=", ".join(str(kind) for kind in _FIELDS) + " and lists of these",
            fix="publish it as one of these types",
        ) from None


def _tag(field: int, wire: int) -> bytes:
    tag = field << 3 | wire
    return bytes([tag]) if tag < 128 else bytes([tag & 0x7F | 0x80, tag >> 7])

"""The answers of a REST server: their records as a frame, and what they say besides.

The first answers are read value by value (`engine.sources.records`), which is exact and slow. Their shape is kept, and
answers of a known shape are read by Arrow's parser, bound to it: whatever it does not fit, to the last field, is read
value by value again, and so is what Arrow alone would round or let pass (numbers beyond 2^53 in a column of fractions,
NaN, texts that are not UTF-8).
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.json as pj

from engine.sources import records
from engine.widening import Unfit, merged

EXACT = 2**53
_SCALARS = frozenset({str, int, bool})
_BODY = "body"  # what a body that is a list itself is wrapped as


class NotRecords(Exception):  # noqa: N818 - for the caller to word
    """There are no records where they should be.

    Attributes:
        message: what is there instead.
        kind: ``not_json``, ``data_key`` or ``not_records``.
        allowed: what would be right.
    """

    def __init__(self, message: str, kind: str, allowed: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.allowed = allowed


@dataclass(frozen=True)
class Answer:
    """One answer that has been read.

    Attributes:
        records: one row each.
        texts: columns of lists or objects that have become JSON text.
        shape: its own; None: it can only be read value by value.
        bytes: of the body.
        around: the body as a Python value, or as an Arrow table of one row.
    """

    records: pl.DataFrame
    texts: frozenset[str]
    shape: Shape | None
    bytes: int
    around: Any = field(repr=False)

    @cached_property
    def head(self) -> Any:
        """The first record, plainly; None where there is none."""
        return plain(self.records.row(0, named=True)) if self.records.height else None

    def get(self, path: Sequence[str]) -> Any:
        """What the answer has there; None where it has nothing."""
        if isinstance(self.around, pa.Table):
            if path[0] not in self.around.column_names:
                return None
            column = self.around.column(path[0]).chunk(0)
            for step in path[1:]:
                if (
                    not pa.types.is_struct(column.type)
                    or column.type.get_field_index(step) < 0
                    or not column[0].is_valid
                ):
                    return None
                column = column.field(step)
            return column[0].as_py()
        value = self.around
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        return value


@dataclass(frozen=True)
class Shape:
    """What answers look like.

    Attributes:
        around: the types of all but the records.
        columns: of the records.
    """

    around: Mapping[str, Any]
    columns: Mapping[str, pl.DataType]
    _schemas: dict[tuple[str, ...], pa.Schema] = field(default_factory=dict, compare=False, repr=False)

    def wider(self, other: Shape) -> Shape | None:
        """The shape of both; None where there is none."""
        try:
            return Shape(_merged(self.around, other.around), merged(self.columns, other.columns))
        except Unfit:
            return None

    def schema(self, key: tuple[str, ...]) -> pa.Schema:
        """Of a body of this shape, whose records are at ``key``."""
        if key not in self._schemas:
            self._schemas[key] = self._schema(key)
        return self._schemas[key]

    def _schema(self, key: tuple[str, ...]) -> pa.Schema:
        rows = pl.DataFrame(schema=dict(self.columns)).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        plain = pa.schema([pa.field(f.name, _plain(f.type)) for f in rows])
        return pa.schema(list(_arrow(self.around, key, pa.list_(pa.struct(list(plain))))))


def read(body: bytes, key: Sequence[str], shape: Shape | None, *, texts: bool, where: str, origin: str) -> Answer:
    """Reads an answer.

    Args:
        key: the names that lead to the records; none: they are the body.
        shape: of answers so far.
        texts: whether lists and objects become JSON text.
        where: for errors, such as ``sources.tasks``.
        origin: for errors: which answer this is.

    Raises:
        NotRecords: it has none.
        SourceError: a column mixes kinds, or holds a number that cannot be held exactly.
    """
    if shape is not None and not texts:
        found = _bound(body, tuple(key) or (_BODY,), shape)
        if found is not None:
            table, rows = found
            return Answer(rows, frozenset(), shape, len(body), table if key else None)
    return _by_value(body, key, texts=texts, where=where, origin=origin)


def _by_value(body: bytes, key: Sequence[str], *, texts: bool, where: str, origin: str) -> Answer:
    try:
        value = records.parse(body)
    except ValueError as error:
        raise NotRecords(f"{origin} is not JSON: {error}", "not_json") from None
    found = _records(value, key, origin)
    nested: set[str] = set()
    if texts and found:
        nested = {name for record in found for name, v in record.items() if type(v) in (list, dict)}
        if nested:
            try:
                found = records.texts(body, key)
            except ValueError as error:
                raise NotRecords(f"{origin} is not JSON: {error}", "not_json") from None
    frame = records.frame(found, where=where, origin=origin)
    around = _around(value, tuple(key)) if key else {_BODY: ...}
    shape = Shape(around, dict(frame.schema)) if around is not None and found and not texts else None
    return Answer(frame, frozenset(nested), shape, len(body), value if key else None)


def _records(value: Any, key: Sequence[str], origin: str) -> list[dict[str, Any]]:
    for step in key:
        if not isinstance(value, dict) or step not in value:
            keys = list(value)[:20] if isinstance(value, dict) else []
            there = f"of {step!r}'s level: {', '.join(keys)}" if keys else f"it is a {_kind(value)}"
            raise NotRecords(f"{origin} has no {'.'.join(key)!r}", "data_key", there)
        value = value[step]
    if value is None:  # how some servers write a list without items
        return []
    if not isinstance(value, list):
        raise NotRecords(f"{origin} holds a {_kind(value)} where records should be", "not_records")
    for item in value:
        if type(item) is not dict:
            raise NotRecords(f"{origin} holds a list with a {_kind(item)} in it", "not_records")
    return value


def _kind(value: Any) -> str:
    names = {dict: "JSON object", list: "list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "number")


# --- shapes ------------------------------------------------------------------------------------------------------


def _around(value: Any, key: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The types in an object, of objects as a mapping; ``...`` where the records are. None: not all have a type."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        part: Any
        if key and name == key[0]:
            part = _around(inner, key[1:]) if len(key) > 1 else ...
        elif isinstance(inner, dict):
            part = _around(inner, ())
        else:
            part = records.dtype(name, [inner])
        if part is None:
            return None
        found[name] = part
    return found


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(one)
    for name, part in other.items():
        before = found.get(name, part)
        if isinstance(before, Mapping) and isinstance(part, Mapping):
            found[name] = _merged(before, part)
        elif isinstance(before, pl.DataType) and isinstance(part, pl.DataType):
            found.update(merged({name: before}, {name: part}))
        elif isinstance(before, pl.DataType) and before == pl.Null:
            found[name] = part
        elif not (isinstance(part, pl.DataType) and part == pl.Null) and before is not part:
            raise Unfit(name)
    return found


def _arrow(around: Mapping[str, Any], key: tuple[str, ...], rows: pa.DataType) -> list[pa.Field]:
    found = []
    for name, part in around.items():
        if part is ...:
            kind = rows
        elif isinstance(part, Mapping):
            kind = pa.struct(_arrow(part, key, rows))
        else:
            kind = _plain(pl.Series([], dtype=part).to_arrow(compat_level=pl.CompatLevel.oldest()).type)
        found.append(pa.field(name, kind))
    return found


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type as Arrow's JSON parser knows it: it has no large texts and lists."""
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _plain(f.type)) for f in kind])
    return kind


# --- by Arrow ----------------------------------------------------------------------------------------------------


def _bound(body: bytes, key: tuple[str, ...], shape: Shape) -> tuple[pa.Table, pl.DataFrame] | None:
    """What Arrow reads, if it is certain that this is what is there."""
    plain = body.removeprefix(codecs.BOM_UTF8)
    try:
        if not plain.isascii():
            plain.decode()
        if key == (_BODY,):
            plain = b'{"%s":%s}' % (_BODY.encode(), plain)
        table = pj.read_json(
            pa.BufferReader(plain),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(plain) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=shape.schema(key),
                newlines_in_values=b"\n" in plain or b"\r" in plain,
                unexpected_field_behavior="error",
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError, KeyError, OverflowError):
        return None
    if table.num_rows != 1 or table.column(key[0]).num_chunks != 1:
        return None
    found = table.column(key[0]).chunk(0)
    for step in key[1:]:
        if not found[0].is_valid:
            return None
        found = found.field(step)
    if not found[0].is_valid:
        return None
    rows = found.flatten()
    if rows.null_count or not _certain(rows):
        return None
    if not rows.type.num_fields:
        return None
    columns = [pa.chunked_array([rows.field(i)]) for i in range(rows.type.num_fields)]
    frame = pl.DataFrame(pa.table(columns, names=[f.name for f in rows.type]))
    return table.drop_columns([key[0]]) if len(key) == 1 else table, frame


def _certain(values: pa.Array) -> bool:
    """Whether no number among the values may have been rounded, or is none."""
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        largest = pc.max(pc.abs(values)).as_py()  # NaN is left out of it
        return (largest is None or largest < EXACT) and not pc.any(pc.is_nan(values)).as_py()
    if pa.types.is_list(values.type):
        return _certain(values.flatten())
    if pa.types.is_struct(values.type):
        return all(_certain(values.field(i)) for i in range(values.type.num_fields))
    return True


def plain(value: Any) -> Any:
    """A JSON value without what a page's neighbours give its type: nulls, empty objects, floats that are integers."""
    kind = type(value)
    if value is None or kind in _SCALARS:
        return value
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {name: known for name, inner in value.items() if (known := plain(inner)) is not None} or None
    if isinstance(value, Sequence):
        return [plain(inner) for inner in value]
    return value

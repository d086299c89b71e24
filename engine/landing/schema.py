"""One schema for all files of a table: the one that holds each of theirs, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import polars as pl

from engine.errors import SourceError
from engine.frames import column as exactly
from engine.landing import files
from engine.widening import Unfit, exact, wider

_EXACT_IN_FLOAT64 = 2**53


def unify(paths: Sequence[Path], folder: Path, *, name: str, open_schema: bool) -> list[Path]:
    """The files of one schema: those that have it as they are, of the others copies that do.

    Args:
        folder: where copies go.
        name: the source's.
        open_schema: whether the rows come from JSON, which keeps its kinds of values apart.

    Raises:
        SourceError: no type holds a column of several types exactly.
    """
    schemas = [files.schema(path) for path in paths]
    if all(list(s.items()) == list(schemas[0].items()) for s in schemas):
        return list(paths)
    target: dict[str, pl.DataType] = {}
    for column in dict.fromkeys(name for schema in schemas for name in schema):
        dtypes = list(dict.fromkeys(schema[column] for schema in schemas if column in schema))
        if len(dtypes) > 1:
            dtypes = _of_values(column, paths, schemas) or [d for d in dtypes if d != pl.Null][:1]
        target[column] = _common(column, dtypes, name, open_schema)
    unified = []
    for path, schema in zip(paths, schemas, strict=True):
        if list(schema.items()) == list(target.items()):
            unified.append(path)
        else:
            other = [c for c, t in target.items() if c in schema and schema[c] != t]
            for column in (c for c in other if schema[c].is_integer() and target[c].is_float()):
                _check_exact(path, column, name)
            for column in (c for c in other if open_schema and (schema[c].is_nested() or target[c] == pl.UInt64)):
                _check_widened(path, column, target[column], name)
            unified.append(files.cast(path, target, folder, blank={c for c in other if not _has_value(path, c)}))
    return unified


def _of_values(column: str, paths: Sequence[Path], schemas: Sequence[dict[str, pl.DataType]]) -> list[pl.DataType]:
    """The types of a column where it has values: of one without, a source can only guess the type."""
    there = [(path, schema[column]) for path, schema in zip(paths, schemas, strict=True) if column in schema]
    return list(dict.fromkeys(dtype for path, dtype in there if _has_value(path, column)))


def _has_value(path: Path, column: str) -> bool:
    return bool(files.scan(path).select(exactly(column).is_not_null().any().alias("any")).collect().item())


def _common(column: str, dtypes: Sequence[pl.DataType], name: str, open_schema: bool) -> pl.DataType:
    """The type that holds a column of several types; JSON keeps its kinds apart, as it does within a chunk."""
    known = [d for d in dtypes if d != pl.Null]
    if known and all(isinstance(d, pl.Decimal) for d in known):
        # What does not fit into so many digits is found when it is cast.
        return pl.Decimal(38, max(d.scale for d in known if isinstance(d, pl.Decimal))) if len(known) > 1 else known[0]
    mixed = open_schema and len({_kind(d) for d in known}) > 1
    if open_schema and not mixed and (any(d.is_nested() for d in known) or set(known) == {pl.Int64, pl.UInt64}):
        try:
            return reduce(lambda one, other: wider(column, one, other), known)
        except Unfit:
            mixed = True
    try:
        parts = [pl.DataFrame(schema={column: d}) for d in dtypes]
        common = pl.concat(parts, how="vertical_relaxed").schema[column]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        mixed = True
    if mixed or not all(_holds(common, d) for d in dtypes):
        raise SourceError(
            f"column {column!r} is {' in one part and '.join(map(str, known))} in another",
            code="source.mixed_column",
            where=f"sources.{name}",
            allowed="types that one type holds exactly",
            fix=f"give {column!r} one type in the source",
        )
    return common


def _check_exact(path: Path, column: str, name: str) -> None:
    largest = files.scan(path).select(exactly(column).cast(pl.Int128).abs().max()).collect().item()
    if largest is not None and largest > _EXACT_IN_FLOAT64:
        raise SourceError(
            f"column {column!r} holds whole numbers beyond 2^53 in one part and fractions in another; "
            "no number type holds both exactly",
            code="source.inexact",
            where=f"sources.{name}",
            fix=f"give {column!r} one type in the source, for example text",
        )


def _check_widened(path: Path, column: str, dtype: pl.DataType, name: str) -> None:
    if not exact(files.scan(path).select(exactly(column)).collect().to_series(), dtype):
        raise SourceError(
            f"column {column!r} holds whole numbers in one part that are another number as {dtype}, which it is in "
            "another part",
            code="source.inexact",
            where=f"sources.{name}",
            fix=f"give {column!r} one type in the source, for example text",
        )


def _holds(wide: pl.DataType, dtype: pl.DataType) -> bool:
    """Whether every value of ``dtype`` is exact in ``wide``; whole numbers in Float64 are looked at one by one."""
    if dtype in (wide, pl.Null):
        return True
    if isinstance(wide, pl.List) and isinstance(dtype, pl.List):
        wide_inner, inner = pl.Series(dtype=wide.inner).dtype, pl.Series(dtype=dtype.inner).dtype
        return _holds(wide_inner, inner) and not (inner.is_integer() and wide_inner.is_float())
    if dtype.is_integer():
        return wide.is_integer() or wide == pl.Float64 or wide == pl.String
    if dtype.is_float():
        return wide in (pl.Float64, pl.String)
    if isinstance(dtype, pl.Datetime):
        return isinstance(wide, pl.Datetime) and wide.time_zone == dtype.time_zone
    return wide == pl.String and dtype in (pl.Categorical, pl.Enum)


def _kind(dtype: pl.DataType) -> str:
    return "number" if dtype.is_numeric() else str(dtype.base_type())

"""A source's schema contract: what becomes of columns that are new, gone or of another type, chunk by chunk.

The contract is what the declaration says of a column, else the type that the column had when the source landed last.
A type that the contract's holds exactly is no change. Whether a value fits is judged by the value, so that how a
source is cut into chunks makes no difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl

from engine.errors import SourceError
from engine.frames import column as exactly
from engine.moments import MOMENT, to_moment
from engine.spec import SourceSpec
from engine.spec.contract import Contract, ContractColumn
from engine.types import parse_moment

_NAMED: dict[str, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "string": pl.String(),
    "bool": pl.Boolean(),
    "date": pl.Date(),
    "datetime": MOMENT,
}


@dataclass(frozen=True)
class Fitted:
    """A chunk's frame under the contract.

    Attributes:
        frame: as it came.
        columns: what it becomes; of the rows that go on.
        unfit: column: whether its value keeps the row from going on.
        lost: column: whether its value is left out.
    """

    frame: pl.LazyFrame
    columns: tuple[pl.Expr, ...] | None = None
    unfit: Mapping[str, pl.Expr] = field(default_factory=dict)
    lost: Mapping[str, pl.Expr] = field(default_factory=dict)

    def of(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Some of the frame's rows, as they go on."""
        if self.columns is None:
            return rows
        # with_columns keeps the rows of a frame that has none of these columns; select alone would make them one
        return rows.with_columns(self.columns).select(exactly(column.meta.output_name()) for column in self.columns)


class Terms:
    """The contract of one read.

    Args:
        known: the schema that the source landed with last; None: it never has.
        needed: columns that the declaration names elsewhere: they are taken, new or not.
    """

    def __init__(
        self, spec: SourceSpec, known: Mapping[str, pl.DataType] | None, name: str, needed: Collection[str] = ()
    ) -> None:
        self._contract = spec.contract or Contract()
        self._name, self._needed = name, needed
        self._declared = {column: _dtype(wanted) for column, wanted in self._contract.columns.items()}
        self._defaults = {
            column: pl.lit(_value(wanted)).cast(self._declared[column])
            for column, wanted in self._contract.columns.items()
            if wanted.default is not None
        }
        others = {} if self._contract.columns and self._mode != "evolve" else dict(known or {})
        self._wanted: dict[str, pl.DataType] = {**others, **self._declared}
        self.seen: dict[str, dict[str, None]] = {}  # column: the types that it came with
        self._open = False

    @property
    def _mode(self) -> str:
        return self._contract.on_change

    def fit(self, frame: pl.LazyFrame, origin: str, *, open_schema: bool) -> Fitted:
        """A chunk under the contract.

        Raises:
            SourceError: it breaks it, and no change is allowed.
        """
        came = dict(frame.collect_schema())
        self._open |= open_schema
        for column, dtype in came.items():
            types = self.seen.setdefault(column, {})
            if dtype != pl.Null:
                types[str(dtype)] = None
        if not self._wanted or (self._mode == "evolve" and not self._declared):
            return Fitted(frame)
        columns: list[pl.Expr] = []
        unfit: dict[str, pl.Expr] = {}
        lost: dict[str, pl.Expr] = {}
        for column, dtype in came.items():
            wanted = self._wanted.get(column)
            if wanted is None and column not in self._needed:
                self._new(column, dtype, origin, columns, unfit)
                continue
            if wanted in (None, pl.Null) or (self._mode == "evolve" and column not in self._declared):
                columns.append(exactly(column))
                continue
            value, wrong = self._value(frame, column, dtype, origin)
            if wrong is not None:
                (unfit if self._mode == "discard_rows" else lost)[column] = wrong
            columns.append(value.alias(column))
        absent = [column for column in self._wanted if column not in came]
        columns += self._absent(absent, origin, open_schema=open_schema)
        if self._mode != "evolve":
            places = {column: place for place, column in enumerate(self._wanted)}
            columns.sort(key=lambda column: places.get(column.meta.output_name(), len(places)))
        return Fitted(frame, tuple(columns), unfit, lost)

    def _value(
        self, frame: pl.LazyFrame, column: str, dtype: pl.DataType, origin: str
    ) -> tuple[pl.Expr, pl.Expr | None]:
        """What a column of the contract becomes, and which of its values are discarded, where that is to be."""
        wanted = self._wanted[column]
        value, wrong = converted(exactly(column), dtype, wanted)
        if wrong is not None and self._mode in ("evolve", "freeze"):
            guessed = dtype.is_integer() and wanted.is_float()  # as of a text whose fractions are elsewhere
            if self._mode == "freeze" and column not in self._declared and not guessed:
                raise self._broken(f"column {column!r} is {dtype} now; it was {wanted}", origin)
            self._check(frame, column, wrong, wanted, origin)
            wrong = None
        if column in self._defaults:
            value = value.fill_null(self._defaults[column])
        return value, wrong

    def _new(
        self, column: str, dtype: pl.DataType, origin: str, columns: list[pl.Expr], unfit: dict[str, pl.Expr]
    ) -> None:
        if self._mode == "freeze":
            raise self._broken(f"column {column!r} ({dtype}) is new", origin)
        if self._mode == "evolve":
            columns.append(exactly(column))
        elif self._mode == "discard_rows":
            unfit[column] = exactly(column).is_not_null()

    def _absent(self, absent: Iterable[str], origin: str, *, open_schema: bool) -> list[pl.Expr]:
        found = []
        for column in absent:
            if self._mode == "freeze" and not open_schema and column not in self._defaults:
                raise self._broken(f"column {column!r} ({self._wanted[column]}) is gone", origin)
            if self._mode != "evolve" or column in self._declared:
                value = self._defaults.get(column, pl.lit(None, self._wanted[column]))
                found.append(value.alias(column))
        return found

    def _check(self, frame: pl.LazyFrame, column: str, wrong: pl.Expr, wanted: pl.DataType, origin: str) -> None:
        found = frame.select(wrong.sum().alias("count"), pl.arg_where(wrong).first().alias("first"))
        count, first = found.collect(engine="streaming").row(0)
        if count:
            raise self._broken(
                f"column {column!r} is declared {wanted}, which {count} values are not, the first in row {first}",
                origin,
            )

    def finish(self, landed: Iterable[Mapping[str, pl.DataType]], location: str) -> None:
        """All chunks have been seen.

        Args:
            landed: the schemas of pieces that an interrupted run had landed.

        Raises:
            SourceError: a column that must be there is in none of them.
        """
        for schema in landed:
            for column, dtype in schema.items():
                self.seen.setdefault(column, {str(dtype): None})
        if self._mode == "freeze" and self._open:
            for column in self._wanted:
                if column not in self.seen and column not in self._defaults:
                    raise self._broken(f"column {column!r} ({self._wanted[column]}) is gone", location)

    def columns(self, before: Mapping[str, str]) -> dict[str, str]:
        """Column: the type that it came with; one that held nothing but nulls has the type it had before."""
        return {c: " or ".join(types) or before.get(c, "Null") for c, types in self.seen.items()}

    def changes(self, before: Mapping[str, str]) -> list[dict[str, Any]]:
        """What came otherwise than with the read before, typed, and what became of it."""
        now = self.columns(before)
        found = []
        for column in dict.fromkeys([*before, *now]):
            old, new = before.get(column), now.get(column)
            if old == new or (old == "Null" and new is not None):
                continue
            change = "added" if old is None else "removed" if new is None else "retyped"
            action = self._action(column, change)
            found.append({"column": column, "change": change, "before": old, "after": new, "action": action})
        return found

    def _action(self, column: str, change: str) -> str:
        if change == "removed" and (self._mode != "evolve" or column in self._declared):
            return "default" if column in self._defaults else "null"
        if column in self._declared:
            return "cast"
        if self._mode == "evolve" or not self._wanted:
            return "accepted"
        if change == "retyped" and self._mode == "freeze":
            return "cast"
        return "rows discarded" if self._mode == "discard_rows" else "discarded"

    def _broken(self, message: str, origin: str) -> SourceError:
        return SourceError(
            f"{origin} breaks the contract: {message}",
            code="source.contract",
            where=f"sources.{self._name}",
            allowed="; ".join(f"{column}: {dtype}" for column, dtype in list(self._wanted.items())[:30]),
            fix="mend the source, or change contract: evolve takes columns as they come, columns: says what they are",
        )


def converted(expr: pl.Expr, came: pl.DataType, wanted: pl.DataType) -> tuple[pl.Expr, pl.Expr | None]:
    """A column as another type, null where a value has no exact one; and whether that is so (None: it never is)."""
    if came == wanted:
        return expr, None
    if came == pl.Null or _widens(came, wanted):
        return expr.cast(wanted), None
    value = _cast(expr, came, wanted)
    if value is None:
        return pl.lit(None, wanted), expr.is_not_null()
    wrong = expr.is_not_null() & value.is_null()
    if (came.is_numeric() or came.is_temporal()) and (wanted.is_numeric() or wanted.is_temporal()):
        back = _cast(value, wanted, came)
        if back is not None:
            wrong = wrong | (back.ne_missing(expr) & expr.is_not_null())
    elif came == pl.String and isinstance(wanted, pl.Decimal):
        wrong = wrong | ~expr.str.contains(rf"^\s*[+-]?[0-9]*\.?[0-9]{{0,{wanted.scale}}}0*\s*$").fill_null(value=True)
    elif came == pl.String and wanted.is_float():
        wrong = wrong | (value.is_infinite() & ~expr.str.contains("(?i)inf")).fill_null(value=False)
    return pl.when(~wrong).then(value), wrong


def _widens(came: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether a type holds every value of another, exactly."""
    if came.is_integer() and wanted.is_integer():
        return _range(wanted)[0] <= _range(came)[0] and _range(came)[1] <= _range(wanted)[1]
    return came == pl.Float32 and wanted == pl.Float64


def _range(integer: pl.DataType) -> tuple[int, int]:
    unsigned = integer.is_unsigned_integer()
    bits = int(str(integer).lstrip("UInt")) - (not unsigned)
    return (0 if unsigned else -(2**bits)), 2**bits - 1


def _cast(expr: pl.Expr, came: pl.DataType, wanted: pl.DataType) -> pl.Expr | None:
    """A column as another type, null where that cannot be; None: no value can."""
    if came.is_nested() or wanted.is_nested() or pl.Binary in (came, wanted):
        return None
    if isinstance(wanted, pl.Datetime):
        if not (came in (pl.String, pl.Date) or isinstance(came, pl.Datetime)):
            return None
        moment = to_moment(expr, came)
        if wanted.time_zone is None:
            return moment.dt.replace_time_zone(None).dt.cast_time_unit(wanted.time_unit)
        return moment.dt.cast_time_unit(wanted.time_unit).dt.convert_time_zone(wanted.time_zone)
    if wanted == pl.Date:
        if came == pl.String:
            return expr.str.strip_chars().str.to_date("%Y-%m-%d", strict=False)
        return expr.dt.date() if isinstance(came, pl.Datetime) else None
    if came.is_temporal():
        return expr.cast(pl.String) if wanted == pl.String else None
    if came == pl.String and wanted == pl.Boolean:
        text = expr.str.strip_chars().str.to_lowercase()
        return pl.when(text == "true").then(True).when(text == "false").then(False)
    if wanted == pl.Boolean and came.is_numeric():
        return pl.when(expr == 1).then(True).when(expr == 0).then(False)
    if came == pl.String and wanted.is_numeric():
        return expr.str.strip_chars().cast(wanted, strict=False)
    return expr.cast(wanted, strict=False)


def _dtype(wanted: ContractColumn) -> pl.DataType:
    if wanted.digits:
        return pl.Decimal(*wanted.digits)
    named = _NAMED.get(wanted.type)
    if named is not None:
        return named
    exact: pl.DataType = getattr(pl, wanted.type)()
    return exact


def _value(wanted: ContractColumn) -> Any:
    value = wanted.default
    if wanted.digits:
        return Decimal(str(value))
    if wanted.type == "datetime":
        return parse_moment(str(value))
    return date.fromisoformat(str(value)) if wanted.type == "date" else value

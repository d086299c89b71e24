"""What a source's columns must be, and what becomes of those that are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from engine.errors import Problem, UsageError
from engine.spec.rules import Place
from engine.spec.scalars import Column, Spec
from engine.types import parse_moment

OnChange = Literal["evolve", "freeze", "discard_columns", "discard_rows"]
EXACT = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64")
_DECIMAL = re.compile(r"decimal\(([1-9][0-9]?), ?([0-9]{1,2})\)")
_TYPES = rf"^(int|float|string|bool|datetime|date|decimal\([1-9][0-9]?, ?[0-9]{{1,2}}\)|{'|'.join(EXACT)})$"


def _typed(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _changed(value: Any) -> Any:
    return {"on_change": value} if isinstance(value, str) else value


class ContractColumn(Spec):
    """What a column must be."""

    type: Annotated[
        str,
        StringConstraints(pattern=_TYPES),
        Field(description="int, float, string, bool, datetime, date, decimal(12,2), or an exact one such as Int32"),
    ]
    default: Annotated[
        str | int | float | bool | None, Field(description="in the place of null, and of the column where it is absent")
    ] = None

    @property
    def digits(self) -> tuple[int, int] | None:
        """Precision and scale of a decimal."""
        found = _DECIMAL.fullmatch(self.type)
        return (int(found[1]), int(found[2])) if found else None

    def problem(self) -> str | None:
        """What is wrong with it."""
        if self.digits and not 0 <= self.digits[1] <= self.digits[0] <= 38:
            return "a decimal has at most 38 digits, and no more after the point than in all"
        value, kind = self.default, self.type
        if value is None:
            return None
        if kind == "string" or kind == "bool":
            fits = isinstance(value, str if kind == "string" else bool)
        elif kind in ("datetime", "date"):
            fits = isinstance(value, str) and _is_moment(value, whole_day=kind == "date")
        elif self.digits:
            fits = not isinstance(value, bool) and _is_decimal(str(value), *self.digits)
        else:
            whole = "nt" in kind
            fits = not isinstance(value, bool | str) and (isinstance(value, int) or not whole)
            bits = int("".join(c for c in kind if c.isdigit()) or 64) - (not kind.startswith("U"))
            if fits and whole:
                fits = -(2**bits) * (not kind.startswith("U")) <= int(value) < 2**bits
        return None if fits else f"the default {value!r} is no {kind}"


class Contract(Spec):
    """What the columns of a source must be. Without ``columns``: what they were when the source landed last."""

    on_change: Annotated[
        OnChange,
        Field(
            description="evolve: columns come, go and widen; freeze: a change is an error; discard_columns: new "
            "columns and values that do not fit are left out; discard_rows: rows with such go to quarantine"
        ),
    ] = "evolve"
    columns: Annotated[
        dict[Column, Annotated[ContractColumn, BeforeValidator(_typed)]],
        Field(description="name after column_mapping: type, or {type, default}; values are cast, exactly"),
    ] = {}

    def problems(self, path: Place) -> Iterator[Problem]:
        """Mistakes that no single key shows."""
        for name, column in self.columns.items():
            if wrong := column.problem():
                yield Problem("config.contract", wrong, (*path, "columns", name), fix="correct it")


def _alternatives(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "string", "enum": ["evolve", "freeze", "discard_columns", "discard_rows"]})


ContractKey = Annotated[
    Contract | None,
    BeforeValidator(_changed),
    Field(
        json_schema_extra=_alternatives,
        description="what the columns must be, and what becomes of a change: evolve (default), freeze, "
        "discard_columns, discard_rows, or on_change with columns",
    ),
]


def _is_moment(value: str, *, whole_day: bool) -> bool:
    try:
        return bool(date.fromisoformat(value) if whole_day else parse_moment(value)) and value.lower() != "now"
    except (ValueError, UsageError):
        return False


def _is_decimal(value: str, precision: int, scale: int) -> bool:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return False
    return number.is_finite() and round(number, scale) == number and abs(number) < Decimal(10) ** (precision - scale)

"""Schema: the declared columns exist and have the declared types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from engine.checks.check import Check, Found, Measures
from engine.checks.result import Result
from engine.types import Severity

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class Schema(Check):
    """Columns that must exist, with their types; further columns are named and never a failure.

    ``severity`` is that of a missing column unless ``overrides`` has another for the column; a type that does not
    match is a WARNING unless ``severity`` was set on purpose (``mismatch_severity``).
    """

    family: ClassVar[str] = "schema"

    types: Mapping[str, str]
    mismatch_severity: Severity
    overrides: Mapping[str, Severity]

    @property
    def description(self) -> str:
        return "columns " + ", ".join(f"{name}: {expected}" for name, expected in self.types.items())

    def measures(self, table: Table) -> Measures:  # noqa: ARG002 - the schema is known without a scan
        return Measures()

    def judge(self, found: Found, table: Table) -> Result:  # noqa: ARG002
        missing = [name for name in self.types if name not in table.schema]
        mismatches = [
            {"column": name, "expected": expected, "actual": str(table.schema[name])}
            for name, expected in self.types.items()
            if name in table.schema and not matches(table.schema[name], expected)
        ]
        details = {
            "missing_columns": missing,
            "extra_columns": [name for name in table.schema if name not in self.types],
            "type_mismatches": mismatches,
        }
        if not missing and not mismatches:
            return self.result(True, f"all {len(self.types)} declared columns are there, with their types", details)
        problems = [f"the column {name!r} is missing" for name in missing]
        problems += [f"{m['column']!r} is {m['actual']}, expected {m['expected']}" for m in mismatches]
        severity = _worst(
            [self.overrides.get(name, self.severity) for name in missing]
            + [self.overrides.get(m["column"], self.mismatch_severity) for m in mismatches]
        )
        return Result(self.check_name, False, severity, "; ".join(problems), details=details)


def matches(dtype: pl.DataType, expected: str) -> bool:
    """Whether a column type goes by the name ``expected``.

    ``int``, ``float``, ``string``, ``bool``, ``datetime``, ``date``, ``decimal`` and ``list`` stand for any width,
    unit or zone; other names are Polars' or Arrow's, with parameters (``List(String)``, ``timestamp[us, tz=UTC]``)
    or without (``List``, ``timestamp``: any). Text offsets, string views and the like are no difference. A column
    without a single value has the type Null, which matches all.
    """
    import polars as pl

    if dtype == pl.Null:
        return True
    named: dict[str, bool] = {
        "int": dtype.is_integer(),
        "float": dtype.is_float(),
        "string": dtype in (pl.String, pl.Categorical, pl.Enum),
        "bool": dtype == pl.Boolean,
        "datetime": dtype == pl.Datetime,
        "date": dtype == pl.Date,
        "decimal": dtype == pl.Decimal,
        "list": dtype in (pl.List, pl.Array),
    }
    return named[expected] if expected in named else _normal(expected) in _names(dtype)


_SYNONYMS = (
    (r"\s|'|\"|time_unit=|time_zone=|tz=|precision=|scale=", ""),
    (r",None(?=\))", ""),
    (r"\blarge_|_view\b", ""),
    (r"\b[uU]tf8\b", "string"),
    (r"\bString\b", "string"),
    (r"\bboolean\b", "bool"),
    (r"\bfloat32\b", "float"),
    (r"\bfloat64\b", "double"),
    (r"<element:", "<item:"),
)


def _normal(name: str) -> str:
    for pattern, replacement in _SYNONYMS:
        name = re.sub(pattern, replacement, name)
    return name


def _names(dtype: pl.DataType) -> set[str]:
    """All names of a type: Polars' and Arrow's, with and without parameters."""
    import polars as pl
    import pyarrow as pa

    names = {str(dtype)}
    with suppress(pa.ArrowException, pl.exceptions.PolarsError, ValueError, TypeError):  # no such type in Arrow
        names.add(str(pl.Series([], dtype=dtype).to_arrow().type))
    return {_normal(part) for name in names for part in (name, re.split(r"[(\[<]", name, maxsplit=1)[0])}


def _worst(severities: Iterable[Severity]) -> Severity:
    return min(severities, key=list(Severity).index)

"""Users' Python functions: the one place where code that a declaration names is loaded."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import polars as pl

from engine.checks.check import CannotRun


def called(function: str, base: Path | None) -> pl.Expr:
    """What a function ``module:name`` gives; modules in the folder ``base`` are found too.

    Raises:
        CannotRun: there is no such function, it fails, or gives no expression.
    """
    module, _, name = function.partition(":")
    path = list(sys.path)
    if base is not None:
        sys.path.insert(0, str(base))
    try:
        expr = getattr(_loaded(module, base), name)()
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises
        raise CannotRun(f"{function}: {type(error).__name__}: {error}") from None
    finally:
        sys.path[:] = path
    if not isinstance(expr, pl.Expr):
        raise CannotRun(f"{function} gives a {type(expr).__name__}, not a Polars expression")
    return expr


def _loaded(module: str, base: Path | None) -> ModuleType:
    """A module; one in ``base`` is that folder's own, whatever another folder calls its."""
    file = (base or Path()).joinpath(*module.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(module, file) if base is not None and file.is_file() else None
    if spec is None or spec.loader is None:
        return importlib.import_module(module)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def columns_of(expr: pl.Expr, schema: Mapping[str, pl.DataType]) -> list[str]:
    """The columns of a table that an expression reads; all of them where it selects by a pattern, or names none.

    Raises:
        CannotRun: one is missing.
    """
    named = expr.meta.root_names()
    for name in named:
        if name not in schema:
            raise CannotRun(f"the column {name!r} is missing")
    return list(schema) if not named or "cs." in str(expr) else list(dict.fromkeys(named))


def prove_row_wise(expr: pl.Expr, schema: Mapping[str, pl.DataType]) -> None:
    """That an expression gives true or false for each row, by that row alone.

    Polars itself is asked: it moves a filter below an expression only where no row depends on others
    (`Expr.meta.is_row_separable` says yes to cum_sum and shift).

    Raises:
        CannotRun: it does not.
    """
    kept = "kept"
    while kept in schema:
        kept = f"_{kept}"
    rows = pl.LazyFrame(schema={**schema, kept: pl.Boolean()})
    try:
        found = rows.select(expr).collect_schema()
        plan = rows.select(pl.col(kept), expr.alias(f"{kept}?")).filter(kept).explain()
    except pl.exceptions.PolarsError as error:
        raise CannotRun(str(error).strip().splitlines()[0]) from None
    if len(found) != 1 or found.dtypes()[0] not in (pl.Boolean, pl.Null):
        given = ", ".join(map(str, found.dtypes()))
        raise CannotRun(f"it gives {given}, not true or false for each row")
    if plan.lstrip().startswith("FILTER"):
        raise CannotRun(
            "it does not treat rows one by one; aggregates and windows over rows cannot be used "
            "(map_batches must say is_elementwise=True)"
        )

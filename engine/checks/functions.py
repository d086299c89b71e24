"""Users' Python functions: the one place where code that a declaration names is loaded."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

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
        expr = getattr(importlib.import_module(module), name)()
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises
        raise CannotRun(f"{function}: {type(error).__name__}: {error}") from None
    finally:
        sys.path[:] = path
    if not isinstance(expr, pl.Expr):
        raise CannotRun(f"{function} gives a {type(expr).__name__}, not a Polars expression")
    return expr


def prove_row_wise(expr: pl.Expr, rows: pl.DataFrame) -> None:
    """That an expression gives the same for rows together as for each half of them.

    Raises:
        CannotRun: it does not, so its answer would depend on how the table is cut.
    """
    half = rows.height // 2
    whole = rows.select(expr.alias("value")).to_series()
    parts = [part.select(expr.alias("value")).to_series() for part in (rows.head(half), rows.slice(half))]
    if len(whole) != rows.height or not pl.concat(parts).equals(whole, check_dtypes=False):
        raise CannotRun("it does not treat rows one by one; aggregates and windows over rows cannot be used")

"""Users' SQL and Python, looked at before there is any data."""

from __future__ import annotations

from pathlib import Path

from engine.checks.check import CannotRun


def condition_fault(condition: str) -> str | None:
    """Why a text is no SQL condition over one row, whatever its columns; None: it may be one."""
    from engine.checks.sql import read  # loads DuckDB

    try:
        read(condition)
    except CannotRun as reason:
        return f"{condition!r}: {reason}"
    return None


def function_fault(function: str, base: Path | None) -> str | None:
    """Why ``module:name`` gives no Polars expression; None: it does."""
    from engine.checks.functions import called  # loads Polars

    try:
        called(function, base)
    except CannotRun as reason:
        return str(reason)
    return None

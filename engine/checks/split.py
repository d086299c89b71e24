"""Good rows and bad ones, both lazily."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from engine.checks.check import Check, Measures
from engine.checks.table import Table

FAILED = "failed_checks"


def split(table: Table, asked: Sequence[tuple[Check, Measures]]) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """The rows that no check blames, and the others with the names of those that do in a last column."""
    broken = {check.name: expr for check, measures in asked if (expr := _broken(table, measures)) is not None}
    columns = list(table.schema)
    failed = FAILED
    while failed in columns:
        failed = f"_{failed}"
    if not broken:
        return table.frame, table.frame.head(0).with_columns(pl.lit([], pl.List(pl.String)).alias(failed))
    reasons = [pl.when(expr).then(pl.lit(name)).otherwise(pl.lit(None, pl.String)) for name, expr in broken.items()]
    marked = table.derived_lazily().with_columns(pl.concat_list(reasons).list.drop_nulls().alias(failed))
    good, bad = marked.filter(pl.col(failed).list.len() == 0), marked.filter(pl.col(failed).list.len() > 0)
    return good.select(table.all_columns()), bad.select(*table.all_columns(), failed)


def _broken(table: Table, measures: Measures) -> pl.Expr | None:
    """Whether a row breaks a check; None for checks that blame no single row."""
    if measures.key:
        parts = [expr.alias(name) for name, expr in table.key_parts(measures.key).items()]
        filled = pl.all_horizontal([part.is_not_null() for part in parts])
        if measures.where is not None:
            filled &= measures.where.fill_null(value=False)
        value = pl.when(filled).then(pl.struct(parts))
        return filled & ~value.is_first_distinct()
    if measures.violation is None:
        return None
    where = measures.where
    return (measures.violation if where is None else measures.violation & where).fill_null(value=False)

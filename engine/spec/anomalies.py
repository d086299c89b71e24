"""Which figures of a table are held against those of past runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from engine.spec.scalars import Column, Columns, Finite, Spec


class Anomalies(Spec):
    """Figures of the rows that a run judges, against the median of the same figure in past runs."""

    row_count: Annotated[bool, Field(description="how many rows there are")] = True
    null_rate: Annotated[Columns, Field(description="columns whose share of nulls must not rise")] = ()
    mean: Annotated[Columns, Field(description="columns of numbers whose mean must stay where it was")] = ()
    freshness: Annotated[Column | None, Field(description="column of timestamps whose newest must not grow older")] = (
        None
    )
    runs: Annotated[int, Field(ge=5, le=365, description="how many past runs are looked at")] = 14
    tolerance: Annotated[
        Finite, Field(gt=0, description="how far off is too far, in 1.4826 × the median absolute deviation")
    ] = 5.0

    @property
    def names(self) -> tuple[str, ...]:
        """What the checks are named after: ``row_count``, ``null_rate.status``."""
        return tuple(name if column is None else f"{name}.{column}" for name, column in self.figures)

    @property
    def figures(self) -> tuple[tuple[str, str | None], ...]:
        """Each figure with its column."""
        found: list[tuple[str, str | None]] = [("row_count", None)] if self.row_count else []
        found += [("null_rate", column) for column in self.null_rate]
        found += [("mean", column) for column in self.mean]
        return (*found, *([("freshness", self.freshness)] if self.freshness else []))

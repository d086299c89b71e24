"""Two tables, or what is kept of them, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.drift.column import ColumnDrift, compared
from engine.errors import DataError, did_you_mean
from engine.frames import opened
from engine.profile import Profile, kind_of, profile_of
from engine.spec import DriftThresholds
from engine.types import DEFAULT_MEMORY_LIMIT

if TYPE_CHECKING:
    import polars as pl

DEFAULT_KINDS = ("number", "whole", "text", "bool", "duration")  # moments go on, and are compared where they are named
_MANY = 1_000  # values, all different: what names rows


@dataclass(frozen=True)
class TableDrift:
    """A table beside its baseline.

    Attributes:
        columns: those that were compared.
        added, removed: columns that only one side has.
    """

    baseline_rows: int
    current_rows: int
    columns: Mapping[str, ColumnDrift]
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    thresholds: DriftThresholds = field(default_factory=DriftThresholds)

    @property
    def row_change(self) -> float | None:
        """Of the number of rows, as a share of the baseline's."""
        return self.current_rows / self.baseline_rows - 1 if self.baseline_rows else None

    @property
    def drifted(self) -> dict[str, list[str]]:
        """The columns that moved too far, each with the effects that say so."""
        found = {name: column.exceeded(self.thresholds) for name, column in self.columns.items()}
        return {name: effects for name, effects in found.items() if effects}

    @property
    def has_drifted(self) -> bool:
        """Whether anything moved too far, the number of rows included."""
        limit, change = self.thresholds.rows, self.row_change
        return bool(self.drifted) or (limit is not None and change is not None and abs(change) > limit)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, but for infinities."""
        drifted = self.drifted
        return {
            "baseline_rows": self.baseline_rows,
            "current_rows": self.current_rows,
            "row_change": self.row_change,
            "added_columns": list(self.added),
            "removed_columns": list(self.removed),
            "thresholds": self.thresholds.model_dump(),
            "drifted": drifted,
            "columns": {
                name: {"exceeded": drifted.get(name, []), **column.to_dict()} for name, column in self.columns.items()
            },
        }


def drift_of(
    baseline: Any,
    current: Any,
    *,
    columns: Sequence[str] | None = None,
    thresholds: DriftThresholds | Mapping[str, float | None] | None = None,
    bins: int = 10,
    exact: bool = True,
    memory_limit: str = DEFAULT_MEMORY_LIMIT,
    spill: Path | None = None,
) -> TableDrift:
    """How far a table has moved away from its baseline.

    Args:
        baseline, current: polars (eager or lazy), pyarrow, pandas, a Parquet path, an Arrow stream, or a `Profile`.
        columns: default: all numbers, texts (of up to 1,000 different ones) and truth values that both have.
        thresholds: how large effects may be, such as ``{"psi": 0.3, "ks": None}``; others keep their defaults.
        bins: of the baseline's quantiles.
        exact: whether rows are compared where both sides have them; else by profiles, with errors stated.
        memory_limit: for the values in hand, such as ``512MiB``.
        spill: the folder for what does not fit; None is one of the system's temporary folders.

    Raises:
        UsageError: an argument makes no sense.
        DataError: a table cannot be read, or lacks a column that was named.
        MissingExtra: rows are compared, and numba is not installed.
    """
    if thresholds is not None and not isinstance(thresholds, DriftThresholds):
        thresholds = DriftThresholds.model_validate(dict(thresholds))
    limits = thresholds or DriftThresholds()
    if exact and not (isinstance(baseline, Profile) or isinstance(current, Profile)):
        with ExitStack() as stack:
            frames = [stack.enter_context(opened(data, spill)) for data in (baseline, current)]
            return of_frames(frames[0], frames[1], columns, limits, bins, memory_limit, spill)
    sides = [data if isinstance(data, Profile) else profile_of(data) for data in (baseline, current)]
    return of_profiles(sides[0], sides[1], columns, limits, bins)


def of_profiles(
    baseline: Profile, current: Profile, columns: Sequence[str] | None, thresholds: DriftThresholds, bins: int = 10
) -> TableDrift:
    """As `drift_of`, of profiles."""
    names = list(columns) if columns is not None else _common(baseline, current)
    _check(names, baseline.columns, "the baseline")
    _check(names, current.columns, "the data")
    return TableDrift(
        baseline.rows,
        current.rows,
        {name: compared(baseline[name], current[name], bins) for name in names},
        [name for name in current.columns if name not in baseline.columns],
        [name for name in baseline.columns if name not in current.columns],
        thresholds,
    )


def of_frames(
    baseline: pl.LazyFrame,
    current: pl.LazyFrame,
    columns: Sequence[str] | None,
    thresholds: DriftThresholds,
    bins: int = 10,
    memory_limit: str = DEFAULT_MEMORY_LIMIT,
    spill: Path | None = None,
) -> TableDrift:
    """As `drift_of`, of rows."""
    from engine.drift.rows import compare_rows, rows_of  # numba, which takes its time to load

    how: dict[str, Any] = {"bins": bins, "memory_limit": memory_limit, "spill": spill}
    before, now = baseline.collect_schema(), current.collect_schema()
    if columns is None:
        names = [n for n in now if n in before and {kind_of(now[n]), kind_of(before[n])} <= set(DEFAULT_KINDS)]
    else:
        names = list(columns)
        _check(names, before, "the baseline")
        _check(names, now, "the data")
    return TableDrift(
        rows_of(baseline),
        rows_of(current),
        compare_rows(baseline, current, names, named=columns is not None, **how),
        [name for name in now if name not in before],
        [name for name in before if name not in now],
        thresholds,
    )


def _common(baseline: Profile, current: Profile) -> list[str]:
    found = []
    for name, now in current.columns.items():
        before = baseline.columns.get(name)
        if before is None or {before.kind, now.kind} - {*DEFAULT_KINDS}:
            continue
        if all(c.kind == "whole" and c.count >= _MANY and (c.distinct or 0) >= 0.95 * c.count for c in (before, now)):
            continue  # numbers that name rows
        found.append(name)
    return found


def _check(names: Sequence[str], there: Mapping[str, Any], where: str) -> None:
    for name in names:
        if name not in there:
            raise DataError(
                f"{where} has no column {name!r}",
                code="drift.missing_column",
                allowed=", ".join(there),
                fix=did_you_mean(name, there, "name one of the columns above"),
            )

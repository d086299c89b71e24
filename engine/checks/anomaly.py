"""Anomaly: a figure of a table stands out from the same figure in past runs, by a rule that its message spells out.

The rule: let m be the median of past values, and s 1.4826 times their median absolute deviation, which for normally
distributed values estimates the standard deviation (Hampel's identifier). A value further from m than ``tolerance`` × s
stands out, unless it is nearer than what never matters (`SLACK`). Where enough past runs fall on the same weekday
(UTC), only those are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from engine.checks.result import Result
from engine.errors import UsageError
from engine.types import Severity, parse_moment

FEWEST = 5  # past runs to say anything; and past runs on the same weekday to look at only these
LOOK_BACK = 56  # past runs among which the same weekday is looked for
SCALE = 1.4826
# What never matters, whatever the spread: for counts and means a share of the median, else plain.
SLACK = {"row_count": 0.05, "mean": 0.05, "null_rate": 0.01, "freshness": 1.0}
_RELATIVE = ("row_count", "mean")
_ONLY_MORE = ("null_rate", "freshness")  # less of these is no trouble
_WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")

Json = Mapping[str, Any]


class _Unmeasurable(Exception):  # noqa: N818 - an outcome
    """The table has no such figure, and never will have."""


@dataclass(frozen=True)
class Past:
    """A run: when it was begun, and what its table looked like (the columns' nulls, mean, max)."""

    when: datetime
    rows: int
    columns: Mapping[str, Json]

    @classmethod
    def of(cls, when: datetime, profile: Json) -> Past:
        """What there is to remember of a profile's summary."""
        columns = profile.get("columns") or ()
        kept = ("nulls", "mean", "max", "kind", "count", "pii")
        return cls(when, int(profile["rows"]), {c["name"]: {key: c.get(key) for key in kept} for c in columns})


@dataclass(frozen=True)
class Anomaly:
    """One figure of one table.

    Attributes:
        figure: ``row_count``, ``null_rate``, ``mean`` or ``freshness``.
        of: the column; None for the number of rows.
        runs: how many past ones are looked at.
        tolerance: how many times the spread is too far.
    """

    figure: str
    of: str | None
    severity: Severity
    runs: int
    tolerance: float

    check_name = "anomaly_validation"

    @property
    def column(self) -> str:
        """What `engine.checks.Result.column` will be."""
        return self.figure if self.of is None else f"{self.figure}.{self.of}"

    @property
    def description(self) -> str:
        """What must hold, in a few words."""
        return f"{self._said} as in the last {self.runs} runs"

    def judge(self, now: Past, history: Sequence[Past]) -> Result:
        """The verdict.

        Args:
            history: oldest first, without this run.
        """
        try:
            value = self.measured(now)
        except _Unmeasurable as reason:
            details = {"cannot_run": True, "reason": str(reason)}
            message = f"the anomaly check could not run: {reason}"
            return Result(self.check_name, False, Severity.ERROR, message, 0, details, self.column)
        weekday, values = self._comparable(now, history)
        details = {"figure": self.figure, "value": value, "runs": len(values), "weekday": weekday, "history": values}
        if value is None:
            return self._passed(f"{self._said}: there is no value", details)
        if len(values) < FEWEST:
            count = f"{len(values)} past run" if len(values) == 1 else f"{len(values)} past runs"
            return self._passed(
                f"{self._said} {self.write(value)}: {count} to compare with, {FEWEST} are needed", details
            )
        center = median(values)
        spread = SCALE * median(abs(v - center) for v in values)
        slack = SLACK[self.figure] * (abs(center) if self.figure in _RELATIVE else 1.0)
        reach = max(self.tolerance * spread, slack)
        low, high = (None if self.figure in _ONLY_MORE else center - reach), center + reach
        details |= {"median": center, "spread": spread, "allowed": [low, high], "tolerance": self.tolerance}
        which = f"{len(values)} runs" + (f" on {_WEEKDAYS[now.when.weekday()]}" if weekday else "")
        bounds = f"up to {self.write(high)}" if low is None else f"{self.write(low)} to {self.write(high)}"
        message = (
            f"{self._said} {self.write(value)} against a median of {self.write(center)} ± {self.write(spread)} "
            f"over {which}; allowed {bounds}"
        )
        passed = value <= high and (low is None or value >= low)
        severity = Severity.INFO if passed else self.severity
        return Result(self.check_name, passed, severity, message, 0, details, self.column)

    def measured(self, run: Past) -> float | None:
        """The figure of a run; None where it has none, as of no rows.

        Raises:
            _Unmeasurable: its column is not there, or of a type that has no such figure.
        """
        if self.of is None:
            return float(run.rows)
        column = run.columns.get(self.of)
        if column is None:
            raise _Unmeasurable(f"the column {self.of!r} is missing")
        if self.figure == "null_rate":
            return column["nulls"] / run.rows if run.rows else None
        if column["pii"]:
            raise _Unmeasurable(f"no value of the column {self.of!r} is kept: it is tagged pii")
        return self._mean(column) if self.figure == "mean" else self._age(column, run.when)

    def write(self, value: float) -> str:
        """A value of this figure, for people."""
        if self.figure == "row_count":
            return f"{value:,.0f}"
        if self.figure == "null_rate":
            return f"{100 * value:.2f} %" if abs(value) < 0.01 else f"{100 * value:.1f} %"
        return f"{value:.3g} h" if self.figure == "freshness" else f"{value:.6g}"

    @property
    def _said(self) -> str:
        names = {"row_count": "rows", "null_rate": "null rate", "mean": "mean", "freshness": "age of the newest"}
        return names[self.figure]

    def _passed(self, message: str, details: Json) -> Result:
        return Result(self.check_name, True, Severity.INFO, message, 0, details, self.column)

    def _comparable(self, now: Past, history: Sequence[Past]) -> tuple[str | None, list[float]]:
        """The weekday that is looked at, if it is one, and the figure in the runs to compare with, oldest first."""
        found: list[tuple[int, float]] = []
        for run in history:
            try:
                value = self.measured(run)
            except _Unmeasurable:
                continue
            if value is not None:
                found.append((run.when.weekday(), value))
        same = [value for weekday, value in found if weekday == now.when.weekday()]
        if len(same) >= FEWEST and len(same) < len(found):
            return _WEEKDAYS[now.when.weekday()].removesuffix("s"), same[-self.runs :]
        return None, [value for _, value in found[-self.runs :]]

    def _mean(self, column: Json) -> float | None:
        if not column["count"]:
            return None
        if column["kind"] not in ("number", "whole"):
            raise _Unmeasurable(f"the column {self.of!r} has no mean: it holds no numbers")
        return float(column["mean"])

    def _age(self, column: Json, when: datetime) -> float | None:
        if not column["count"]:
            return None
        try:
            return (when - parse_moment(column["max"])) / timedelta(hours=1)
        except UsageError:
            raise _Unmeasurable(f"the column {self.of!r} holds no dates or timestamps") from None


Watch = Callable[[Json], Sequence[Result]]  # of a profile's summary

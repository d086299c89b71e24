"""What a check is: a name, what it measures on a table, and how it judges what was measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engine.checks.result import Result
from engine.spec import Threshold
from engine.types import Severity

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table

OnViolation = Literal["report", "quarantine", "drop", "block"]


class CannotRun(Exception):  # noqa: N818 - an outcome, not a fault of the engine; never leaves this package
    """A check makes no sense on the table it was given: say why, without judging the data."""


@dataclass(frozen=True)
class Aggregate:
    """An aggregate expression, and how the answers of several batches make one: summed, or the least or greatest."""

    expr: pl.Expr
    fold: Literal["sum", "min", "max"]

    def folded(self, before: Any, now: Any) -> Any:
        """Two answers as one; None is no answer."""
        if before is None or now is None:
            return now if before is None else before
        return before + now if self.fold == "sum" else min(before, now) if self.fold == "min" else max(before, now)


@dataclass(frozen=True)
class Measures:
    """What a check asks of the one scan.

    Attributes:
        values: aggregates by name.
        violation: for a row-wise check, whether a row breaks it; null counts as no.
        where: the rows that are judged; None: all.
        frequent: the column of which the values that break the check are counted.
        key: the columns whose values, taken together, are looked for in more than one row.
    """

    values: Mapping[str, Aggregate] = field(default_factory=dict)
    violation: pl.Expr | None = None
    where: pl.Expr | None = None
    frequent: str | None = None
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What the scan answered: each measure, the rows judged, the violations, the first few and the most frequent."""

    values: Mapping[str, Any]
    judged: int = 0
    failed: int = 0
    sample: tuple[Mapping[str, Any], ...] = ()
    frequent: tuple[tuple[Any, int], ...] = ()


@dataclass(frozen=True)
class Check(ABC):
    """One check of one table.

    Attributes:
        column: what `engine.checks.Result.column` will be.
        severity: of a failure.
        max_failed: how many rows may break it, for checks that count rows.
        where: an SQL condition: the rows it judges, for checks that count rows.
    """

    family: ClassVar[str]
    whole_table: ClassVar[bool] = False  # whether it judges all rows of a table, also those it has judged before

    column: str | None
    severity: Severity
    max_failed: Threshold | None = field(default=None, kw_only=True)
    where: str | None = field(default=None, kw_only=True)

    @property
    def check_name(self) -> str:
        return f"{self.family}_validation"

    @property
    def name(self) -> str:
        """What the declaration calls it: ``range.score``."""
        return self.family if self.column is None else f"{self.family}.{self.column}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns without which the check cannot run."""
        return (self.column,) if self.column is not None else ()

    @property
    @abstractmethod
    def description(self) -> str:
        """What must hold, in a few words."""

    @abstractmethod
    def measures(self, table: Table) -> Measures:
        """What to measure on a table whose columns include `columns`.

        Raises:
            CannotRun: a column has a type that the check makes no sense on.
        """

    @abstractmethod
    def judge(self, found: Found, table: Table) -> Result:
        """The verdict on what was measured.

        Raises:
            CannotRun: the values turn out to be such that the check makes no sense.
        """

    def result(
        self,
        passed: bool,
        message: str,
        details: Mapping[str, Any],
        *,
        failed_records: int = 0,
        sample: tuple[Mapping[str, Any], ...] = (),
    ) -> Result:
        """A verdict under this check's name; a failure has this check's severity."""
        severity = Severity.INFO if passed else self.severity
        return Result(self.check_name, passed, severity, message, failed_records, details, self.column, sample)

    def cannot_run(self, reason: str) -> Result:
        """The result of a check that says nothing about the data: always a failed ERROR."""
        details = {"cannot_run": True, "reason": reason}
        message = f"the {self.family} check could not run: {reason}"
        return Result(self.check_name, False, Severity.ERROR, message, 0, details, self.column)

    def counted(self, failed: int, judged: int) -> dict[str, Any]:
        """The details that every check which counts rows gives."""
        details: dict[str, Any] = {"failed_fraction": failed / judged if judged else 0.0}
        if self.where is not None:
            details |= {"where": self.where, "rows_judged": judged}
        if self.max_failed is not None:
            details["max_failed"] = str(self.max_failed)
        return details

    def allows(self, failed: int, judged: int) -> bool:
        """Whether so many violations are few enough."""
        return self.max_failed.allows(failed, judged) if self.max_failed else failed == 0


@dataclass(frozen=True)
class RowWise(Check):
    """A check that every row passes or breaks by itself.

    Attributes:
        on_violation: what becomes of rows that break it: they are reported; set aside to be mended (quarantine); left
            out (drop); or they block the pipeline. Rows that are set aside or left out are a WARNING at most, unless
            they are more than ``max_failed``.
    """

    on_violation: OnViolation = field(default="report", kw_only=True)

    @abstractmethod
    def violation(self, table: Table) -> pl.Expr:
        """Whether a row breaks the check; null counts as no.

        Raises:
            CannotRun: as `measures`.
        """

    @abstractmethod
    def says(self, found: Found) -> str:
        """What was counted, in a few words."""

    def measures(self, table: Table) -> Measures:
        return Measures(self.values(table), self.violation(table), table.condition(self.where))

    def values(self, table: Table) -> Mapping[str, Aggregate]:  # noqa: ARG002
        """What is measured besides violations."""
        return {}

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        """What the result tells besides counts.

        Raises:
            CannotRun: as `judge`.
        """
        return {}

    def explanation(self, details: Mapping[str, Any], table: Table) -> str:  # noqa: ARG002
        """What to add to the message of a failure."""
        return ""

    def judge(self, found: Found, table: Table) -> Result:
        details = self.details(found, table) | self.counted(found.failed, found.judged)
        message = f"{self.column}: {self.says(found)}"
        if self.max_failed is not None:
            message += f", allowed {self.max_failed}"
        passed = self.allows(found.failed, found.judged)
        if found.failed:
            message += self.explanation(details, table)
            if self.on_violation in ("quarantine", "drop"):
                details["on_violation"] = self.on_violation
                message += f" (on_violation: {self.on_violation})"
        return Result(
            self.check_name,
            passed,
            Severity.INFO if passed else self._severity(),
            message,
            self.failed_records(found, passed),
            details,
            self.column,
            found.sample,
        )

    def failed_records(self, found: Found, passed: bool) -> int:  # noqa: ARG002
        """Rows that break the check; also of a check that allows so many."""
        return found.failed

    def _severity(self) -> Severity:
        if self.on_violation == "block":
            return Severity.ERROR
        if self.on_violation in ("quarantine", "drop") and self.max_failed is None:
            return max(self.severity, Severity.WARNING, key=list(Severity).index)
        return self.severity


def share(part: int, whole: int) -> str:
    """``3 of 1,000 (0.3 %)``."""
    percent = f" ({100 * part / whole:.3g} %)" if part else ""
    return f"{part:,} of {whole:,}{percent}"

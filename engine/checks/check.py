"""What a check is: a name, what it measures on a table, and how it judges what was measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.result import Result
from engine.types import Severity

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


class CannotRun(Exception):  # noqa: N818 - an outcome, not a fault of the engine; never leaves this package
    """A check makes no sense on the table it was given: say why, without judging the data."""


@dataclass(frozen=True)
class Measures:
    """What a check asks of the one scan.

    Attributes:
        values: aggregate expressions by name.
        violation: for a row-wise check, whether a row breaks it; null counts as no.
    """

    values: Mapping[str, pl.Expr] = field(default_factory=dict)
    violation: pl.Expr | None = None


@dataclass(frozen=True)
class Found:
    """What the scan answered: the value of each measure, the number of violations and the first few of them."""

    values: Mapping[str, Any]
    failed: int = 0
    sample: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Check(ABC):
    """One check of one table.

    Attributes:
        column: what `engine.checks.Result.column` will be.
        severity: of a failure.
    """

    family: ClassVar[str]
    whole_table: ClassVar[bool] = False  # whether it judges all rows of a table, also those it has judged before

    column: str | None
    severity: Severity

    @property
    def check_name(self) -> str:
        return f"{self.family}_validation"

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


def share(part: int, whole: int) -> str:
    """``3 of 1,000 (0.3 %)``."""
    percent = f" ({100 * part / whole:.3g} %)" if part else ""
    return f"{part:,} of {whole:,}{percent}"

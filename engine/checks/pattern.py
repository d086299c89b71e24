"""Pattern: every text holds a match of a regular expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import CannotRun, Found, RowWise, share

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class Pattern(RowWise):
    """``regex`` (Rust syntax) is found somewhere in every non-null text; ``^`` and ``$`` anchor it."""

    family: ClassVar[str] = "pattern"

    regex: str

    @property
    def description(self) -> str:
        return f"{self.column} matches {self.regex}"

    def violation(self, table: Table) -> pl.Expr:
        import polars as pl

        name = self.columns[0]
        dtype = table.schema[name]
        if dtype == pl.Null:
            return pl.lit(False)
        if dtype not in (pl.String, pl.Categorical, pl.Enum):
            raise CannotRun(f"the column {name!r} is {dtype}, not text")
        return ~table.known(name).cast(pl.String).str.contains(self.regex)

    def says(self, found: Found) -> str:
        return f"{share(found.failed, found.judged)} values do not match {self.regex}"

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        return {"pattern": self.regex}


def regex_fault(regex: str) -> str | None:
    """What is wrong with a regular expression, if anything is."""
    import polars as pl

    try:
        pl.Series([""]).str.contains(regex)
    except pl.exceptions.ComputeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[-1].removeprefix("error: ") if lines else "it cannot be read"
    return None

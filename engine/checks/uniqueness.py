"""Uniqueness: no value, or combination of values, occurs twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Check, Found, Measures, share
from engine.checks.result import Result

if TYPE_CHECKING:
    from engine.checks.table import Table


@dataclass(frozen=True)
class Uniqueness(Check):
    """Every non-null key occurs once; a key is null if any of its columns is null or NaN."""

    family: ClassVar[str] = "uniqueness"
    whole_table = True

    key: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.key

    @property
    def description(self) -> str:
        return f"{' + '.join(self.key)} unique"

    def measures(self, table: Table) -> Measures:
        for name in self.key:
            table.known(name)  # refuses what cannot be compared
        return Measures()

    def judge(self, found: Found, table: Table) -> Result:  # noqa: ARG002 - counted by groups, not by the scan
        repeated = table.repeated(self.key)
        failed = repeated.rows - repeated.values
        shown = table.at([group.last for group in repeated.earliest], self.key)
        details = {
            "duplicated_values": repeated.values,
            "rows_involved": repeated.rows,
            "duplicate_fraction": failed / table.rows if table.rows else 0.0,
            "sample": [
                {"value": self._value(row), "rows": group.rows, "first_row": group.first, "last_row": group.last}
                for row, group in zip(shown, repeated.earliest, strict=True)
            ],
        }
        if not failed:
            return self.result(True, f"{self.column}: no value occurs twice", details)
        message = (
            f"{self.column}: {share(failed, table.rows)} rows repeat an earlier one; "
            f"{repeated.values:,} values stand in {repeated.rows:,} rows"
        )
        return self.result(False, message, details, failed_records=failed, sample=tuple(shown))

    def _value(self, row: Mapping[str, Any]) -> Any:
        return row[self.key[0]] if len(self.key) == 1 else {name: row[name] for name in self.key}

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
        return Measures(key=self.key, where=table.condition(self.where))

    def judge(self, found: Found, table: Table) -> Result:
        repeated = table.repeated(self)
        failed = repeated.rows - repeated.values
        details = {
            "duplicated_values": repeated.values,
            "rows_involved": repeated.rows,
            "duplicate_fraction": failed / found.judged if found.judged else 0.0,
            "sample": [
                {"value": self._value(row), "rows": group.rows, "first_row": group.first, "last_row": group.last}
                for group, row in repeated.earliest
            ],
        } | self.counted(failed, found.judged)
        if not failed:
            return self.result(True, f"{self.column}: no value occurs twice", details)
        message = (
            f"{self.column}: {share(failed, found.judged)} rows repeat an earlier one; "
            f"{repeated.values:,} values stand in {repeated.rows:,} rows"
        )
        if self.max_failed is not None:
            message += f", allowed {self.max_failed}"
        sample = tuple(row for _, row in repeated.earliest)
        passed = self.allows(failed, found.judged)
        return self.result(passed, message, details, failed_records=failed, sample=sample)

    def _value(self, row: Mapping[str, Any]) -> Any:
        return row[self.key[0]] if len(self.key) == 1 else {name: row[name] for name in self.key}

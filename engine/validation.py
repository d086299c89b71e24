"""Validation as a library: `DataValidator`, one call per family or all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from engine.checks import Report, Result, Suite
from engine.config import parse_validation
from engine.types import Severity

__all__ = ["DataValidator", "Report", "Result", "Severity"]


class DataValidator:
    """Checks tables and keeps what it found for `generate_report`.

    Every method takes ``data`` as polars (eager or lazy), pyarrow or pandas, reads every row of it, and raises
    `engine.errors.ConfigError` for a constraint that makes no sense, `engine.errors.DataError` for data that cannot
    be read. A missing column is neither: it is a failed ERROR. The methods named after a family give one `Result`
    for all the columns given: failed if any column failed, ``failed_records`` summed, ``details`` by column.
    """

    def __init__(self) -> None:
        self._results: list[Result] = []

    def validate_all(self, data: Any, config: Mapping[str, Any]) -> tuple[bool, list[Result]]:
        """Run all checks that ``config`` declares, with the keys of the pipeline file's ``validation`` section.

        Forgets what earlier calls found.

        Returns:
            Whether no check failed as an ERROR, and one result per configured column or key, one for the schema
            where there is one, and one for the number of rows.
        """
        report = Suite(parse_validation(config)).validate(data)
        self._results = list(report.results)
        return report.ok, list(report.results)

    def validate_schema(self, data: Any, expected_schema: Mapping[str, str]) -> Result:
        """Whether the columns exist with their types (int, float, string, … or an exact Polars or Arrow type)."""
        return self._family("schema", data, {"schema": dict(expected_schema)})

    def validate_completeness(
        self, data: Any, required_columns: Sequence[str], max_null_percentage: float = 0.05
    ) -> Result:
        """Whether at most ``max_null_percentage`` (a fraction: 0.05 is 5 %) of each column is null or NaN."""
        config = {"required_columns": required_columns, "max_null_percentage": max_null_percentage}
        return self._family("completeness", data, config)

    def validate_uniqueness(self, data: Any, unique_columns: Sequence[str | Sequence[str]]) -> Result:
        """Whether no value of each column occurs twice; a list among them is one compound key. Nulls are left out."""
        return self._family("uniqueness", data, {"unique_columns": unique_columns})

    def validate_ranges(self, data: Any, range_constraints: Mapping[str, Sequence[Any]]) -> Result:
        """Whether the values of each column lie in ``(min, max)``, both included; None is an open end."""
        return self._family("range", data, {"range_constraints": dict(range_constraints)})

    def validate_categorical(self, data: Any, categorical_constraints: Mapping[str, Sequence[Any]]) -> Result:
        """Whether the values of each column are among those allowed, compared exactly."""
        return self._family("categorical", data, {"categorical_constraints": dict(categorical_constraints)})

    def validate_freshness(self, data: Any, timestamp_column: str, max_age_hours: float = 24) -> Result:
        """Whether the newest timestamp is at most ``max_age_hours`` old now."""
        config = {"timestamp_column": timestamp_column, "max_age_hours": max_age_hours}
        return self._family("freshness", data, {"freshness": config})

    def validate_distribution(self, data: Any, column: str, expected_mean: float, tolerance: float = 0.2) -> Result:
        """Whether the mean deviates from ``expected_mean`` by at most ``tolerance``, a fraction of it."""
        config = {"expected_mean": expected_mean, "tolerance": tolerance}
        return self._family("distribution", data, {"distribution": {column: config}})

    def generate_report(self) -> dict[str, Any]:
        """The results since the last `validate_all` (with them its own), JSON-ready, with counts and a timestamp."""
        return Report(datetime.now(UTC), tuple(self._results)).to_dict()

    def _family(self, family: str, data: Any, config: Mapping[str, Any]) -> Result:
        name = f"{family}_validation"
        found = [r for r in Suite(parse_validation(config)).validate(data).results if r.check_name == name]
        result = found[0] if family in ("schema", "freshness", "distribution") and found else _combined(name, found)
        self._results.append(result)
        return result


def _combined(check_name: str, results: Sequence[Result]) -> Result:
    """The results of one family's columns as one."""
    failed = [r for r in results if not r.passed]
    return Result(
        check_name=check_name,
        passed=not failed,
        severity=min((r.severity for r in failed), key=list(Severity).index, default=Severity.INFO),
        message="; ".join(r.message for r in failed or results) or "nothing to check: no column was given",
        failed_records=sum(r.failed_records for r in results),
        details={str(r.column): {"passed": r.passed, "failed_records": r.failed_records, **r.details} for r in results},
        sample=tuple(row for r in failed for row in r.sample),
    )

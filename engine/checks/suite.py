"""A suite: all checks of one table, run together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.checks.categorical import Categorical
from engine.checks.check import CannotRun, Check, Measures
from engine.checks.completeness import Completeness
from engine.checks.distribution import Distribution
from engine.checks.freshness import Freshness
from engine.checks.range import Range
from engine.checks.result import Report, Result
from engine.checks.row_count import RowCount
from engine.checks.schema import Schema
from engine.checks.uniqueness import Uniqueness
from engine.spec import ValidationSpec
from engine.types import DEFAULT_MEMORY_LIMIT, Severity, parse_moment

if TYPE_CHECKING:
    from engine.checks.table import Table

SAMPLE_SIZE = 5
_DEFAULTS = {
    "schema": Severity.ERROR,
    "completeness": Severity.ERROR,
    "uniqueness": Severity.ERROR,
    "range": Severity.WARNING,
    "categorical": Severity.ERROR,
    "freshness": Severity.WARNING,
    "distribution": Severity.WARNING,
    "row_count": Severity.ERROR,
}


class Suite:
    """The checks that a `ValidationSpec` declares.

    Args:
        spec: what must hold.
        key_columns: columns that name a row to people; shown with each failing row where the table has them.
        as_of: the moment that ages are measured from; None is the moment of each `validate`.
        memory_limit: for counting equal values, such as ``512MiB``; more is spilled to disk.
        spill: the folder for what does not fit into it; None is one of the system's temporary folders.
        sample_size: how many failing rows each result shows.

    Attributes:
        checks: what will be checked, in the order of the results.
    """

    def __init__(
        self,
        spec: ValidationSpec,
        *,
        key_columns: Sequence[str] = (),
        as_of: datetime | None = None,
        memory_limit: str = DEFAULT_MEMORY_LIMIT,
        spill: Path | None = None,
        sample_size: int = SAMPLE_SIZE,
    ) -> None:
        self.checks: tuple[Check, ...] = tuple(_checks(spec))
        self._key_columns = tuple(key_columns)
        self._as_of = None if as_of is None else parse_moment(as_of)
        self._memory_limit = memory_limit
        self._spill = spill
        self._sample_size = sample_size

    def validate(self, data: Any, *, new: Any = None) -> Report:
        """Check every row of ``data``: polars (eager or lazy), pyarrow or pandas.

        Args:
            data: the whole table.
            new: those of its rows that schema, completeness, ranges and categories are to judge; None: all. Uniqueness,
                freshness, distribution and the number of rows judge the whole table.

        A check that cannot run (its column is missing, or has a type it makes no sense on) is a failed ERROR in
        the report, not an exception.

        Raises:
            UsageError: ``data`` is no table.
            DataError: the data cannot be read.
        """
        now = datetime.now(UTC)
        scopes = [True, False] if new is not None else [None]
        results: dict[int, Result] = {}
        for scope in scopes:
            numbers = [i for i, check in enumerate(self.checks) if scope in (None, check.whole_table)]
            with closing(self._table(new if scope is False else data, now)) as table:
                results |= self._results(table, numbers)
        return Report(now, tuple(results[i] for i in range(len(self.checks))))

    def _table(self, data: Any, now: datetime) -> Table:
        from engine.checks.table import Table
        from engine.frames import to_lazy

        return Table(
            to_lazy(data),
            self._key_columns,
            self._as_of or now,
            memory_limit=self._memory_limit,
            spill=self._spill,
            sample_size=self._sample_size,
        )

    def _results(self, table: Table, numbers: Sequence[int]) -> dict[int, Result]:
        """The results of some of the checks, by number."""
        results: dict[int, Result] = {}
        asked: dict[int, Measures] = {}
        for i in numbers:
            check = self.checks[i]
            missing = [name for name in check.columns if name not in table.schema]
            if missing:
                results[i] = check.cannot_run(_absent(missing))
                continue
            try:
                asked[i] = check.measures(table)
            except CannotRun as reason:
                results[i] = check.cannot_run(str(reason))
        found = table.scan([(measures, self.checks[i].columns) for i, measures in asked.items()])
        for i, answer in zip(asked, found, strict=True):
            try:
                results[i] = self.checks[i].judge(answer, table)
            except CannotRun as reason:
                results[i] = self.checks[i].cannot_run(str(reason))
        return results


def _absent(missing: Sequence[str]) -> str:
    names = ", ".join(repr(name) for name in missing)
    return f"the column {names} is missing" if len(missing) == 1 else f"the columns {names} are missing"


def _checks(spec: ValidationSpec) -> Iterator[Check]:
    """One check per configured column or key, one for the schema, one for the number of rows."""
    overrides = {entry: Severity(severity) for entry, severity in spec.severity.items()}

    def severity(family: str, column: str | None = None) -> Severity:
        return overrides.get(f"{family}.{column}", overrides.get(family, _DEFAULTS[family]))

    if spec.schema_:
        columns = {name: overrides[f"schema.{name}"] for name in spec.schema_ if f"schema.{name}" in overrides}
        mismatch = overrides.get("schema", Severity.WARNING)
        yield Schema(None, severity("schema"), spec.schema_, mismatch, columns)
    for name in spec.required_columns:
        yield Completeness(name, severity("completeness", name), spec.max_null_percentage)
    for key in spec.unique_columns:
        parts = (key,) if isinstance(key, str) else tuple(key)
        yield Uniqueness(",".join(parts), severity("uniqueness", ",".join(parts)), parts)
    for name, (low, high) in spec.range_constraints.items():
        yield Range(name, severity("range", name), low, high)
    for name, allowed in spec.categorical_constraints.items():
        yield Categorical(name, severity("categorical", name), allowed)
    if spec.freshness:
        name = spec.freshness.timestamp_column
        yield Freshness(name, severity("freshness", name), spec.freshness.max_age_hours)
    for name, expected in spec.distribution.items():
        yield Distribution(name, severity("distribution", name), expected.expected_mean, expected.tolerance)
    yield RowCount(None, severity("row_count"), spec.min_rows)

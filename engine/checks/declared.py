"""From the declaration of a table's checks to the checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.checks.anomaly import Anomaly
from engine.checks.categorical import Categorical
from engine.checks.check import Check
from engine.checks.compare import Compare
from engine.checks.completeness import Completeness
from engine.checks.custom import Custom
from engine.checks.distribution import Distribution
from engine.checks.drift import Drift
from engine.checks.foreign_key import ForeignKey
from engine.checks.freshness import Freshness
from engine.checks.increasing import Increasing
from engine.checks.length import Length
from engine.checks.not_null import NotNull
from engine.checks.pattern import Pattern
from engine.checks.range import Range
from engine.checks.row_count import RowCount
from engine.checks.schema import Schema
from engine.checks.uniqueness import Uniqueness
from engine.spec import ALL, ValidationSpec
from engine.types import Severity

WARNINGS = (
    "range",
    "freshness",
    "distribution",
    "anomaly",
    "drift",
)  # what fails these is a WARNING by default, all else an ERROR


@dataclass(frozen=True)
class Declared:
    """The checks of one table: one per configured column or key, one for the schema, one for the number of rows."""

    spec: ValidationSpec

    def checks(self) -> Iterator[Check]:
        """All of them, in the order of the results."""
        yield from self._of_columns()
        yield from self._of_values()
        yield from self._of_rows()
        yield from self._of_the_table()

    def anomalies(self) -> Iterator[Anomaly]:
        """The figures that are held against past runs."""
        if found := self.spec.anomalies:
            for figure, column in found.figures:
                name = figure if column is None else f"{figure}.{column}"
                yield Anomaly(figure, column, self._severity("anomaly", name), found.runs, found.tolerance)

    def _severity(self, family: str, name: str | None = None) -> Severity:
        default = Severity.WARNING if family in WARNINGS else Severity.ERROR
        chosen = self.spec.severity
        return Severity(chosen.get(f"{family}.{name}", chosen.get(family, default)))

    def _options(self, family: str, name: str, *, row_wise: bool = True) -> dict[str, Any]:
        """The options of a check that counts rows."""
        options: dict[str, Any] = {"column": name, "severity": self._severity(family, name)}
        for option in ("max_failed", "where", *(["on_violation"] if row_wise else [])):
            entries = getattr(self.spec, option)
            has_its_own = (family, option) == ("completeness", "max_failed")
            general = entries.get(ALL) if row_wise and not has_its_own else None
            value = entries.get(f"{family}.{name}", entries.get(family, general))
            if value is not None:
                options[option] = value
        return options

    def _of_columns(self) -> Iterator[Check]:
        spec = self.spec
        if spec.schema_:
            severities = {
                name: Severity(spec.severity[f"schema.{name}"])
                for name in spec.schema_
                if f"schema.{name}" in spec.severity
            }
            mismatch = Severity(spec.severity.get("schema", Severity.WARNING))
            yield Schema(None, self._severity("schema"), spec.schema_, mismatch, severities)
        for name in spec.required_columns:
            yield Completeness(threshold=spec.max_null_percentage, **self._options("completeness", name))
        for name in spec.not_null:
            yield NotNull(**self._options("not_null", name))
        for key in spec.unique_columns:
            parts = (key,) if isinstance(key, str) else tuple(key)
            yield Uniqueness(key=parts, **self._options("uniqueness", ",".join(parts), row_wise=False))

    def _of_values(self) -> Iterator[Check]:
        spec = self.spec
        for name, (low, high) in spec.range_constraints.items():
            yield Range(low=low, high=high, **self._options("range", name))
        for name, allowed in spec.categorical_constraints.items():
            yield Categorical(allowed=allowed, **self._options("categorical", name))
        for name, regex in spec.patterns.items():
            yield Pattern(regex=regex, **self._options("pattern", name))
        for name, (fewest, most) in spec.lengths.items():
            yield Length(low=fewest, high=most, **self._options("length", name))

    def _of_rows(self) -> Iterator[Check]:
        spec = self.spec
        for rule in spec.increasing:
            yield Increasing(strict=rule.strict, **self._options("increasing", rule.column))
        for pair in spec.compare:
            options = self._options("compare", pair.name)
            yield Compare(left=pair.left, operator=pair.operator, right=pair.right, **options)
        for foreign in spec.foreign_keys:
            options = self._options("foreign_key", foreign.name)
            yield ForeignKey(key=foreign.columns, source=foreign.source, to=foreign.to, **options)
        for name, custom in spec.custom.items():
            yield Custom(sql=custom.sql, function=custom.function, **self._options("custom", name))

    def _of_the_table(self) -> Iterator[Check]:
        spec = self.spec
        if spec.freshness:
            name = spec.freshness.timestamp_column
            yield Freshness(name, self._severity("freshness", name), spec.freshness.max_age_hours)
        for name, expected in spec.distribution.items():
            severity = self._severity("distribution", name)
            yield Distribution(name, severity, expected.expected_mean, expected.tolerance)
        if spec.drift:
            own = {k.partition(".")[2]: Severity(v) for k, v in spec.severity.items() if k.startswith("drift.")}
            yield Drift(None, self._severity("drift"), spec.drift, own)
        counts = spec.row_count
        fewest, most = (counts.min, counts.max) if counts else (spec.min_rows, None)
        yield RowCount(None, self._severity("row_count"), fewest, most)

"""Drift: each column still looks like its baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import CannotRun, Check, Found, Measures
from engine.checks.result import Result
from engine.errors import MaestroError
from engine.spec import DriftSpec
from engine.types import Severity

if TYPE_CHECKING:
    from engine.checks.table import Table
    from engine.drift import Baseline, ColumnDrift, TableDrift
    from engine.profile import Profile

_NAMES = {
    "psi": "PSI",
    "js": "Jensen-Shannon",
    "ks": "D",
    "wasserstein": "Wasserstein/σ",
    "mean": "mean shift/σ",
    "nulls": "change of nulls",
}


@dataclass(frozen=True)
class Drift(Check):
    """No effect is above its threshold, and above what chance makes of samples of that size.

    One result for each column that is compared, and one for the table as a whole. It is about the rows that are judged,
    those that other checks set aside among them; without a baseline it passes and says so.

    Attributes:
        severities: by column, where they are not the general one.
    """

    family: ClassVar[str] = "drift"

    spec: DriftSpec
    severities: Mapping[str, Severity]

    @property
    def description(self) -> str:
        which = "every column" if self.spec.columns is None else ", ".join(self.spec.columns)
        limits = ", ".join(f"{name} {limit:g}" for name, limit in self.spec.thresholds if limit is not None)
        return f"{which} like {self.spec.baseline}, at most {limits}"

    def measures(self, table: Table) -> Measures:  # noqa: ARG002 - its part of the scan is a profile
        return Measures()

    def judge(self, found: Found, table: Table) -> Result:
        raise NotImplementedError

    def results(self, table: Table, profile: Profile) -> Iterator[Result]:
        """The verdicts on the rows that ``profile`` is of.

        Raises:
            CannotRun: the baseline cannot be read.
        """
        from engine.drift import Nothing

        try:
            baseline = table.past(self.spec.baseline)
            if isinstance(baseline, Nothing):
                details = {"baseline": None, "reason": baseline.reason}
                yield self.result(True, f"nothing to compare with yet: {baseline.reason}", details)
                return
            drift, missing = self._compared(table, profile, baseline)
        except MaestroError as error:
            raise CannotRun(error.message) from error
        for name, reason in missing.items():
            message = f"the drift check could not run: {reason}"
            absent = {"cannot_run": True, "reason": reason}
            yield Result(self.check_name, False, Severity.ERROR, message, 0, absent, name)
        for name, column in drift.columns.items():
            yield self._of_column(name, column, baseline.id)
        yield self._of_table(drift, baseline.id)

    def _compared(self, table: Table, profile: Profile, baseline: Baseline) -> tuple[TableDrift, dict[str, str]]:
        from engine.drift import of_frames, of_profiles
        from engine.profile import profile_of

        spec, missing, known = self.spec, {}, baseline.columns
        for name in spec.columns or ():
            where = "the table" if name not in profile.columns else "the baseline" if name not in known else None
            if where:
                missing[name] = f"{where} has no column {name!r}"
        names = None if spec.columns is None else [name for name in spec.columns if name not in missing]
        tagged = {name for name, column in profile.columns.items() if column.pii}
        if baseline.frame is not None and spec.exact and not tagged:
            limit, spill = table.memory
            frames = baseline.frame, table.frame
            return of_frames(*frames, names, spec.thresholds, spec.bins, limit, spill), missing
        before = baseline.profile
        if before is None:
            before = profile_of(baseline.frame, tagged & set(known))
        return of_profiles(before, profile, names, spec.thresholds, spec.bins), missing

    def _of_column(self, name: str, column: ColumnDrift, baseline: str) -> Result:
        thresholds = self.spec.thresholds
        exceeded = column.exceeded(thresholds)
        effects = {n: v for n, v in column.effects.items() if v is not None}
        shown = exceeded or [n for n in ("psi", "js", "ks", "wasserstein", "nulls") if n in effects]
        parts = [f"{_NAMES[n]} {effects[n]:.3g}" for n in shown]
        if exceeded:
            parts = [f"{part}, allowed {getattr(thresholds, n):g}" for part, n in zip(parts, exceeded, strict=True)]
        message = f"{name}: {'; '.join(parts) or 'nothing to compare'} against {baseline}"
        if column.note:
            message += f" ({column.note})"
        details = {
            "baseline": baseline,
            "thresholds": thresholds.model_dump(),
            "exceeded": exceeded,
            **column.to_dict(),
        }
        severity = self.severities.get(name, self.severity) if exceeded else Severity.INFO
        return Result(self.check_name, not exceeded, severity, message, 0, details, name)

    def _of_table(self, drift: TableDrift, baseline: str) -> Result:
        limit, change = self.spec.thresholds.rows, drift.row_change
        passed = limit is None or change is None or abs(change) <= limit
        details: dict[str, Any] = {
            "baseline": baseline,
            "baseline_size": drift.baseline_rows,
            "current_size": drift.current_rows,
            "row_change": change,
            "threshold": limit,
            "drifted": list(drift.drifted),
            "compared": len(drift.columns),
            "added_columns": list(drift.added),
            "removed_columns": list(drift.removed),
        }
        percent = "" if change is None else f" ({100 * change:+.3g} %)"
        message = f"{drift.current_rows:,} rows, the baseline {baseline} had {drift.baseline_rows:,}{percent}"
        message += f"; {len(drift.drifted)} of {len(drift.columns)} columns drifted"
        return self.result(passed, message, details)

"""A suite: all checks of one table, run together."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.checks.anomaly import Anomaly
from engine.checks.check import CannotRun, Check, Measures, RowWise
from engine.checks.custom import Custom
from engine.checks.declared import Declared
from engine.checks.drift import Drift
from engine.checks.foreign_key import ForeignKey
from engine.checks.masking import masked
from engine.checks.pattern import Pattern, regex_fault
from engine.checks.result import Report, Result
from engine.checks.rules import condition_fault, function_fault
from engine.checks.uniqueness import Uniqueness
from engine.errors import ConfigError, DataError, Problem, UsageError
from engine.spec import ValidationSpec
from engine.types import DEFAULT_MEMORY_LIMIT, parse_moment

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.aside import Quarantine
    from engine.checks.table import Table
    from engine.drift import Past
    from engine.profile import Profiler

SAMPLE_SIZE = 5
Scope = Literal["all", "rows", "table"]


@dataclass(frozen=True)
class Judgement:
    """What checks of one scope found.

    Attributes:
        results: by number of the check; most have one.
        rows: how many were judged.
        removed: Boolean, for each of them in order: whether it was quarantined or dropped; None: none was.
    """

    results: Mapping[int, Sequence[Result]]
    rows: int
    removed: pl.Series | None = None
    quarantined: int = 0
    dropped: int = 0
    seconds: float = 0.0


class Suite:
    """The checks that a table must pass.

    ``Suite({"required_columns": ["user_id"], "range_constraints": {"score": [0, 100]}}).validate(frame)``

    Args:
        spec: what must hold: a `ValidationSpec`, or a dict with the keys of the pipeline file's ``validation`` section.
        key_columns: columns that name a row to people; shown with each failing row where the table has them.
        as_of: the moment that ages are measured from; None is the moment of each `validate`.
        memory_limit: for what grows with the table, such as ``512MiB``; more is spilled to disk.
        spill: the folder for what does not fit into it; None is one of the system's temporary folders.
        sample_size: how many failing rows each result shows.
        base: the folder in which modules of custom functions are looked for first.
        pii: columns whose values results do not show.

    Attributes:
        checks: what will be checked, in the order of the results.
        anomalies: what runs check besides, against past ones.

    Raises:
        ConfigError: the declaration is not written as it must be.
    """

    def __init__(
        self,
        spec: ValidationSpec | Mapping[str, Any],
        *,
        key_columns: Sequence[str] = (),
        as_of: datetime | None = None,
        memory_limit: str = DEFAULT_MEMORY_LIMIT,
        spill: Path | None = None,
        sample_size: int = SAMPLE_SIZE,
        base: Path | None = None,
        pii: Collection[str] = (),
    ) -> None:
        declared = Declared(spec if isinstance(spec, ValidationSpec) else _parsed(spec))
        self.checks: tuple[Check, ...] = tuple(declared.checks())
        self.anomalies: tuple[Anomaly, ...] = tuple(declared.anomalies())
        self._pii = frozenset(pii)
        self._key_columns = tuple(key_columns)
        self._as_of = None if as_of is None else parse_moment(as_of)
        self._memory_limit = memory_limit
        self._budget = _bytes(memory_limit)
        self._spill = spill
        self._sample_size = sample_size
        self._base = base
        if problems := list(_pattern_problems(self.checks)):
            raise ConfigError(problems)

    @property
    def listed(self) -> tuple[Check | Anomaly, ...]:
        """Everything that a run checks, for plans."""
        return (*self.checks, *self.anomalies)

    @property
    def references(self) -> frozenset[str]:
        """The sources that foreign keys refer to."""
        return frozenset(check.source for check in self.checks if isinstance(check, ForeignKey))

    @property
    def sets_aside(self) -> bool:
        """Whether a check quarantines or drops rows."""
        return any(map(_sets_aside, self.checks))

    def mistakes(self) -> list[Problem]:
        """What shows without any data: SQL that cannot be read, Python functions that are not there.

        Of a check with such a mistake, `validate` tells that it cannot run.
        """
        found: dict[tuple[str, ...], str] = {}
        for check in self.checks:
            place = ("custom", str(check.column)) if isinstance(check, Custom) else ()
            if isinstance(check, Custom) and check.function is not None:
                found[place] = function_fault(check.function, self._base) or ""
            elif isinstance(check, Custom) and check.sql is not None:
                found[place] = condition_fault(check.sql) or ""
            if check.where is not None:
                found[("where",)] = found.get(("where",)) or condition_fault(check.where) or ""
        fix = "correct it: DuckDB's SQL over one row, or module:name of a function without arguments"
        return [Problem("config.rule", fault, place, fix=fix) for place, fault in found.items() if fault]

    def validate(self, data: Any, *, references: Mapping[str, Any] | None = None) -> Report:
        """Check every row of ``data``: polars (eager or lazy), pyarrow, pandas, a Parquet path, or an Arrow stream.

        Nothing is written or changed: ``on_violation`` decides only how severe a failure is.

        Args:
            references: source: its data, for foreign keys.

        A check that cannot run (its column is missing, or has a type it makes no sense on) is a failed ERROR in
        the report, not an exception.

        Raises:
            UsageError: ``data`` is no table.
            DataError: the data cannot be read.
        """
        return self.report(self.judge(data, references=references))

    def filter(self, data: Any, *, references: Mapping[str, Any] | None = None) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        """The rows that pass all row-wise checks and repeat no key, and the others with what they broke; both lazy.

        The second frame has one more column, ``failed_checks`` (List(String), such as ``range.score``). A row that
        breaks a check is among them whatever ``on_violation``, ``max_failed`` and severity say; checks of the table as
        a whole (row count, freshness, distribution, schema) have no say.

        Raises:
            UsageError: as `validate`.
            DataError: as `validate`; or a check of rows cannot run. One that fails on a value says so when a frame is
                collected.
        """
        from engine.checks.split import split
        from engine.frames import scan, to_lazy

        frame = scan(data) if isinstance(data, str | Path) else to_lazy(data)
        table = self._table_of(frame, references=references)  # lives as long as the frames that ask it
        asked, results = self._asked(table, "all")
        for i, [result] in results.items():
            if isinstance(self.checks[i], RowWise | Uniqueness):
                raise DataError(
                    result.message,
                    code="checks.cannot_run",
                    where=self.checks[i].name,
                    fix="mend the check or the table; validate shows all checks that cannot run",
                )
        return split(table, list(asked.values()))

    def judge(
        self,
        data: Any,
        *,
        scope: Scope = "all",
        origins: pl.DataFrame | None = None,
        references: Mapping[str, Any] | None = None,
        quarantine: Quarantine | None = None,
        witness: Profiler | None = None,
        past: Past | None = None,
    ) -> Judgement:
        """What the checks of a scope find; rows that they set aside are written, and marked in the answer.

        Args:
            data: as in `validate`.
            scope: ``rows``: schema and row-wise checks; ``table``: uniqueness, freshness, row count, distribution,
                which judge a table as a whole; ``all``: both, the latter without the rows that the former set aside.
            origins: where rows came from: ``start`` (Int64, ascending: the number of a row), ``origin`` (String),
                ``row`` (Int64, its record number in the origin, or null) and maybe ``read`` (String); rows in between
                count on.
            references: source: its data, for foreign keys.
            quarantine: where quarantined rows go; None: nowhere, they are only marked.
            witness: is shown all rows, batch by batch and once, before any is set aside.
            past: finds the baseline of drift; default: baselines in files only.

        Raises:
            UsageError, DataError: as `validate`.
        """
        started = time.perf_counter()
        with self._table(data, origins=origins, references=references, past=past) as table:
            faults: dict[int, str] = {}
            witness = witness or self._witness(table, scope)
            while True:
                judgement, faulty = self._scan(table, scope, quarantine, faults, witness)
                if not any(_sets_aside(self.checks[i]) for i in faulty):
                    return replace(judgement, seconds=time.perf_counter() - started)
                # What a check set aside before it turned out that it cannot run is taken back.
                faults |= faulty
                table.forget()

    def _scan(
        self,
        table: Table,
        scope: Scope,
        quarantine: Quarantine | None,
        faults: Mapping[int, str],
        witness: Profiler | None,
    ) -> tuple[Judgement, dict[int, str]]:
        """One scan without the checks that are known to be at fault, and which more of them are."""
        from engine.checks.aside import Aside
        from engine.checks.scan import Scan

        asked, results = self._asked(table, scope)
        for i in faults.keys() & asked.keys():
            del asked[i]
            results[i] = [self.checks[i].cannot_run(faults[i])]
        if quarantine:
            quarantine.path.unlink(missing_ok=True)
        scan = Scan(
            table, asked, Aside(quarantine, list(table.schema)) if quarantine else None, None if faults else witness
        )
        found = scan.run()
        faulty: dict[int, str] = {}
        for i in sorted(found, key=lambda i: self.checks[i].whole_table):
            check = self.checks[i]
            if any(map(_sets_aside, (self.checks[j] for j in faulty))):
                break  # what stays is not what is to be judged
            try:
                if fault := table.fault(check):
                    raise CannotRun(fault)
                if isinstance(check, Drift) and witness:
                    results[i] = list(check.results(table, witness.profile()))
                else:
                    results[i] = [check.judge(found[i], table)]
            except CannotRun as reason:
                faulty[i] = str(reason)
                results[i] = [check.cannot_run(faulty[i])]
        rows = table.rows + scan.quarantined + scan.dropped
        return Judgement(results, rows, table.removed, scan.quarantined, scan.dropped), faulty

    def report(self, *judgements: Judgement) -> Report:
        """All results of judgements that together cover every check; the first is the one of the row-wise checks."""
        results = {i: result for judgement in judgements for i, result in judgement.results.items()}
        return Report(
            datetime.now(UTC),
            tuple(masked(result, check, self._pii) for i, check in enumerate(self.checks) for result in results[i]),
            judgements[0].rows,
            sum(judgement.quarantined for judgement in judgements),
            sum(judgement.dropped for judgement in judgements),
            sum(judgement.seconds for judgement in judgements),
        )

    @contextmanager
    def _table(self, data: Any, **context: Any) -> Iterator[Table]:
        from engine.frames import opened

        with opened(data, self._spill) as frame, closing(self._table_of(frame, **context)) as table:
            yield table

    def _table_of(
        self,
        frame: pl.LazyFrame,
        *,
        origins: pl.DataFrame | None = None,
        references: Mapping[str, Any] | None = None,
        past: Past | None = None,
    ) -> Table:
        from engine.checks.table import Table
        from engine.frames import to_lazy

        return Table(
            frame,
            self._key_columns,
            self._as_of or datetime.now(UTC),
            memory_limit=self._memory_limit,
            budget=self._budget // 4 // max(1, sum(isinstance(check, Uniqueness) for check in self.checks)),
            spill=self._spill,
            sample_size=self._sample_size,
            origins=origins,
            references={name: to_lazy(other) for name, other in (references or {}).items()},
            base=self._base,
            past=past,
        )

    def _witness(self, table: Table, scope: Scope) -> Profiler | None:
        """What makes the profile that drift is judged by, if any is."""
        specs = [check.spec for check in self.checks if isinstance(check, Drift)] if scope != "table" else []
        if not specs:
            return None
        from engine.profile import Profiler

        every = any(spec.columns is None for spec in specs)
        named = {name for spec in specs for name in spec.columns or ()}
        return Profiler({name: dtype for name, dtype in table.schema.items() if every or name in named})

    def _asked(self, table: Table, scope: Scope) -> tuple[dict[int, tuple[Check, Measures]], dict[int, list[Result]]]:
        """The checks of a scope with their measures, and the results of those that cannot run."""
        asked: dict[int, tuple[Check, Measures]] = {}
        results: dict[int, list[Result]] = {}
        for i, check in enumerate(self.checks):
            if scope != "all" and check.whole_table != (scope == "table"):
                continue
            missing = [name for name in check.columns if name not in table.schema]
            try:
                if missing:
                    raise CannotRun(_absent(missing))
                asked[i] = check, check.measures(table)
            except CannotRun as reason:
                results[i] = [check.cannot_run(str(reason))]
        return asked, results


def _sets_aside(check: Check) -> bool:
    return isinstance(check, RowWise) and check.on_violation in ("quarantine", "drop")


def _absent(missing: Sequence[str]) -> str:
    names = ", ".join(repr(name) for name in missing)
    return f"the column {names} is missing" if len(missing) == 1 else f"the columns {names} are missing"


def _parsed(config: Mapping[str, Any]) -> ValidationSpec:
    from engine.config import parse_validation

    return parse_validation(config)


def _pattern_problems(checks: Sequence[Check]) -> Iterator[Problem]:
    for check in checks:
        if isinstance(check, Pattern) and (fault := regex_fault(check.regex)):
            message = f"{check.regex!r} is no regular expression: {fault}"
            place = ("patterns", str(check.column))
            yield Problem("config.pattern", message, place, allowed="Rust's syntax", fix="mend it; escape \\ in quotes")


def _bytes(memory_limit: str) -> int:
    """``512MiB`` as a number of bytes."""
    match = re.fullmatch(rf"([1-9][0-9]*)({'|'.join(_UNITS)})", memory_limit)
    if match is None:
        raise UsageError(
            f"{memory_limit!r} is not an amount of memory",
            code="checks.memory_limit",
            allowed=f"a whole number and one of {', '.join(_UNITS)}",
            fix="write for example 512MiB",
        )
    return int(match[1]) * _UNITS[match[2]]


_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

"""The one pass over a table: every measure of every check, failing rows, rows set aside, keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from engine.checks.aside import Aside
from engine.checks.check import Check, Found, Measures, RowWise
from engine.checks.frequencies import Frequencies
from engine.checks.table import Table
from engine.errors import DataError
from engine.frames import clipped, column

_MARKED_AT_ONCE = 100  # checks whose failing rows are looked for
_FREQUENT = 20  # values that break a check are shown, the most frequent ones


class Witness(Protocol):
    """Is shown every row, batch by batch, before any is set aside."""

    @property
    def columns(self) -> Sequence[str]:
        """Those of the table that it wants to see."""

    def add(self, batch: pl.DataFrame) -> None:
        """Rows in order."""


@dataclass
class _Asked:
    """A check with its measures, and what batches have answered so far."""

    check: Check
    measures: Measures
    values: dict[str, Any] = field(default_factory=dict)
    judged: int = 0
    failed: int = 0
    failed_here: int = 0  # in the batch in hand
    sample: list[dict[str, Any]] = field(default_factory=list)
    frequencies: Frequencies | None = None

    @property
    def violation(self) -> pl.Expr:
        """Whether a row breaks a row-wise check; never null."""
        assert self.measures.violation is not None  # noqa: S101 - only row-wise checks are asked for it
        where = self.measures.where
        broken = self.measures.violation if where is None else self.measures.violation & where
        return broken.fill_null(value=False)

    @property
    def on_violation(self) -> str:
        return self.check.on_violation if isinstance(self.check, RowWise) else "report"


class Scan:
    """One pass over just the columns that the checks name, whatever their number.

    Args:
        witness: of every row.

    Attributes:
        quarantined, dropped: rows set aside for good, or left out.
    """

    def __init__(
        self,
        table: Table,
        asked: Mapping[int, tuple[Check, Measures]],
        aside: Aside | None,
        witness: Witness | None = None,
    ) -> None:
        self._table, self._witness = table, witness
        self._asked = {i: _Asked(check, measures) for i, (check, measures) in asked.items()}
        for i, a in self._asked.items():
            if (name := a.measures.frequent) is not None:
                a.frequencies = Frequencies(table.groups, i, table.schema[name])
        self._rows = {i: a for i, a in self._asked.items() if a.measures.violation is not None}
        self._whole = {i: a for i, a in self._asked.items() if i not in self._rows}
        self._aside = aside
        self._sets_aside = any(a.on_violation in ("quarantine", "drop") for a in self._rows.values())
        self._removed: list[pl.Series] = []
        self.quarantined = self.dropped = 0

    def run(self) -> dict[int, Found]:
        """What was found, by number of the check; `Table.rows` and `Table.removed` are known from then on."""
        table = self._table
        columns = self._columns()
        seen = 0
        with _measuring():
            if columns:
                with closing(table.batches(columns)) as batches:
                    for offset, batch in batches:
                        if self._witness:
                            self._witness.add(batch)
                        self._measure(table.derive(batch, offset), offset)
                        seen = offset + batch.height
                if not seen:
                    none = pl.DataFrame(schema={name: table.schema[name] for name in columns})
                    self._measure(table.derive(none, 0), 0)
            else:
                seen = table.count()
            if self._aside:
                self._aside.close()
        removed = self.quarantined + self.dropped
        table.rows = seen - removed
        table.removed = pl.concat(self._removed) if removed else None
        return {i: self._found(asked) for i, asked in self._asked.items()}

    def _columns(self) -> list[str]:
        table = self._table
        if self._aside is not None and any(a.on_violation == "quarantine" for a in self._rows.values()):
            return list(table.schema)
        needed = {name for asked in self._asked.values() for name in table.needed(asked.check)}
        if self._witness:
            needed.update(self._witness.columns)
        if self._rows:
            needed.update(table.key_columns)
        if not needed and any(a.measures.violation is not None or a.check.where for a in self._asked.values()):
            return list(table.schema)[:1]  # a condition that names no column is about every row all the same
        return [name for name in table.schema if name in needed]

    def _measure(self, batch: pl.DataFrame, offset: int) -> None:
        if self._sets_aside:  # checks of the whole table judge what stays
            self._answer(batch, self._rows)
            self._look_closer(batch, offset)
            self._answer(self._without_removed(batch, offset), self._whole)
        else:
            self._answer(batch, self._asked)
            self._look_closer(batch, offset)

    def _answer(self, batch: pl.DataFrame, asked: Mapping[int, _Asked]) -> None:
        """Adds a batch to what aggregates, counts and keys have gathered."""
        judged: dict[str | None, list[int]] = {}
        for i, a in asked.items():
            judged.setdefault(a.check.where, []).append(i)
        for numbers in judged.values():
            where = asked[numbers[0]].measures.where
            self._answer_some(batch if where is None else batch.filter(where), {i: asked[i] for i in numbers})

    def _answer_some(self, rows: pl.DataFrame, asked: Mapping[int, _Asked]) -> None:
        plan: dict[str, pl.Expr] = {}
        for i, a in asked.items():
            for name, aggregate in a.measures.values.items():
                plan[f"{i} {name}"] = aggregate.expr
            if a.measures.violation is not None:
                plan[f"{i} failed"] = a.measures.violation.sum()
        found = clipped(rows.lazy().select(**plan).collect(engine="in-memory")).row(0, named=True) if plan else {}
        for i, a in asked.items():
            for name, aggregate in a.measures.values.items():
                a.values[name] = aggregate.folded(a.values.get(name), found[f"{i} {name}"])
            a.judged += rows.height
            a.failed_here = found.get(f"{i} failed") or 0
            a.failed += a.failed_here
            if a.measures.key:
                self._table.collect_keys(a.check, a.measures.key, rows)

    def _hit(self) -> list[_Asked]:
        """The row-wise checks that rows of the batch in hand broke."""
        return [a for a in self._rows.values() if a.failed_here]

    def _look_closer(self, batch: pl.DataFrame, offset: int) -> None:
        """Keeps the first failing rows, and counts the values that broke a check."""
        table, size = self._table, self._table.sample_size
        wanted = [a for a in self._hit() if a.measures.frequent or len(a.sample) < size]
        for start in range(0, len(wanted), _MARKED_AT_ONCE):
            some = wanted[start : start + _MARKED_AT_ONCE]
            broken = batch.select(**{str(i): a.violation for i, a in enumerate(some)})
            for a, marks in zip(some, broken.get_columns(), strict=True):
                rows = marks.new_from_index(0, batch.height) if len(marks) != batch.height else marks
                numbers = rows.arg_true()
                few = numbers.head(size - len(a.sample))
                names = dict.fromkeys([*table.key_columns, *a.check.columns])
                shown = batch.select(map(column, names))[few] if names else pl.DataFrame()
                a.sample += table.shown(shown, few.cast(pl.Int64) + offset, a.check.columns)
                if a.frequencies is not None and a.measures.frequent is not None:
                    values = batch[a.measures.frequent].rename("value")  # Polars looks some names up as patterns
                    a.frequencies.add(values.gather(numbers))

    def _without_removed(self, batch: pl.DataFrame, offset: int) -> pl.DataFrame:
        """The batch without the rows that are set aside, which are written, or left out."""
        none = pl.Series([False]).new_from_index(0, batch.height)
        broken = {way: [a.violation for a in self._hit() if a.on_violation == way] for way in ("quarantine", "drop")}
        if not any(broken.values()):
            self._removed.append(none)
            return batch
        marks = batch.select(
            **{way: pl.any_horizontal(exprs) if exprs else pl.lit(none) for way, exprs in broken.items()}
        )
        aside, out = marks["quarantine"], marks["drop"] & ~marks["quarantine"]
        if self._aside and aside.any():
            self._set_aside(self._aside, batch.filter(aside), pl.arg_where(aside, eager=True) + offset)
        self.quarantined += int(aside.sum())
        self.dropped += int(out.sum())
        self._removed.append(aside | out)
        return batch.filter(~(aside | out))

    def _set_aside(self, aside: Aside, rows: pl.DataFrame, positions: pl.Series) -> None:
        reasons = [
            pl.when(a.violation).then(pl.lit(a.check.name)).otherwise(pl.lit(None, pl.String)) for a in self._hit()
        ]
        broken = rows.select(checks=pl.concat_list(reasons).list.drop_nulls()).to_series()
        aside.add(rows, broken, self._table.places(positions))

    def _found(self, asked: _Asked) -> Found:
        frequent = asked.frequencies.top(_FREQUENT) if asked.frequencies else ()
        values = {name: asked.values.get(name) for name in asked.measures.values}
        return Found(values, asked.judged, asked.failed, tuple(asked.sample), frequent)


@contextmanager
def _measuring() -> Iterator[None]:
    """Turns what Polars says of values that it cannot calculate with into the engine's error."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(
            f"the data could not be judged: {str(error).strip().splitlines()[0]}",
            code="data.unreadable",
            fix="leave out one check after the other to see which one it is, and report it",
        ) from error

"""A table under check: its columns as expressions, and the one scan that answers all measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from engine.checks.check import CannotRun, Found, Measures
from engine.checks.groups import Groups, Repeated, comparable
from engine.errors import DataError
from engine.frames import column
from engine.moments import readable, to_moment

_SAMPLED_TOGETHER = 50


class Table:
    """Rows to be checked, not held in memory.

    Attributes:
        frame: the rows; scanned once, and again only to count groups of equal values.
        schema: its columns and their types.
        as_of: the moment that ages are measured from.
        rows: how many there are; known after `scan`.
        sample_size: how many failing rows to keep per check.
    """

    def __init__(
        self,
        frame: pl.LazyFrame,
        keys: Sequence[str],
        as_of: datetime,
        *,
        memory_limit: str,
        spill: Path | None,
        sample_size: int,
    ) -> None:
        with readable_data():
            self.schema = frame.collect_schema()
        self.frame = frame
        self.as_of = as_of
        self.rows = 0
        self.sample_size = sample_size
        self.position = "row"
        while self.position in self.schema:
            self.position = f"_{self.position}"
        self._groups = Groups(self.position, memory_limit, spill)
        self._keys = [k for k in keys if k in self.schema]
        self._moments: dict[str, pl.Expr] = {}

    def close(self) -> None:
        """Give back what counting equal values took."""
        self._groups.close()

    def known(self, name: str) -> pl.Expr:
        """A column in which NaN is null.

        Raises:
            CannotRun: it holds Python objects.
        """
        dtype = self.schema[name]
        if dtype.is_object():
            raise CannotRun(f"the column {name!r} holds Python objects, which cannot be compared")
        return column(name).fill_nan(None) if dtype.is_float() else column(name)

    def moment(self, name: str) -> pl.Expr:
        """A column as UTC microseconds; parsed once however many measures use it.

        Raises:
            CannotRun: its type holds no points in time.
        """
        dtype = self.schema[name]
        if not readable(dtype):
            raise CannotRun(f"the column {name!r} is {dtype}, which holds no points in time")
        derived = f"moment of {name}"
        while derived in self.schema:
            derived = f"_{derived}"
        self._moments[derived] = to_moment(column(name), dtype)
        return pl.col(derived)

    def unreadable(self, name: str) -> pl.Expr:
        """Whether a value is there that is no moment."""
        return column(name).is_not_null() & self.moment(name).is_null()

    def rows_with(self, columns: Sequence[str]) -> pl.Expr:
        """Position, key columns and ``columns`` of each row as one struct: what a sample shows."""
        names = dict.fromkeys([*self._keys, *columns])
        return pl.struct([pl.col(self.position), *map(column, names)])

    def scan(self, asked: Sequence[tuple[Measures, Sequence[str]]]) -> list[Found]:
        """All measures of all checks, in one pass over just the columns they name.

        Args:
            asked: for each check its measures and the columns that its sample shows.
        """
        plan: dict[str, pl.Expr] = {"rows": pl.len()}
        rows_of: dict[int, tuple[pl.Expr, Sequence[str]]] = {}
        for i, (measures, columns) in enumerate(asked):
            plan |= {f"{i} {name}": expr for name, expr in measures.values.items()}
            if measures.violation is not None:
                plan[f"{i} failed"] = measures.violation.sum()
                rows_of[i] = (measures.violation, columns)
        # The first failing rows come from queries beside the aggregates, over the same scan: as an aggregate they would
        # hold whole columns in memory. Many checks would make that plan slow, so then only those that failed are asked.
        together = len(rows_of) <= _SAMPLED_TOGETHER
        with readable_data():
            frame = self.frame.with_row_index(self.position).with_columns(**self._moments)
            samples = {i: self._sample(frame, *rows) for i, rows in rows_of.items()}
            queries = [frame.select(**plan), *(samples.values() if together else ())]
            answer, *found = pl.collect_all(queries, engine="streaming")
            values = answer.row(0, named=True)
            if not together:
                samples = {i: query for i, query in samples.items() if values[f"{i} failed"]}
                found = pl.collect_all(list(samples.values()), engine="streaming")
        rows = {i: tuple(sample["row"].to_list()) for i, sample in zip(samples, found, strict=True)}
        self.rows = values["rows"]
        return [
            Found(
                values={name: values[f"{i} {name}"] for name in measures.values},
                failed=values.get(f"{i} failed", 0),
                sample=rows.get(i, ()),
            )
            for i, (measures, _) in enumerate(asked)
        ]

    def _sample(self, frame: pl.LazyFrame, violation: pl.Expr, columns: Sequence[str]) -> pl.LazyFrame:
        return frame.filter(violation).select(row=self.rows_with(columns)).head(self.sample_size)

    def repeated(self, key: Sequence[str]) -> Repeated:
        """The values of ``key`` that stand in more than one row; null and NaN are no values."""
        with readable_data():
            return self._groups.repeated(self._values(key), self.rows, self.sample_size)

    def most_frequent(self, name: str, where: pl.Expr, few: int) -> list[tuple[Any, int]]:
        """The most frequent values of a column over the rows that ``where`` holds for, with their counts."""
        with readable_data():
            groups = self._groups.most_frequent(self._values([name], where), few)
        rows = self.at([group.first for group in groups], [name])
        return [(row[name], group.rows) for row, group in zip(rows, groups, strict=True)]

    def _values(self, columns: Sequence[str], where: pl.Expr | None = None) -> pl.LazyFrame:
        rows = self.frame.with_row_index(self.position)
        parts = {str(i): comparable(column(name), self.schema[name]) for i, name in enumerate(columns)}
        return (rows if where is None else rows.filter(where)).select(self.position, **parts)

    def at(self, positions: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Position, key columns and ``columns`` of the rows at ``positions``, in that order.

        The frame must give its rows in the same order at each scan, as files and frames in memory do.
        """
        if not positions:
            return []
        with readable_data():
            frame = self.frame.with_row_index(self.position).head(max(positions) + 1)
            frame = frame.filter(pl.col(self.position).is_in(positions))
            rows = frame.select(row=self.rows_with(columns)).collect(engine="streaming")["row"].to_list()
        found = {row[self.position]: row for row in rows}
        if len(found) < len(positions):
            raise DataError(
                "the data changed while it was checked",
                code="data.changed",
                fix="check a copy that nothing else writes to",
            )
        return [found[position] for position in positions]


@contextmanager
def readable_data() -> Iterator[None]:
    """Turn what Polars raises while it reads into the engine's error; a lazy frame fails only when it is read."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        text = str(error).strip()
        raise DataError(
            f"the data could not be read: {text.splitlines()[0] if text else type(error).__name__}",
            code="data.unreadable",
            fix="read it without the checks to see the whole message",
        ) from error

"""A look at the rows of a table while they are in memory, on their way into its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from engine.ledger import File

_MOST_ROWS = 500_000  # of a chunk that is looked at in memory


class Witness(Protocol):
    """Looks at rows, in no order."""

    def add(self, batch: pl.DataFrame) -> None: ...


@dataclass
class Watched:
    """What is seen of one read's rows; of use where the files that they went into become the table, as they are.

    Args:
        begin: gives a witness of rows of these types.
    """

    begin: Callable[[Mapping[str, pl.DataType]], Witness]
    _witness: Witness | None = None
    _schema: pl.Schema | None = None
    _files: set[str] = field(default_factory=set)

    def taken(self, frame: pl.LazyFrame, rows: int | None) -> pl.DataFrame | None:
        """The rows, in memory; None: they are too many, or unlike those before."""
        if rows is None or rows > _MOST_ROWS or (self._schema or frame.collect_schema()) != frame.collect_schema():
            return None
        return frame.collect(engine="in-memory")

    def seen(self, rows: pl.DataFrame, file: File) -> None:
        """Rows have gone into a file."""
        if rows.is_empty():
            return
        if self._witness is None:
            self._schema, self._witness = rows.schema, self.begin(rows.schema)
        self._witness.add(rows)
        self._files.add(file.path)

    def of(self, table: Iterable[File]) -> Witness | None:
        """What was seen, if these were all the rows of a table, and nothing else."""
        return self._witness if {file.path for file in table if file.rows} == self._files else None

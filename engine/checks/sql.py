"""Users' SQL conditions, evaluated by DuckDB over the rows of a batch; they reach nothing but these rows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from engine.checks.check import CannotRun
from engine.errors import is_interrupt
from engine.expressions import NotAnExpression, parsed, references
from engine.frames import column

if TYPE_CHECKING:
    import duckdb


class Conditions:
    """Boolean expressions over the columns of a table.

    Column names are matched as SQL does, without regard to case; NaN is null, as in all checks.
    """

    def __init__(self, schema: Mapping[str, pl.DataType], memory_limit: str) -> None:
        self._schema = schema
        self._memory_limit = memory_limit
        self._known: dict[str, tuple[str, ...]] = {}
        self._lock = threading.RLock()

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        from engine.duck import connect  # loaded only where there are conditions

        connection = connect(self._memory_limit)
        for setting, value in {
            "preserve_insertion_order": "true",
            "python_enable_replacements": "false",
            "enable_external_access": "false",
            "lock_configuration": "true",
        }.items():
            connection.execute(f"SET {setting} = {value}")
        return connection

    def close(self) -> None:
        if "_connection" in self.__dict__:
            self._connection.close()

    def columns(self, condition: str) -> tuple[str, ...]:
        """The columns that a condition names.

        Raises:
            CannotRun: it is no boolean expression over the columns of one row.
        """
        if condition not in self._known:
            self._known[condition] = self._resolve(condition)
        return self._known[condition]

    def evaluate(self, batch: pl.DataFrame, conditions: Sequence[str]) -> list[pl.Series]:
        """Each condition for each row: Boolean, null where it is not known.

        Raises:
            CannotRun: one of them fails on a value.
        """
        import duckdb
        import pyarrow as pa

        names = dict.fromkeys(name for condition in conditions for name in self.columns(condition))
        if not names:  # constants; a frame without columns has no rows
            names = dict.fromkeys(batch.columns[:1])
        try:
            rows = batch.select([_null_for_nan(name, self._schema[name]) for name in names])
            arrow = rows.to_arrow()
        except (pa.ArrowException, pl.exceptions.PolarsError, TypeError, ValueError) as error:
            raise CannotRun(f"SQL has no such values: {_first_line(error)}") from None
        listed = ", ".join(f"({condition}\n) AS c{i}" for i, condition in enumerate(conditions))
        with self._lock:  # a lazy frame asks from several threads
            try:
                self._connection.register("batch", arrow)
                found = pl.DataFrame(self._connection.sql(f"SELECT {listed} FROM batch").to_arrow_table())
            except duckdb.Error as error:
                if is_interrupt(error):
                    raise KeyboardInterrupt from None
                raise CannotRun(_first_line(error)) from None
            finally:
                self._connection.unregister("batch")
        if found.height != rows.height:
            raise CannotRun("it is an aggregate; a condition is about one row")
        return found.get_columns()

    def _resolve(self, condition: str) -> tuple[str, ...]:
        """The columns of a condition, which has been tried on no rows.

        Raises:
            CannotRun: it cannot be tried.
        """
        folded: dict[str, list[str]] = {}
        for name in self._schema:
            folded.setdefault(name.casefold(), []).append(name)
        found: dict[str, None] = {}
        for path in _references(condition, self._connection):
            part = next((part for part in path if part.casefold() in folded), None)
            if part is None:
                raise CannotRun(f"the column {path[0]!r} is missing")
            names = folded[part.casefold()]
            if len(names) > 1:
                raise CannotRun(f"SQL cannot tell the columns {' and '.join(map(repr, names))} apart")
            found[names[0]] = None
        self._known[condition] = tuple(found)
        none = pl.DataFrame(schema={name: self._schema[name] for name in list(found) or list(self._schema)[:1]})
        try:
            [answer] = self.evaluate(none, [condition])
        finally:
            del self._known[condition]
        if answer.dtype not in (pl.Boolean, pl.Null) or (answer.dtype == pl.Null and found):
            raise CannotRun(f"it gives {answer.dtype}, not true or false")
        return tuple(found)


def read(condition: str) -> list[tuple[str, ...]]:
    """The names of the columns that a condition mentions, whatever the table.

    Raises:
        CannotRun: it is no expression over one row.
    """
    import duckdb

    with duckdb.connect() as connection:
        return _references(condition, connection)


def _references(condition: str, connection: duckdb.DuckDBPyConnection) -> list[tuple[str, ...]]:
    try:
        return [r.path for r in references(parsed(condition, connection))]
    except NotAnExpression as error:
        raise CannotRun(str(error)) from None


def _null_for_nan(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype in (pl.Int128, pl.UInt128):  # Arrow has no such integers; wider ones than 38 digits are refused
        return column(name).cast(pl.Decimal(38, 0))
    return column(name).fill_nan(None) if dtype.is_float() else column(name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

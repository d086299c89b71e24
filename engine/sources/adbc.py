"""The one door to ADBC: a connection in a transaction that reads Arrow.

The low-level API, because the drivers' ``dbapi`` modules import pandas (1.5 s).
"""

from __future__ import annotations

from typing import Any, Self

import adbc_driver_manager
import pyarrow as pa

# Arrow's exceptions but for ArrowCancelled, which is a KeyboardInterrupt on its way.
FAILURES = (adbc_driver_manager.Error, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError)


class Session:
    """One connection of an ADBC driver, always inside a transaction; close it, or use it as a context manager.

    All methods raise one of ``FAILURES``; its text begins with the driver's own words.
    """

    def __init__(self, driver: str, uri: str) -> None:
        self._database = adbc_driver_manager.AdbcDatabase(driver=driver, uri=uri)
        try:
            self._connection = adbc_driver_manager.AdbcConnection(self._database)
        except BaseException:
            self._database.close()
            raise
        self._statements: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for part in (*self._statements, self._connection, self._database):
            part.close()

    def begin(self) -> None:
        """Leave autocommit: all that follows is one transaction."""
        self._connection.set_autocommit(False)

    def rollback(self) -> None:
        self._connection.rollback()

    def execute(self, sql: str) -> None:
        """Run a statement that gives no rows."""
        self._statement(sql).execute_update()

    def schema(self, sql: str) -> pa.Schema:
        """The columns that ``sql`` would give."""
        handle = self._statement(sql).execute_schema()
        return pa.Schema._import_from_c(handle.address)

    def stream(self, sql: str, **options: str) -> pa.RecordBatchReader:
        """The rows of ``sql`` as a stream of record batches."""
        statement = self._statement(sql, **options)
        handle, _ = statement.execute_query()
        return pa.RecordBatchReader._import_from_c(handle.address)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a small result."""
        found: list[dict[str, Any]] = self.stream(sql).read_all().to_pylist()
        return found

    def _statement(self, sql: str, **options: str) -> Any:
        statement = adbc_driver_manager.AdbcStatement(self._connection)
        self._statements.append(statement)
        if options:
            statement.set_options(**options)
        statement.set_sql_query(sql)
        return statement


def wording(error: BaseException) -> str:
    """The database's own sentence: the first line, without the driver's prefixes and the query."""
    text = str(error).strip().partition("\n")[0]
    for mark in ("ERROR:  ", "FATAL:  ", "Failed to prepare query: ", "Failed to connect: ", "[SQLite] "):
        text = text.rpartition(mark)[2]
    return text.strip()

"""The one door to ADBC: a connection in a transaction that reads Arrow.

The low-level API, because the drivers' ``dbapi`` modules import pandas (1.5 s).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Self

import adbc_driver_manager
import pyarrow as pa

# Arrow's exceptions but for ArrowCancelled, which is a KeyboardInterrupt on its way.
FAILURES = (adbc_driver_manager.Error, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError)
CANCELS = 100  # attempts to end a call


class Database:
    """Where connections come from; freed with the last of them.

    PostgreSQL's driver first asks the server for all its types, which takes longer than to connect.
    """

    def __init__(self, driver: str, uri: str) -> None:
        self.uri = uri
        self._handle = adbc_driver_manager.AdbcDatabase(driver=driver, uri=uri)
        self._connections = 0
        self._counting = threading.Lock()  # the drivers count too, without a lock

    def connect(self) -> Any:
        """Another connection."""
        with self._counting:
            try:
                connection = adbc_driver_manager.AdbcConnection(self._handle)
                self._connections += 1
            finally:
                self._free_unused()
        return connection

    def disconnect(self, connection: Any) -> None:
        """Closes a connection."""
        with self._counting:
            connection.close()
            self._connections -= 1
            self._free_unused()

    def _free_unused(self) -> None:
        if not self._connections:
            self._handle.close()


class Session:
    """One connection of an ADBC driver, always inside a transaction; close it, or use it as a context manager.

    All methods raise one of ``FAILURES``; its text begins with the driver's own words.

    Args:
        beside: an open session; if it has the same URI, this one comes from the same database.
    """

    def __init__(self, driver: str, uri: str, beside: Session | None = None) -> None:
        known = beside._database if beside is not None and beside._database.uri == uri else None
        self._database: Database = known or Database(driver, uri)
        self._connection = self._database.connect()
        self._statements: list[Any] = []
        self._open = True
        self._closing = threading.Lock()  # a handle that is being freed must not be cancelled
        self._calling = threading.Lock()  # nor may it be freed during a call
        self._given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for a call that another thread is in the middle of."""
        with self._calling, self._closing:
            if self._open:
                self._open = False
                for statement in self._statements:
                    statement.close()
                self._database.disconnect(self._connection)

    def cancel(self) -> None:
        """From another thread: make the current call fail soon; it may also be over already."""
        with self._closing, suppress(*FAILURES):
            if self._open:
                self._connection.cancel()

    def give_up(self) -> None:
        """From another thread: make this call fail soon, and all later ones at once. May hang with the connection."""
        self._given_up = True
        for _ in range(CANCELS):  # one that comes before the server has begun the call has no effect
            if not self._calling.locked():
                break
            self.cancel()
            time.sleep(0.1)

    def begin(self) -> None:
        """Leave autocommit: all that follows is one transaction."""
        self._connection.set_autocommit(False)

    def rollback(self) -> None:
        self._connection.rollback()

    def execute(self, sql: str) -> None:
        """Run a statement that gives no rows."""
        with self._statement(sql) as statement:
            statement.execute_update()

    def schema(self, sql: str) -> pa.Schema:
        """The columns that ``sql`` would give."""
        with self._statement(sql) as statement:
            handle = statement.execute_schema()
            return pa.Schema._import_from_c(handle.address)

    def stream(self, sql: str, **options: str) -> pa.RecordBatchReader:
        """The rows of ``sql`` as a stream of record batches; what it takes is freed when the session is closed."""
        statement = self._prepared(sql, options)
        self._statements.append(statement)
        return _reader(statement)

    @contextmanager
    def query(self, sql: str, **options: str) -> Iterator[pa.RecordBatchReader]:
        """The same, freed at the end of the context."""
        with self._statement(sql, **options) as statement, _reader(statement) as reader:
            yield reader

    def rows(self, sql: str, **options: str) -> list[dict[str, Any]]:
        """The rows of a small result."""
        with self.query(sql, **options) as reader:
            found: list[dict[str, Any]] = reader.read_all().to_pylist()
        return found

    @contextmanager
    def _statement(self, sql: str, **options: str) -> Iterator[Any]:
        with self._calling:
            if self._given_up:
                raise OSError("the connection was given up")
            with closing(self._prepared(sql, options)) as statement:
                yield statement

    def _prepared(self, sql: str, options: dict[str, str]) -> Any:
        statement = adbc_driver_manager.AdbcStatement(self._connection)
        if options:
            statement.set_options(**options)
        statement.set_sql_query(sql)
        return statement


def _reader(statement: Any) -> pa.RecordBatchReader:
    handle, _ = statement.execute_query()
    return pa.RecordBatchReader._import_from_c(handle.address)


def wording(error: BaseException) -> str:
    """The database's own sentence: the first line, without the driver's prefixes and the query."""
    text = str(error).strip().partition("\n")[0]
    for mark in ("ERROR:  ", "FATAL:  ", "Failed to prepare query: ", "Failed to connect: ", "[SQLite] "):
        text = text.rpartition(mark)[2]
    return text.strip()

"""The one door to DuckDB: connections with a memory limit, UTC, no extensions; quoting."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from engine.types import DEFAULT_MEMORY_LIMIT

if TYPE_CHECKING:
    import duckdb


def connect(memory_limit: str = DEFAULT_MEMORY_LIMIT, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory database that spills to ``spill`` beyond ``memory_limit`` (such as ``512MiB``).

    Its time zone is UTC, so a text or timestamp without a zone is read as UTC. Extensions are never fetched or
    loaded.
    """
    import duckdb  # not before a connection is asked for: those who only quote do without

    folder = spill or Path(tempfile.gettempdir()) / f"maestro-spill-{os.getpid()}-{secrets.token_hex(4)}"
    connection = duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "temp_directory": str(folder),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")  # of a long query, on the standard output
    return connection


def open_file(path: Path) -> duckdb.DuckDBPyConnection:
    """The database file ``path``, read only, as the database ``source``; SQL can reach no other file, nor settings."""
    connection = connect()
    try:
        connection.execute(f"ATTACH {literal(str(path.absolute()))} AS source (READ_ONLY, TYPE duckdb)")
        connection.execute("USE source")
        for setting, value in {
            "preserve_insertion_order": "true",
            "python_enable_replacements": "false",  # a table's name is never that of a Python variable
            "enable_external_access": "false",
            "lock_configuration": "true",
        }.items():
            connection.execute(f"SET {setting} = {value}")
    except BaseException:
        connection.close()
        raise
    return connection


def identifier(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """``text`` as a quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"

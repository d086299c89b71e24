"""Database sources: a table or query of PostgreSQL, MySQL, SQLite or DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engine.sources import Reading, Request, Shared
from engine.sources.relation import Probe, Relation
from engine.spec import DatabaseSpec


class DatabaseSource:
    """A relation of a database."""

    kind = "database"

    def __init__(self, name: str, spec: DatabaseSpec, base: Path, shared: Shared | None) -> None:
        self._relation = Relation(name, spec, base)
        self._shared = shared
        self.location = f"{self._relation.location} {spec.table or 'query'}"

    @contextmanager
    def open(self, request: Request) -> Iterator[Reading]:
        """See `engine.sources.Source.open`."""
        with ExitStack() as stack:
            shared = self._shared or stack.enter_context(Shared())
            opened: Reading = stack.enter_context(_module(self._relation).open_reading(self._relation, request, shared))
            yield opened

    def probe(self) -> Probe:
        """What the database says of the relation, without reading it.

        Raises:
            SourceError: it cannot be reached, or has no such relation.
        """
        found: Probe = _module(self._relation).probe(self._relation)
        return found


def _module(relation: Relation) -> Any:
    """What reads the relation's database."""
    scheme = relation.url.partition("://")[0]
    if scheme == "sqlite":
        from engine.sources import sqlite

        return sqlite
    if scheme == "duckdb":
        from engine.sources import duckdb_file

        return duckdb_file
    if scheme in ("postgresql", "postgres"):
        from engine.sources import postgres

        return postgres
    from engine.sources import mysql

    return mysql

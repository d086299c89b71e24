"""A relation of a database: the table or query a source reads, and one consistent reading of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from engine.errors import SourceError, TransientSourceError, nearest
from engine.spec import DatabaseSpec, secrets_of
from engine.spec.sources import FILES, split_url
from engine.types import redact

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 60_000
CHUNK_BYTES = 16 * 2**20
TABLES_SHOWN = 20


@dataclass(frozen=True)
class Relation:
    """What is to be read, and how its errors are worded.

    Attributes:
        name: the source's name in the pipeline.
        spec: its declaration.
        base: the folder that a relative SQLite path starts from.
    """

    name: str
    spec: DatabaseSpec
    base: Path

    @cached_property
    def token(self) -> str:
        """Names this object: readings by it are the attempts of one run."""
        return uuid.uuid4().hex

    @cached_property
    def url(self) -> str:
        """The connection string, its password percent-encoded, so that drivers do not split it at an ``@``."""
        declared = self.spec.connection_string.get_secret_value()
        scheme, userinfo, place, options = split_url(declared)
        if scheme in FILES or not userinfo:
            return declared
        user, colon, password = userinfo.partition(":")
        return f"{scheme}://{_quoted(user)}{colon}{_quoted(password)}@{place}{options}"

    @property
    def location(self) -> str:
        """Scheme, host and database, without user, password and options."""
        scheme, _, place, _ = split_url(self.url)
        return f"{scheme}://{place}"

    @property
    def cursor(self) -> str | None:
        """The cursor's name in the database."""
        return self.spec.in_source(self.spec.cursor) if self.spec.cursor else None

    def chosen(self, columns: Sequence[str]) -> list[str]:
        """Those of the relation's ``columns`` that are to be read, in their order; all where none are declared.

        Raises:
            SourceError: a declared column, or the cursor, is not among them.
        """
        wanted = {self.spec.in_source(column): column for column in self.spec.columns}
        for name, declared in wanted.items():
            if name not in columns:
                raise self._missing_column(name, "columns", columns, declared)
        if self.cursor is not None and self.cursor not in columns:
            raise self._missing_column(self.cursor, "cursor", columns, self.spec.cursor or "")
        return [column for column in columns if not wanted or column in wanted]

    def _missing_column(self, name: str, key: str, columns: Sequence[str], declared: str) -> SourceError:
        near = nearest(name, columns)
        renamed = f" (renamed to {declared!r})" if declared != name else ""
        return self.error(
            f"{self.location} {self.spec.table or 'query'} has no column {name!r}{renamed}, which {key} names",
            code="source.missing_column",
            allowed=f"columns there are: {', '.join(columns)}",
            fix=f"did you mean {near!r}?" if near else f"correct {key}",
        )

    def subquery(self, query: str) -> str:
        """``query`` in parentheses; the line break keeps a closing comment from swallowing the rest."""
        return f"({query.strip().rstrip(';')}\n)"

    def error(
        self,
        message: str,
        *,
        code: str = "source.unreadable",
        allowed: str | None = None,
        fix: str | None = None,
        transient: bool = False,
    ) -> SourceError:
        """A SourceError about this source, without secrets."""
        kind = TransientSourceError if transient else SourceError
        secrets = secrets_of(self.spec)
        secrets |= {self.url, *map(_quoted, secrets)}  # as drivers quote them
        text = redact(message, secrets - {self.location})
        return kind(text, code=code, where=f"sources.{self.name}", allowed=allowed, fix=fix)

    def invalid_url(self) -> SourceError:
        """No connection can be asked for with this connection string."""
        return self.error(
            f"{self.location.encode(errors='backslashreplace').decode()} is no address of a database",
            code="source.invalid_request",
            allowed="scheme://user:password@host:port/database, a port up to 65535, an IPv6 host in [ ]",
            fix="correct connection_string; write @ : / ? # [ ] in user or password as %40 %3A %2F %3F %23 %5B %5D",
        )

    def missing_table(self, tables: Iterable[str]) -> SourceError:
        """The declared table is not among ``tables``."""
        known = sorted(tables)
        near = nearest(self.spec.table or "", known)
        more = len(known) - TABLES_SHOWN
        shown = ", ".join(known[:TABLES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        return self.error(
            f"there is no table {self.spec.table!r} in {self.location}",
            code="source.missing_table",
            allowed=shown or "the database has no tables",
            fix=f"did you mean {near!r}?" if near else "name one of its tables",
        )

    def repeated_column(self, column: str) -> SourceError:
        """The query gives two columns of one name."""
        return self.error(
            f"the query gives the column {column!r} twice",
            code="source.repeated_column",
            fix="name each column of the SELECT with AS",
        )


def _quoted(text: str) -> str:
    return quote(unquote(text), safe="", errors="surrogatepass")


@dataclass(frozen=True)
class Probe:
    """What a database says about a relation, without reading it.

    Attributes:
        server: its name and version.
        rows_estimate: None where it has none.
        columns: name, database type, and what arrives of it.
        warnings: what may go wrong, or should be otherwise, for people.
    """

    server: str
    rows_estimate: int | None
    columns: tuple[tuple[str, str, str], ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "server": self.server,
            "rows_estimate": self.rows_estimate,
            "columns": [{"name": n, "type": t, "arrives_as": a} for n, t, a in self.columns],
            "warnings": list(self.warnings),
        }


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows; ``from_pylist`` imports pandas, where it is installed."""
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def parts(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[list[pa.RecordBatch], bool]]:
    """Consecutive batches, up to a chunk's size, and whether they are the last; only one batch is read ahead."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if group and (rows + batch.num_rows > CHUNK_ROWS or size + batch.nbytes > CHUNK_BYTES):
            yield group, False
            group, rows, size = [], 0, 0
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
    if group:
        yield group, True

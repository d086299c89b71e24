"""Tables, views and queries of MySQL and MariaDB: what their columns are, and by which key they can be cut."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby

from engine.sources.mysql_columns import Key, Part, identifier
from engine.sources.mysql_session import Field, Session
from engine.sources.relation import Relation

NAME = re.compile(r"(?:(`(?:[^`]|``)+`|[^.`]+)\.)?(`(?:[^`]|``)+`|[^.`]+)")


@dataclass(frozen=True)
class Table:
    """What is read from.

    Attributes:
        sql: as FROM names it.
        fields: its columns as the server describes their results.
        stored: whether it is a table, not a view or query.
        key: a unique key that cuts it into ranges.
        row_bytes: the average size of a row, 0 if unknown.
        rows_estimate: None if unknown.
        declared: the columns' types as they were declared.
        indexed: the columns that an index begins with.
    """

    sql: str
    fields: tuple[Field, ...]
    stored: bool = False
    key: Key | None = None
    row_bytes: int = 0
    rows_estimate: int | None = None
    declared: dict[str, str] = field(default_factory=dict)
    indexed: frozenset[str] = frozenset()

    @property
    def forced(self) -> str:
        """``sql``, by way of the key."""
        return f"{self.sql} FORCE INDEX ({identifier(self.key.index)})" if self.key else self.sql


def described(session: Session, relation: Relation) -> Table:
    """The relation as it is now.

    Raises:
        SourceError: there is no such table, or the query is refused.
    """
    if relation.spec.query is not None:
        sql = f"{relation.subquery(relation.spec.query)} AS source_rows"
        return Table(sql, tuple(session.fields(f"SELECT * FROM {sql} LIMIT 0")))
    schema, name, kind, width, estimate = _found(session, relation)
    sql = f"{identifier(schema)}.{identifier(name)}"
    fields = tuple(session.fields(f"SELECT * FROM {sql} LIMIT 0"))
    columns = session.rows(
        "SELECT column_name, data_type, character_set_name, collation_name, is_nullable, column_type "
        "FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
        schema,
        name,
    )
    by_name = {
        c: Part(c, t.lower(), charset, collation, null == "YES") for c, t, charset, collation, null, _ in columns
    }
    indexes = session.rows(
        "SELECT index_name, column_name, non_unique, sub_part, index_type FROM information_schema.statistics "
        "WHERE table_schema = %s AND table_name = %s ORDER BY index_name, seq_in_index",
        schema,
        name,
    )
    keys = []
    indexed = set()
    for index, rows in groupby(indexes, key=lambda row: row[0]):
        found = list(rows)
        indexed.add(found[0][1])
        ordered = all(not unique and sub is None and kind_ == "BTREE" for _, _, unique, sub, kind_ in found)
        if ordered and all(column in by_name for _, column, *_ in found):
            keys.append(Key(index, tuple(by_name[column] for _, column, *_ in found)))
    return Table(
        sql,
        fields,
        stored=kind not in ("VIEW", "SYSTEM VIEW"),
        key=min(keys, key=_rank, default=None),
        row_bytes=int(width or 0),
        rows_estimate=None if estimate is None else int(estimate),
        declared={column: declared for column, *_, declared in columns},
        indexed=frozenset(indexed),
    )


def _rank(key: Key) -> tuple[bool, bool, int]:
    return key.nulls is not None, key.index != "PRIMARY", len(key.parts)


def _found(session: Session, relation: Relation) -> tuple[str, str, str, int | None, int | None]:
    for schema, name in _meanings(str(relation.spec.table)):
        rows = session.rows(
            "SELECT table_schema, table_name, table_type, avg_row_length, table_rows FROM information_schema.tables "
            "WHERE table_schema = COALESCE(%s, database()) AND table_name = %s",
            schema,
            name,
        )
        if rows:
            schema, name, kind, width, estimate = min(rows, key=lambda row: row[1] != name)
            return schema, name, kind, width, estimate
    tables = session.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = COALESCE(%s, database())",
        _meanings(str(relation.spec.table))[0][0],
    )
    raise relation.missing_table(name for (name,) in tables)


def _meanings(declared: str) -> list[tuple[str | None, str]]:
    """What ``table``, ``schema.table``, with or without backticks, may mean; names may have dots of their own."""
    parsed = NAME.fullmatch(declared)
    if parsed and "`" in declared:
        schema, name = (part[1:-1].replace("``", "`") if part and part[0] == "`" else part for part in parsed.groups())
        return [(schema, name)]
    schema, dot, name = declared.rpartition(".")
    return [(schema, name), (None, declared)] if dot else [(None, declared)]

"""What a PostgreSQL server says about a relation, without reading it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from engine.duck import literal
from engine.sources import Shared
from engine.sources.postgres_columns import MOMENTS, Column, described, ordered
from engine.sources.postgres_server import Inquiry, inquiry
from engine.sources.postgres_tables import Heap, filter_of, heap_of, plan_of, table_of, where
from engine.sources.relation import Probe, Relation

FACTS = """
SELECT current_setting('server_version') AS version, current_user::text AS name,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super,
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS ssl
"""
WRITES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
LOOPBACK = ("localhost", "::1", "")


def probe(relation: Relation) -> Probe:
    """Connects, and asks for what a read would; raises what it would raise."""
    with Shared() as shared, inquiry(relation, shared) as asked:
        table = table_of(relation)
        heap = heap_of(relation, asked, table)
        every = described(relation, asked.schema(f"SELECT * FROM {table}"))
        names = relation.chosen([column.name for column in every])
        columns = [column for column in every if column.name in names]
        cursor = next((column for column in every if column.name == relation.cursor), None)
        if cursor is not None:
            ordered(relation, cursor)
        condition = filter_of(relation, asked, table)
        sql = f"SELECT {', '.join(column.select for column in columns)} FROM {table}{where(condition)}"
        arriving = asked.schema(sql)
        asked.rows(f"{sql} LIMIT 0")
        facts = asked.row(FACTS)
        return Probe(
            f"PostgreSQL {facts['version']}",
            int(plan_of(asked, sql)["Plan Rows"]) if heap is None or heap.rows >= 0 else None,
            tuple((c.name, c.declared, _becomes(c, str(arriving.field(c.name).type))) for c in columns),
            tuple(_warnings(relation, asked, table, heap, cursor, facts)),
        )


def _becomes(column: Column, arrow: str) -> str:
    if column.type != "numeric":
        return arrow
    if column.precision is None:
        return "decimal of the scale its values need, else string"
    return f"decimal({column.precision}, {column.scale}), or string where there is NaN"


def _warnings(
    relation: Relation, asked: Inquiry, table: str, heap: Heap | None, cursor: Column | None, facts: dict[str, Any]
) -> Iterator[str]:
    user = facts["name"]
    read_only = f"a read-only role is safer: GRANT SELECT ON {relation.spec.table or '…'} TO it"
    if facts["super"]:
        yield f"{user} is a superuser; {read_only}"
    elif relation.spec.table is not None:
        asked_for = ", ".join(f"has_table_privilege(to_regclass({literal(table)}), '{w}') AS {w}" for w in WRITES)
        held = [name.upper() for name, may in asked.row(f"SELECT {asked_for}").items() if may]
        if held:
            yield f"{user} has write rights ({', '.join(held)}); {read_only}"
    if cursor is not None and cursor.type in MOMENTS and not facts["sees"]:
        yield (
            f"{user} cannot see the transactions of others, so rows committed late are found within lateness only: "
            f"GRANT pg_read_all_stats TO {user}"
        )
    if cursor is not None and heap is not None and not _indexed(asked, heap, cursor):
        yield f"no index begins with the cursor {cursor.name}, so each run looks at the whole table"
    if not facts["ssl"] and not _loopback(relation.url):
        yield "the connection is not encrypted: add sslmode=require to connection_string"
    if asked.snapshot.alone:
        yield f"all is read in one session, as no other can share its snapshot: {asked.snapshot.alone}"


def _indexed(asked: Inquiry, heap: Heap, cursor: Column) -> bool:
    attribute = heap.attributes[cursor.name]
    found = asked.row(
        f"SELECT count(*) AS n FROM pg_index WHERE indrelid = {heap.oid} AND indkey[0] = {attribute} AND indisvalid"
    )
    return bool(found["n"])


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in LOOPBACK or host.startswith(("127.", "/"))

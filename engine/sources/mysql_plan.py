"""How a relation of MySQL or MariaDB is cut into pieces, each of which is one query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import SourceError
from engine.sources.mysql_columns import BYTES, TEXTS, Column, Key, digest, guard, identifier, impossible, planned
from engine.sources.mysql_session import Session
from engine.sources.mysql_tables import Table
from engine.sources.relation import CHUNK_BYTES, CHUNK_ROWS, Relation

LIMIT_ROWS = 1_000_000  # of one query: its whole result is held in memory
LIMIT_BYTES = 512 * 2**20  # likewise
VALUE_BYTES = 8  # of a number or moment, about
HASH_ROWS = 250_000
TORN = "read in ranges, each of its own moment"


@dataclass(frozen=True)
class Piece:
    """Rows that are read at once.

    Attributes:
        number: in the order of the key.
        where: the condition of its rows, besides those of all pieces.
        mark: its bounds, if a later reading can find them again.
    """

    number: int
    where: str | None = None
    mark: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """How a relation is read.

    Attributes:
        table: what is read.
        columns: of it.
        where: the conditions of all pieces.
        rows: how many meet them; None: too many to have been counted before the read.
        pieces: which together have all those rows, each once.
        most: of ranges, how many rows they can have.
        ranged: whether the pieces are ranges of the table's key.
        hashed: whether they are parts by a hash of the row: a row that is changed meanwhile moves between them.
        digested: whether each row comes with its digest, as an additional last column.
        note: what is to be said about it.
    """

    table: Table
    columns: tuple[Column, ...]
    where: tuple[str, ...]
    rows: int | None
    pieces: tuple[Piece, ...] = (Piece(0),)
    most: int = 0
    ranged: bool = False
    hashed: bool = False
    digested: bool = False
    note: str | None = None

    def sql(self, piece: Piece, query: str | None) -> str:
        """The SELECT of a piece; ``query`` itself, where it is read as it stands, so that its ORDER BY counts."""
        plain = [column.select for column in self.columns] == [identifier(f.name) for f in self.table.fields]
        if query is not None and plain and not self.where:
            return query
        select = ", ".join(f"{column.select} AS {identifier(column.name)}" for column in self.columns)
        if self.digested:
            select += f", {digest(self.columns)} AS row_digest"
        source = self.table.forced if self.ranged else self.table.sql
        order = ""
        if self.table.key and self.ranged:  # qualified: by itself a name would mean the cast column
            order = " ORDER BY " + ", ".join(
                f"{self.table.sql}.{identifier(part.name)}" for part in self.table.key.parts
            )
        # The server would work out a view or query twice over: their dates are looked at before.
        guarded = guard(self.columns) if self.table.stored else None
        return f"SELECT {select} FROM {source}{_where(*self.where, piece.where, guarded)}{order}"

    def counting(self, piece: Piece | None = None) -> str:
        """The SELECT that counts the rows of all pieces, or one."""
        return f"SELECT COUNT(*) FROM {self.table.sql}{_where(*self.where, piece.where if piece else None)}"

    def count(self, session: Session, piece: Piece | None = None) -> int:
        """How many rows there are now, of all pieces or one."""
        return int(session.rows(self.counting(piece))[0][0])

    def sums(self, session: Session, piece: Piece) -> tuple[int, str]:
        """How many rows a range has now, and the sum of their digests."""
        ((rows, total),) = session.rows(
            f"SELECT COUNT(*), SUM({digest(self.columns)}) FROM {self.table.forced}{_where(*self.where, piece.where)}"
        )
        return int(rows), str(int(total or 0))


def plan_of(
    session: Session,
    relation: Relation,
    table: Table,
    names: Sequence[str],
    since: tuple[str, ...],
    bounds: Sequence[Sequence[str]] | None = None,
) -> Plan:
    """How the named columns are read.

    Args:
        session: to ask.
        relation: what is read.
        table: what it is.
        names: of the columns.
        since: conditions besides the declared ones.
        bounds: where an interrupted reading cut the key; it is cut there again, and further beyond. Only for ranges.

    Raises:
        SourceError: it cannot be read; nothing has been read yet.
    """
    columns = tuple(planned(relation, field) for field in table.fields if field.name in names)
    where = ((f"({relation.spec.filter}\n)",) if relation.spec.filter else ()) + since
    key = table.key if table.stored else None
    bounds = None if relation.spec.consistent else bounds
    last = _largest(session, table, key, bounds) if key else None
    upto = (f"({' OR '.join(filter(None, [key.upto(last), key.nulls]))})",) if key and last else ()
    plan = Plan(table, columns, (*where, *upto), None)
    known = bool(table.row_bytes) and not relation.spec.consistent
    if key is not None and last is not None and known:
        few = None if bounds is not None else _few(session, plan)
        found = _ranges(session, plan, key, last, bounds) if few is None else replace(plan, rows=few)
        if found is not None:
            return found
    rows = plan.count(session) if table.stored else check_dates(session, relation, plan)
    size = rows * table.row_bytes
    if key is None or not known:
        size = _bytes(session, table, columns, plan.where)
        plan = replace(plan, table=replace(table, row_bytes=-(-size // max(1, rows))))
    plan = replace(plan, rows=rows)
    fits = rows <= LIMIT_ROWS and size <= LIMIT_BYTES
    if bounds is None and rows <= _step(plan.table):
        return plan
    if relation.spec.consistent:
        if not fits:
            raise _too_much(relation, rows, size, "remove consistent, or read less with filter")
        return plan
    if key is not None and last is not None and not known:
        ranges = _ranges(session, plan, key, last, bounds)
        if ranges is not None:
            return ranges
    if fits:
        return plan
    if not table.stored:
        raise _too_much(relation, rows, size, "read a table with a key, or less with filter or query")
    return _hashed(session, relation, plan, rows)


def _step(table: Table) -> int:
    """The rows of a range."""
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(1, table.row_bytes)))


def _few(session: Session, plan: Plan) -> int | None:
    """How many rows there are; None: more than one range has."""
    step = _step(plan.table)
    some = f"SELECT 1 FROM {plan.table.sql}{_where(*plan.where)} LIMIT {step + 1}"
    rows = int(session.rows(f"SELECT COUNT(*) FROM ({some}) AS some_rows")[0][0])
    return rows if rows <= step else None


def _bytes(session: Session, table: Table, columns: Sequence[Column], where: Sequence[str]) -> int:
    """About how much the columns take in memory."""
    long = [column for column in columns if column.field.type in {*TEXTS, 245}]
    lengths = "".join(f", SUM(LENGTH({column.select}))" for column in long)
    ((rows, *sums),) = session.rows(f"SELECT COUNT(*){lengths} FROM {table.sql}{_where(*where)}")
    return int(rows) * VALUE_BYTES * (len(columns) - len(long)) + sum(int(total or 0) for total in sums)


def _largest(
    session: Session, table: Table, key: Key, bounds: Sequence[Sequence[str]] | None = None
) -> Sequence[str] | None:
    """The largest key there is, or was when ``bounds`` were found; rows above it are the next run's."""
    order = ", ".join(f"{identifier(part.name)} DESC" for part in key.parts)
    present = f"NOT ({key.nulls})" if key.nulls else None
    beyond = key.beyond(bounds[-1]) if bounds else None
    found = session.rows(f"SELECT {key.exact} FROM {table.forced}{_where(present, beyond)} ORDER BY {order} LIMIT 1")
    return key.literals(found[0]) if found else bounds[-1] if bounds else None


def _ranges(
    session: Session, plan: Plan, key: Key, last: Sequence[str], bounds: Sequence[Sequence[str]] | None
) -> Plan | None:
    """The plan in ranges of the table's key; None where too many rows have no key."""
    table = plan.table
    nulls = Piece(0, f"({key.nulls})", {"null": True}) if key.nulls else None
    alone = plan.count(session, nulls) if nulls else 0
    if alone > LIMIT_ROWS:
        return None
    present = f"NOT ({key.nulls})" if key.nulls else None
    step = _step(table)
    bounds = [list(upto) for upto in bounds or _even(session, key, plan, last)]
    while True:
        where = _where(*plan.where, present, key.beyond(bounds[-1]) if bounds else None)
        select = f"SELECT {key.exact} FROM {table.forced}{where} ORDER BY {key.order} LIMIT 1 OFFSET {step - 1}"
        found = session.rows(select)
        if not found:
            break
        bounds.append(key.literals(found[0]))
    if not bounds or bounds[-1] != list(last):
        bounds.append(list(last))
    pieces = []
    for number, upto in enumerate(bounds):
        before = bounds[number - 1] if number else None
        conditions = [present, key.beyond(before) if before else None, key.upto(upto)]
        mark = {"after": list(before) if before else None, "upto": list(upto)}
        pieces.append(Piece(number, " AND ".join(filter(None, conditions)), mark))
    if nulls:
        pieces.append(replace(nulls, number=len(pieces)))
    most = len(bounds) * step + alone
    return replace(plan, pieces=tuple(pieces), ranged=True, most=most, note=TORN if len(pieces) > 1 else None)


def _even(session: Session, key: Key, plan: Plan, last: Sequence[str]) -> list[list[str]]:
    """Bounds of an integer key with few gaps, calculated; none where the key has to be walked.

    However wrong the server's estimate is, no such range has more rows than one that was walked.
    """
    if len(plan.where) > 1 or key.nulls or len(key.parts) > 1 or not key.parts[0].type.endswith("int"):
        return []
    name = identifier(key.parts[0].name)
    ((least,),) = session.rows(f"SELECT CAST(MIN({name}) AS CHAR) FROM {plan.table.forced}")
    if least is None:
        return []
    low, high, step = int(least), int(last[0]), _step(plan.table)
    if (plan.table.rows_estimate or 0) < (high - low + 1) / 2:
        return []
    return [[str(upto)] for upto in range(low + step - 1, high, step)] + [list(last)]


def _hashed(session: Session, relation: Relation, plan: Plan, rows: int) -> Plan:
    """The plan in parts by a hash of the row, of about equal size."""
    values = []
    for field in plan.table.fields:
        name = identifier(field.name)
        values.append(f"HEX(LEFT({name}, 255))" if field.type in TEXTS or field.charset != BYTES else name)
    parts_ = max(2, math.ceil(rows / HASH_ROWS), math.ceil(rows * plan.table.row_bytes / CHUNK_BYTES / 4))
    part = f"MOD(CRC32(CONCAT_WS(',', {', '.join(values)})), {parts_})"
    sizes = session.rows(f"SELECT {part} AS part, COUNT(*) FROM {plan.table.sql}{_where(*plan.where)} GROUP BY part")
    if max((size for _, size in sizes), default=0) > LIMIT_ROWS:
        fix = "give the table a primary key: too many of its rows are alike"
        raise _too_much(relation, rows, 0, fix)
    return replace(
        plan,
        rows=sum(size for _, size in sizes),
        pieces=tuple(Piece(i, f"{part} = {i}") for i in range(parts_)),
        hashed=True,
        note=f"without a key it takes {parts_} scans, each of its own moment: rows changed while they were read may be "
        "missing or twice, which no count shows; give the table a primary key",
    )


def check_dates(session: Session, relation: Relation, plan: Plan) -> int:
    """The number of rows.

    Raises:
        SourceError: some have a date that no calendar has.
    """
    checks = [(column, check) for column in plan.columns if (check := impossible(column))]
    sums = "".join(f", SUM({check})" for _, check in checks)
    ((rows, *wrong),) = session.rows(f"SELECT COUNT(*){sums} FROM {plan.table.sql}{_where(*plan.where)}")
    for (column, _), count in zip(checks, wrong, strict=True):
        if count:
            name = identifier(column.name)
            raise relation.error(
                f"column {column.name!r} has zero or impossible dates in {count} rows, which cannot be read",
                code="source.unsupported_value",
                fix=f"query: SELECT …, CAST({name} AS CHAR) AS {name}; or NULLIF({name}, 0) AS {name} for zero dates",
            )
    return int(rows)


def _too_much(relation: Relation, rows: int, size: int, fix: str) -> SourceError:
    allowed = "any number of rows of a table with a primary or unique key; else up to the limit"
    if rows <= LIMIT_ROWS and size > LIMIT_BYTES:
        return relation.error(
            f"{rows} rows of about {size / 2**20:.1f} MiB are too large for one read (the limit is {LIMIT_ROWS} rows, "
            f"{LIMIT_BYTES >> 20} MiB)",
            code="source.too_large",
            allowed=allowed,
            fix=f"{fix}, or fewer columns",
        )
    return relation.error(
        f"{rows} rows are too many for one read (the limit is {LIMIT_ROWS} rows, {LIMIT_BYTES >> 20} MiB)",
        code="source.too_many_rows",
        allowed=allowed,
        fix=fix,
    )


def _where(*conditions: str | None) -> str:
    kept = [condition for condition in conditions if condition]
    return f" WHERE {' AND '.join(kept)}" if kept else ""

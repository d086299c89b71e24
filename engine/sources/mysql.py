"""MySQL and MariaDB: key ranges through connectorx, two at a time.

| relation                                  | read as                                                              |
|-------------------------------------------|----------------------------------------------------------------------|
| up to a chunk, ``consistent``, view, query| one query, hence of one moment; refused above ``LIMIT_ROWS``         |
| table with a primary or unique key        | ranges of that key, whatever its type, up to the largest there is    |
| table without a key, above ``LIMIT_ROWS`` | parts by a hash of the whole row: a scan of the table for each       |

Ranges are not of one moment: MySQL has no snapshot that several connections could share. Their rows are counted beside
the read in a snapshot of the moment before it and, if another number was read, after; that has to lie between the two
counts, else the reading fails and may be repeated. Only where the count before was read is the reading ``counted``;
parts by a hash never are: a row that is changed meanwhile moves between them. Without a bound of moments (see
mysql_cursor) rows beyond the largest cursor there is at first are the next reading's. Dates that no calendar has are
looked for by the very query that reads a table; before it, in a view or query.

The attempts of one run go on from landed ranges that have as many rows as then. Another run goes on too, within
``RESUME_SECONDS``, from ranges that are unchanged: the rows of a large table come with a digest that the server
computes of them, and the sum of a range's digests must be the same. Of a table below ``DIGEST_ROWS`` all is read anew,
which takes less time than its digests would. What is read of each type: see mysql_columns.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from engine.sources import Chunk, Promise, Request, Shared
from engine.sources.mysql_columns import (
    TEXTS,
    Column,
    check_cursor,
    comparable,
    compared,
    converted,
    planned,
    too_early,
)
from engine.sources.mysql_cursor import Bound, bound_of
from engine.sources.mysql_plan import LIMIT_ROWS, Piece, Plan, check_dates, plan_of
from engine.sources.mysql_session import GRACE_SECONDS, Beside, Bulk, Field, Session, Unreadable, stalled
from engine.sources.mysql_tables import Table, described
from engine.sources.relation import CHUNK_ROWS, Probe, Relation, parts
from engine.sources.threads import Stalled, Threads

RESUME_SECONDS = 3600
DIGEST_ROWS = 2_000_000
WRITES = re.compile(r"\b(ALL PRIVILEGES|INSERT|UPDATE|DELETE|DROP|ALTER|CREATE|TRUNCATE)\b")


@contextmanager
def open_reading(relation: Relation, request: Request, _: Shared) -> Iterator[MySQLReading]:
    """One reading; see the module's text."""
    with ExitStack() as stack:
        with Session(relation) as session:
            opened = MySQLReading(relation, request, session, stack)
        yield opened


class MySQLReading:
    """See `engine.sources.Reading`."""

    def __init__(self, relation: Relation, request: Request, session: Session, stack: ExitStack) -> None:
        self._relation, self._stack, self._settings = relation, stack, session.settings
        self.trace: Mapping[str, Any] | None = None
        self.bound: datetime | None = None
        self.seal: Mapping[str, Any] | None = None
        self.kept: frozenset[int] = frozenset()
        self._kept_rows = 0
        notes: list[str] = []
        table = described(session, relation)
        names = relation.chosen([field.name for field in table.fields])
        bound = Bound()
        since: tuple[str, ...] = ()
        if relation.cursor is not None:
            field = next(field for field in table.fields if field.name == relation.cursor)
            check_cursor(relation, field)
            bound = bound_of(session, field)  # before anything that is read
            self.bound = bound.at
            notes += [bound.note] if bound.note else []
            since = (compared(field, ">=", request.since),) if request.since is not None else ()
        select = _fingerprint(relation, table, names, since)
        if relation.cursor is not None and self.bound is None:
            since += _cap(session, table, field)
        begun = datetime.now(UTC).isoformat()
        if request.seal is not None and request.landed and _holds(request.seal, select):
            self._plan = plan_of(session, relation, table, names, since, request.seal["bounds"])
            self._keep(session, request)
        if self.kept and request.seal is not None:
            begun = request.seal["at"]
            if request.seal["token"] != relation.token:
                notes.append(
                    f"{len(self.kept)} ranges were kept that had landed since {begun}: the server's checksums of them "
                    "are still the same"
                )
        else:
            self._plan = plan_of(session, relation, table, names, since)
        if self._plan.ranged:
            self._plan = replace(self._plan, digested=self._plan.most >= DIGEST_ROWS)
            self.seal = {
                "bounds": [piece.mark["upto"] for piece in self._plan.pieces if piece.mark and "upto" in piece.mark],
                "select": select,
                "table": relation.spec.table,
                "at": begun,
                "token": relation.token,
            }
        self.promise = Promise(
            snapshot="one" if len(self._plan.pieces) == 1 else "per_chunk",
            late_commits=None if relation.cursor is None else "none_missed" if bound.proven else "within_lateness",
            note="; ".join([*([self._plan.note] if self._plan.note else []), *notes]) or None,
        )

    def _keep(self, session: Session, request: Request) -> None:
        """Those of the landed pieces whose range still has the same rows; of this run's own, as many."""
        kept = set()
        own = request.seal is not None and request.seal["token"] == self._relation.token
        pieces = {piece.number: piece for piece in self._plan.pieces} if self._plan.ranged else {}
        for landed in request.landed:
            piece, mark = pieces.get(landed.number), dict(landed.mark)
            total = mark.pop("sum", None)
            mark.pop("at", None)
            if piece is None or mark != piece.mark or (total is None and not own):
                continue
            if own:
                same = landed.rows == self._plan.count(session, piece)
            else:
                same = (landed.rows, total) == self._plan.sums(session, piece)
            if same:
                kept.add(landed.number)
                self._kept_rows += landed.rows
        self.kept = frozenset(kept)

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        left = [piece for piece in self._plan.pieces if piece.number not in self.kept]
        read = before = after = 0
        for item in self._checked(self._plan, left, self._kept_rows):
            if isinstance(item, Chunk):
                yield item
            else:
                read, before, after = item
        counted, note = before == read, self.promise.note
        if not counted:
            told = f"{read} rows were read; the database counted {before} before and {after} after"
            note = f"{note}; {told}" if note else told
        self.promise = replace(self.promise, counted=counted and not self._plan.hashed, note=note)

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """See `engine.sources.Reading.keys`."""
        with Session(self._relation) as session:
            table = described(session, self._relation)
            plan = plan_of(session, self._relation, table, columns, ())
        for item in self._checked(plan, plan.pieces, 0):
            if isinstance(item, Chunk):
                yield item

    def _checked(self, plan: Plan, pieces: Sequence[Piece], kept: int) -> Iterator[Chunk | tuple[int, int, int]]:
        """The chunks of pieces; in the end, the number of rows read, of those there were before, and of those after."""
        relation = self._relation
        read = kept
        with ExitStack() as stack:
            counting = None
            if plan.rows is None:  # of the moment before the first piece is read, though worked out meanwhile
                counting = stack.enter_context(closing(Beside(relation, plan.counting())))
            chunks = stack.enter_context(closing(self._pieces(plan, pieces)))
            self._stack.callback(stack.close)
            for chunk in chunks:
                read += chunk.rows or 0
                yield chunk
                if counting is not None:
                    counting.check()
            before = after = int(counting.rows()[0][0]) if counting is not None else plan.rows or 0
        if read != before:
            with Session(relation) as session:
                after = plan.count(session)
        if not min(before, after) <= read <= max(before, after):
            raise relation.error(
                f"{read} rows were read where the database counts {after}, and {before} before",
                code="source.lost_rows",
                fix="read again while less is written to it, or with consistent: true; if it stays so, report it",
                transient=True,
            )
        yield read, before, after

    def _pieces(self, plan: Plan, pieces: Sequence[Piece]) -> Generator[Chunk]:
        relation = self._relation
        threads: Threads[Bulk, Piece] = Threads(
            lambda: nullcontext(Bulk(relation, self._settings)),
            lambda bulk, piece: _read(relation, plan, bulk, piece),
            cancel=Bulk.stop,
            deadline=relation.spec.timeout_seconds + GRACE_SECONDS,
        )
        try:
            yield from threads.chunks(pieces)
        except Stalled:
            raise stalled(relation, relation.spec.timeout_seconds + GRACE_SECONDS) from None
        except Unreadable as unreadable:
            with Session(relation) as session:
                check_dates(session, relation, plan)
            raise relation.error(
                f"a value cannot be read: {unreadable}",
                code="source.unsupported_value",
                fix="read the column it is in as text with query: SELECT …, CAST(column AS CHAR) AS column",
            ) from None


def _read(relation: Relation, plan: Plan, bulk: Bulk, piece: Piece) -> Iterator[Chunk]:
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    at = datetime.now(UTC).isoformat()
    table = bulk.table(plan.sql(piece, relation.spec.query))
    mark = None
    if piece.mark is not None:
        mark = {**piece.mark, "at": at}
    if plan.digested and mark is not None:
        digests = table.column(table.num_columns - 1)
        total = None if digests.null_count else str(pc.sum(digests).as_py() or 0)
        mark["sum"] = total
        table = table.select(range(table.num_columns - 1))
    table = converted(relation, plan.columns, table)
    if too_early(plan.columns, table):
        raise Unreadable("a date before the year 1")
    origin = f"{relation.location} {relation.spec.table or 'query'}"
    if len(plan.pieces) > 1:
        origin += f" {'range' if plan.ranged else 'part'} {piece.number + 1} of {len(plan.pieces)}"
    batches = table.to_batches(max_chunksize=CHUNK_ROWS) or [pa.RecordBatch.from_pylist([], table.schema)]
    del table
    for number, (group, last) in enumerate(parts(batches)):
        frame = pl.DataFrame(pa.Table.from_batches(group))
        yield Chunk(piece.number, origin, frame.lazy(), frame.height, part=number, last=last, mark=mark)


def _cap(session: Session, table: Table, cursor: Field) -> tuple[str, ...]:
    """The condition of the rows up to the largest cursor there is.

    Without it a later range could show a larger cursor than a row that comes into an earlier range after that was read.
    """
    ((largest,),) = session.rows(f"SELECT MAX({comparable(cursor)}) FROM {table.sql}")
    return () if largest is None else (compared(cursor, "<=", largest),)


def _fingerprint(relation: Relation, table: Table, names: Sequence[str], since: Sequence[str]) -> str:
    told = [
        relation.location,
        table.sql,
        table.key and repr(table.key),
        relation.spec.filter,
        relation.spec.consistent,
        since,
    ]
    told.append([repr(field) for field in table.fields if field.name in names])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _holds(seal: Mapping[str, Any], select: str) -> bool:
    """Whether a reading can go on from there: it read the same, not long ago."""
    if seal.get("select") != select:
        return False
    age = (datetime.now(UTC) - datetime.fromisoformat(seal["at"])).total_seconds()
    return 0 <= age < RESUME_SECONDS


def probe(relation: Relation) -> Probe:
    """What the server says about the relation, without reading it."""
    with Session(relation) as session:
        table = described(session, relation)
        names = relation.chosen([field.name for field in table.fields])
        if relation.cursor is not None:
            field = next(field for field in table.fields if field.name == relation.cursor)
            check_cursor(relation, field)
        columns = [planned(relation, field) for field in table.fields if field.name in names]
        warnings = []
        grants = {
            match[1] for (grant,) in session.rows("SHOW GRANTS") for match in WRITES.finditer(grant.split(" ON ")[0])
        }
        if grants:
            warnings.append(f"the user may write ({', '.join(sorted(grants))}); SELECT is enough to read")
        if relation.cursor is not None:
            why = bound_of(session, field).note
            if why:
                warnings.append(why)
            if field.type in TEXTS:
                warnings.append(f"the cursor {field.name} is text, which is compared byte by byte: no index helps")
            elif table.stored and field.name not in table.indexed:
                warnings.append(f"no index begins with the cursor {field.name}: each run scans the whole table")
        if table.stored and table.key is None:
            warnings.append(f"no primary or unique key: above {LIMIT_ROWS} rows it takes several scans")
    arrives = ((c.name, table.declared.get(c.name, f"type {c.field.type}"), _arrow_name(c)) for c in columns)
    server = session.version if session.mariadb else f"MySQL {session.version}"
    return Probe(server, table.rows_estimate, tuple(arrives), tuple(warnings))


def _arrow_name(column: Column) -> str:
    import polars as pl
    import pyarrow as pa

    return str(pl.DataFrame(pa.table({"c": pa.array([], column.arrow)})).dtypes[0])

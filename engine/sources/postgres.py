"""PostgreSQL through ADBC (binary COPY): one snapshot, in pieces, in bounded memory.

All readings of a run with the same connection string are of one moment: one session exports its snapshot, the others
read it. A plain table is read in ranges of its blocks, two at a time, whatever its keys; views, queries and what an
index finds sooner are one stream.

An interrupted reading goes on in a *new* snapshot, and its result is still of one moment, the new one: a landed range
of blocks is kept only if nothing in it changed. Each row there in the new snapshot must have been written by a
transaction below the old snapshot's xmin. Such a transaction had ended before the old snapshot, so the old reading
saw the row too, unless it had been deleted before, and then it would not be there now. So the rows there now are among
those landed; and as they are as many, they are those. Rewriting the table (VACUUM FULL, CLUSTER, TRUNCATE) changes its
file node, and then nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from engine.duck import identifier
from engine.errors import SourceError
from engine.sources import Chunk, Landed, Promise, Reading, Request, Shared
from engine.sources import reading as worded
from engine.sources.adbc import FAILURES, Session
from engine.sources.postgres_columns import (
    MOMENTS,
    Column,
    Unkept,
    asked,
    converted,
    described,
    ordered,
    refused,
    settled,
)
from engine.sources.postgres_probe import probe as probe
from engine.sources.postgres_server import Inquiry, deadline, failure, inquiry, stalled
from engine.sources.postgres_tables import (
    Piece,
    filter_of,
    heap_of,
    literal_of,
    pieces_of,
    ranges,
    table_of,
    where,
)
from engine.sources.relation import Relation, no_rows, parts
from engine.sources.threads import Stalled, Threads
from engine.spec import secrets_of

BATCHES = {"adbc.postgresql.batch_size_hint_bytes": str(4 * 2**20)}
TEXTS = ("text", "varchar", "bpchar")
# Conditions that may mean something else at another moment: those that call functions, or name the present.
UNSTEADY = re.compile(r"(?i)\b(?!(?:in|and|or|not|any|all|between|like|is)\b)\w+\s*\(|current_|localtime|session_user|'(now|today|tomorrow|yesterday)")  # fmt: skip # noqa: E501


@contextmanager
def open_reading(relation: Relation, request: Request, shared: Shared) -> Iterator[Reading]:
    """See `engine.sources.Source.open`."""
    with inquiry(relation, shared) as asked:
        yield PostgresReading(relation, request, asked)


class PostgresReading:
    """See `engine.sources.Reading`."""

    def __init__(self, relation: Relation, request: Request, asked: Inquiry) -> None:
        self._relation, self._asked, self._snapshot = relation, asked, asked.snapshot
        self._table = table_of(relation)
        self._heap = heap_of(relation, asked, self._table)
        every = described(relation, asked.schema(f"SELECT * FROM {self._table}"))
        names = relation.chosen([column.name for column in every])
        self._columns = [column for column in every if column.name in names]
        self._filter = filter_of(relation, asked, self._table)
        self.bound: datetime | None = None
        self.trace: Mapping[str, Any] | None = None
        self.promise = Promise("one", self._snapshot.name, note="; ".join(self._notes()) or None)
        self._condition = self._filter
        cursor = next((c for c in every if c.name == relation.cursor), None)
        if cursor is not None:
            ordered(relation, cursor)
        self._cursor(cursor, request)
        self._count = self._settle()
        self._pieces = self._cut(self._condition)
        self.seal: Mapping[str, Any] | None = None
        self.kept: frozenset[int] = frozenset()
        self._landed = {landed.number: landed.rows for landed in request.landed}
        if self._pieces[0].blocks is not None:
            self._resume(request)

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        pieces = [piece for piece in self._pieces if piece.number not in self.kept]
        known = sum(self._landed[number] for number in self.kept)
        yield from self._read(self._columns, self._condition, pieces, known, self._count)
        self.promise = replace(self.promise, counted=True)
        self._snapshot.used = True

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """See `engine.sources.Reading.keys`."""
        chosen = [column for column in self._columns if column.name in columns]
        yield from self._read(chosen, self._filter, self._cut(self._filter), 0, None)

    def _read(
        self, columns: Sequence[Column], condition: str, pieces: Sequence[Piece], known: int, count: int | None
    ) -> Iterator[Chunk]:
        """The rows of the pieces; with those ``known`` they must be as many as the database counts."""
        relation = self._relation
        counted = (
            self._asked.beside(f"SELECT count(*) AS n FROM {self._table}{where(condition)}")
            if count is None
            else lambda: {"n": count}
        )
        threads: Threads[Session, Piece] = Threads(
            self._asked.join,
            lambda session, piece: self._piece(session, columns, condition, piece),
            cancel=Session.give_up,
            workers=1 if self._snapshot.exported is None else 2,
            deadline=deadline(relation),
        )
        read = known
        try:
            for chunk in threads.chunks(pieces):
                read += chunk.rows or 0
                yield chunk
        except Stalled:
            raise stalled(relation) from None
        expected = counted()["n"]
        if read != expected:
            raise relation.error(
                f"{read} rows were read where the database counts {expected}",
                code="source.lost_rows",
                fix="read again; if it stays so, report it",
                transient=True,
            )

    def _piece(self, session: Session, columns: Sequence[Column], condition: str, piece: Piece) -> Iterator[Chunk]:
        """The chunks of a piece; called in a thread."""
        import polars as pl

        relation = self._relation
        selected = ", ".join(column.select for column in columns)
        place = f"{relation.location} {relation.spec.table or 'query'}"
        mark = None
        if piece.blocks is not None:
            first, end = piece.blocks
            place += f" blocks {first}-{'' if end is None else end - 1}"
            mark = {"blocks": [first, end], "xmin": self._snapshot.xmin}
        try:
            sql = f"SELECT {selected} FROM {self._table}{where(condition, piece.condition)}"
            with session.query(sql, **BATCHES) as reader:
                for part, (group, last) in enumerate(parts(self._converted(reader))):
                    origin = f"{place} part {part + 1}" if part or not last else place
                    with worded(origin, relation.name, secrets_of(relation.spec)):
                        frame = pl.DataFrame(pa.Table.from_batches(group))
                    del group
                    yield Chunk(piece.number, origin, frame.lazy(), frame.height, False, part, last, mark)
        except Unkept as found:
            raise self._unkept(session, found.column, condition) from None
        except FAILURES as error:
            raise failure(relation, error) from None

    def _converted(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        decimal = {column.name: column.decimal for column in self._columns}
        target = pa.schema([field.with_type(decimal[field.name] or field.type) for field in reader.schema])
        target = target.remove_metadata()
        batch = None
        for batch in reader:
            yield converted(batch, target)
        if batch is None:
            yield no_rows(target)

    def _unkept(self, session: Session, column: str, condition: str) -> SourceError:
        name = identifier(column)
        infinite = f"SELECT count(*) AS n FROM {self._table}{where(condition, f'NOT isfinite({name})')}"
        try:
            rows = session.rows(infinite)[0]["n"]
        except FAILURES as error:
            return failure(self._relation, error)
        if not rows:
            return self._relation.error(
                f"column {column!r} holds dates that are out of range, which cannot be kept",
                code="source.infinite_date",
                fix=f"read them as text with query: SELECT …, {column}::text AS {column}",
            )
        return self._relation.error(
            f"column {column!r} holds infinite dates ({rows} rows), which cannot be kept",
            code="source.infinite_date",
            fix=f"replace them with query: SELECT …, NULLIF(NULLIF({column}, 'infinity'), '-infinity') AS {column}",
        )

    def _notes(self) -> Iterator[str]:
        if self._asked.later:
            yield "read at another moment than the sources before it: their session was lost"
        if self._snapshot.alone:
            yield f"read in one session, as no other can share its snapshot: {self._snapshot.alone}"

    def _cursor(self, column: Column | None, request: Request) -> None:
        """Adds the cursor's condition, and sets what can be vouched for."""
        if column is None:
            return
        moments, horizon = column.type in MOMENTS, self._snapshot.horizon
        name = identifier(column.name)
        late, note = False, ""
        if moments:
            self.bound = self._snapshot.bound(wall=column.type != "timestamptz")
            if horizon["standby"]:
                late, note = True, "a standby does not see the transactions that are open on its primary"
            elif horizon["hidden"]:
                late = True
                note = (
                    f"{horizon['hidden']} sessions of others cannot be seen into: GRANT pg_read_all_stats TO the user"
                )
            elif horizon["prepared"]:
                late, note = True, f"since when {horizon['prepared']} prepared transactions are open cannot be seen"
            elif column.type != "timestamptz":
                note = f"{column.name} has no time zone: writers need lateness whose sessions set one west of UTC"
                note += " that is of no role, no database and not the server's"
        else:
            xmin = self._late_from(request.trace)
            if self._heap is None:
                late, note = True, f"only tables tell which rows were committed late; {column.name} is no moment"
            else:
                self.trace = {"oid": self._heap.oid, "xmin": self._snapshot.xmin}
                late = request.since is not None and xmin is None
                note = (
                    "what was committed late since the last read cannot be told: it read another table" if late else ""
                )
        if request.since is not None:
            collated = ' COLLATE "C"' if column.type in TEXTS else ""  # the order in which the largest was found
            conditions = [f"{name}{collated} >= {literal_of(request.since)}", f"{name} IS NULL"]
            if not moments and xmin is not None:
                conditions.append(f"{self._snapshot.xid} >= {xmin}")
            both = (self._filter, f"({' OR '.join(conditions)})")
            self._condition = " AND ".join(condition for condition in both if condition)
        notes = "; ".join(text for text in (self.promise.note, note) if text)
        self.promise = replace(
            self.promise, late_commits="within_lateness" if late else "none_missed", note=notes or None
        )

    def _late_from(self, trace: Mapping[str, Any] | None) -> int | None:
        """The transaction from which on rows may not have been seen by the last reading, where that can be told."""
        if trace is None or self._heap is None or trace["oid"] != self._heap.oid or trace["xmin"] > self._snapshot.xmin:
            return None
        return int(trace["xmin"])

    def _settle(self) -> int | None:
        """Decides what columns become by their values; the number of rows, where the same look gave it.

        With a cursor, a numeric without a scale, or of a key, is as all rows need it, not only the new ones.
        """
        spec = self._relation.spec
        doubtful = [column for column in self._columns if column.doubtful]
        keys = {spec.in_source(key) for key in spec.deduplicate.keys} if spec.deduplicate else set()
        wide = {c.name for c in doubtful if self._condition != self._filter and (c.precision is None or c.name in keys)}
        known: dict[str, Column] = {}
        count = None
        for condition, columns in (
            (self._filter, [column for column in doubtful if column.name in wide]),
            (self._condition, [column for column in doubtful if column.name not in wide]),
        ):
            if columns:
                row = self._asked.row(f"SELECT {asked(columns)} FROM {self._table}{where(condition)}")
                known |= {column.name: column for column in settled(columns, row)}
                count = row["n"] if condition == self._condition else None
        self._columns = [known.get(column.name, column) for column in self._columns]
        cursor = next((c for c in self._columns if c.name == self._relation.cursor), None)
        if cursor is not None and cursor.type == "numeric" and cursor.decimal is None:
            raise refused(self._relation, "holds NaN, infinity or more than 38 digits, so that it arrives as text")
        return count

    def _cut(self, condition: str) -> list[Piece]:
        return pieces_of(self._asked, self._table, self._heap, condition)

    def _resume(self, request: Request) -> None:
        """Seals this reading; of the one that the request continues, keeps what has not changed since."""
        heap, filter_ = self._heap, self._relation.spec.filter
        if heap is None or (filter_ is not None and UNSTEADY.search(filter_)):
            return
        columns = [[c.select, c.type, heap.attributes.get(c.name), str(c.decimal)] for c in self._columns]
        late_from = self._late_from(request.trace)
        asked = json.dumps([columns, filter_, self._relation.cursor, str(request.since), late_from])
        seal = {
            "oid": heap.oid,
            "filenode": heap.filenode,
            "select": hashlib.sha256(asked.encode()).hexdigest(),
            "step": heap.step,
            "pieces": len(self._pieces),
        }
        old = request.seal or {}
        if all(old.get(key) == seal[key] for key in ("oid", "filenode", "select")):
            self._pieces = ranges(heap, old["step"], old["pieces"])
            seal |= {"step": old["step"], "pieces": len(self._pieces)}
            self.kept = frozenset(landed.number for landed in request.landed if self._holds(landed))
        self.seal = seal

    def _holds(self, landed: Landed) -> bool:
        """Whether a landed piece is what a reading of it would give now."""
        piece = next((piece for piece in self._pieces if piece.number == landed.number), None)
        if piece is None or piece.blocks is None or list(piece.blocks) != landed.mark["blocks"]:
            return False
        now = self._asked.row(
            f"SELECT count(*) AS n, max({self._snapshot.xid}) AS newest "
            f"FROM {self._table}{where(self._condition, piece.condition)}"
        )
        return bool(now["n"] == landed.rows and (now["newest"] is None or now["newest"] < landed.mark["xmin"]))

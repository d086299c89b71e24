"""A database that is a file: one connection in one transaction, read in pieces, resumed while the file is unchanged.

The file is looked at by ``stat`` only. Opening it beside the database's library would, once closed, release all locks
of this process on it (POSIX), hence a writer could change what is being read.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import polars as pl
import pyarrow as pa

from engine.sources import Chunk, Promise, Request, reading
from engine.sources.relation import CHUNK_ROWS, Relation, parts
from engine.sources.threads import JOIN_SECONDS, Stalled, Threads, within
from engine.spec import secrets_of

C = TypeVar("C")
T = TypeVar("T")

GIVEN_UP_SECONDS = 0.2  # for the connection to be closed that was in the middle of a call
PIECES = 1000  # at most, so that the marks of a large table stay small
TICK_NS = 20_000_000  # file times are this coarse: a file changed since may look unchanged
CLOCK_HOURS = 4  # in which a clock that is to be set back is
LATENESS_NOTE = "a writer that chooses the cursor's value long before it commits needs lateness"


@dataclass(frozen=True)
class Piece:
    """The ``rows`` rows whose rowid is from ``first`` to ``last``; None: no bound."""

    number: int
    rows: int
    first: int | None = None
    last: int | None = None

    @property
    def mark(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"rowid": [self.first, self.last]}

    def condition(self, rowid: str) -> str | None:
        """SQL that holds for the piece's rows; None: it is all rows."""
        ends = [(">=", self.first), ("<=", self.last)]
        return " AND ".join(f"{rowid} {sign} {end}" for sign, end in ends if end is not None) or None


def cut(ends: Iterable[tuple[int, int]], rows: int) -> list[Piece]:
    """Pieces that together are all ``rows``; of each but the last one the last rowid is given, and how many rows."""
    pieces: list[Piece] = []
    first = None
    for last, count in ends:
        pieces.append(Piece(len(pieces), count, first, last))
        first, rows = last + 1, rows - count
    return [*pieces, Piece(len(pieces), rows, first)]


def piece_rows(rows: int) -> int:
    """How many rows a piece of a table of ``rows`` has."""
    return max(CHUNK_ROWS, -(-rows // PIECES))


def where(*conditions: str | None) -> str:
    """The WHERE clause of all ``conditions``; blank without any."""
    given = " AND ".join(condition for condition in conditions if condition)
    return f" WHERE {given}" if given else ""


def filtered(relation: Relation) -> str | None:
    """The declared filter; the line break keeps a closing comment from swallowing the rest."""
    return f"({relation.spec.filter}\n)" if relation.spec.filter else None


def refused_cursor(relation: Relation, message: str, fix: str) -> Exception:
    """The cursor cannot be one."""
    return relation.error(f"the cursor {relation.cursor!r} {message}", code="source.cursor", fix=fix)


def present(*, wall: bool) -> datetime:
    """What is committed later has no earlier moment, unless its writer chose it long before; take it before reading.

    Args:
        wall: of moments without a zone: the least that this machine's clock, or one in UTC, will show from now on. A
            clock may be set back in the next hours.
    """
    now = datetime.now(UTC) - timedelta(seconds=1)
    if not wall:
        return now
    quarter = int(now.timestamp()) // 900
    ahead = [datetime.fromtimestamp((quarter + i) * 900).astimezone() for i in range(1, CLOCK_HOURS * 4 + 1)]
    return min(now, *(moment.replace(tzinfo=UTC) for moment in (now.astimezone(), *ahead)))


def database_path(relation: Relation) -> Path:
    """The file that the connection string names."""
    scheme, _, rest = relation.url.partition("://")
    text = rest.removeprefix("/")
    allowed = f"{scheme}:///path relative to the pipeline file, {scheme}:////absolute/path"
    if text in ("", ":memory:"):
        raise relation.error(
            "the connection string names no database file",
            code="source.missing_file",
            allowed=allowed,
            fix="add the path of the file",
        )
    path = relation.base / Path(text).expanduser()
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise relation.error(
            f"the database file {path} {what}",
            code="source.missing_file",
            allowed=allowed,
            fix="correct the path in connection_string",
        )
    return path


class Connection(Generic[C]):
    """A connection that is used in threads only, by one at a time, so that its caller never hangs with it.

    Args:
        opened: gives the native connection.
        interrupt: makes its current call fail soon, where it can.
        failures: the driver's errors.
        worded: what is raised instead of one.
    """

    def __init__(
        self,
        relation: Relation,
        opened: Callable[[], C],
        *,
        interrupt: Callable[[C], object],
        failures: tuple[type[Exception], ...],
        worded: Callable[[Exception], Exception],
    ) -> None:
        self.relation, self._opened, self._interrupt = relation, opened, interrupt
        self._failures: tuple[type[Exception], ...] = (Stalled, *failures)
        self._words = worded
        self._native: C | None = None
        self._lock = threading.Lock()
        self._streams: list[Iterator[Chunk]] = []

    def call(self, use: Callable[[C], T]) -> T:
        """What ``use`` makes of the native connection."""

        def used() -> T:
            with self._lock:
                if self._native is None:
                    self._native = self._opened()
                return use(self._native)

        try:
            return within(self.relation.spec.timeout_seconds, used)
        except self._failures as error:
            raise self._worded(error) from None

    def stream(self, pieces: Sequence[Piece], batches: Callable[[Piece], Iterator[pa.RecordBatch]]) -> Iterator[Chunk]:
        """The chunks of the pieces; ``batches`` gives at least one batch of each."""
        chunks = self._chunks(pieces, batches)
        self._streams.append(chunks)
        return chunks

    def _chunks(self, pieces: Sequence[Piece], batches: Callable[[Piece], Iterator[pa.RecordBatch]]) -> Iterator[Chunk]:
        relation = self.relation
        origin = f"{relation.location} {relation.spec.table or 'query'}"

        def read(_: None, piece: Piece) -> Iterator[Chunk]:
            with self._lock:
                done = 0
                for part, (group, last) in enumerate(parts(batches(piece))):
                    with reading(origin, relation.name, secrets_of(relation.spec)):
                        frame = pl.DataFrame(pa.Table.from_batches(group))
                    place = f" rows {done}-{done + frame.height - 1}" if frame.height else ""
                    place += f" from rowid {piece.first}" if piece.first is not None else ""
                    done += frame.height
                    yield Chunk(piece.number, origin + place, frame.lazy(), frame.height, part=part, last=last)

        threads = Threads[None, Piece](
            nullcontext,
            read,
            cancel=lambda _: self._interrupted(),
            workers=1,
            deadline=relation.spec.timeout_seconds,
        )
        try:
            yield from threads.chunks(pieces)
        except self._failures as error:
            raise self._worded(error) from None

    def close(self) -> None:
        """At once; a thread that does not answer closes the connection when it does."""
        for stream in self._streams:
            cast("Any", stream).close()

        def closed() -> None:
            with self._lock:
                if self._native is not None:
                    cast("Any", self._native).close()

        busy = self._interrupted()
        with suppress(Stalled):
            within(GIVEN_UP_SECONDS if busy else JOIN_SECONDS, closed)

    def _interrupted(self) -> bool:
        """Whether there is a call, which is made to fail soon."""
        busy = self._lock.locked()
        if busy and self._native is not None:
            with suppress(*self._failures):  # it may be closed already
                self._interrupt(self._native)
        return busy

    def _worded(self, error: Exception) -> Exception:
        if isinstance(error, Stalled):
            seconds = self.relation.spec.timeout_seconds
            return self.relation.error(
                f"{self.relation.location} gave nothing within {seconds:g} seconds",
                code="source.timeout",
                fix="raise timeout_seconds, or read less",
                transient=True,
            )
        return self._words(error)


@dataclass(frozen=True)
class Plan:
    """What is to be read.

    Attributes:
        rows: how many rows the database counts.
        select: all that the values of a piece depend on, the file aside; None: its pieces cannot be read again.
        batches: the rows of a piece; at least one batch, which may be empty.
        keys: of these columns, all rows.
        bound: with a cursor that may hold moments: those that are committed later are at least this.
    """

    rows: int
    pieces: Sequence[Piece]
    select: str | None
    batches: Callable[[Piece], Iterator[pa.RecordBatch]]
    keys: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    bound: datetime | None = None


@dataclass
class FileReading:
    """One reading of a relation in a database file; see `engine.sources.Reading`.

    Attributes:
        steady: raises where the file has changed although it must not while it is read.
    """

    connection: Connection[Any]
    plan: Plan
    promise: Promise
    seal: Mapping[str, Any] | None
    landed: Mapping[int, int]
    steady: Callable[[], None]
    bound: datetime | None = None
    trace: Mapping[str, Any] | None = None
    kept: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = frozenset(self.landed)

    def chunks(self) -> Iterator[Chunk]:
        """See `Reading.chunks`."""
        plan, relation = self.plan, self.connection.relation
        read = sum(self.landed.values())
        marks = {piece.number: piece.mark if self.seal else None for piece in plan.pieces}
        pieces = [piece for piece in plan.pieces if piece.number not in self.kept]
        for chunk in self.connection.stream(pieces, plan.batches):
            read += chunk.rows or 0
            yield replace(chunk, mark=marks[chunk.number])
        self.steady()
        if read != plan.rows:
            raise relation.error(
                f"{read} rows were read where the database counts {plan.rows}",
                code="source.lost_rows",
                fix="read again while nothing writes to it; if it stays so, report it",
                transient=True,
            )

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """See `Reading.keys`."""
        yield from self.connection.stream([Piece(0, self.plan.rows)], lambda _: self.plan.keys(columns))
        self.steady()


@contextmanager
def open_file(
    connection: Connection[C],
    path: Path,
    request: Request,
    plan: Callable[[C], Plan],
    *,
    wal: str,
    changes: bool,
) -> Iterator[FileReading]:
    """A reading of the database file ``path``.

    Args:
        plan: begins the transaction.
        wal: the suffix of the file of what is committed, but not yet in ``path``.
        changes: whether others may write while the transaction lasts.
    """
    files = (path, path.with_name(path.name + wal))
    try:
        before = _settled(files)
        planned = connection.call(plan)
        seal = None
        if planned.select is not None and before is not None and before == _state(files):
            seal = {"files": before, "select": hashlib.sha256(planned.select.encode()).hexdigest()}
        whole = {(piece.number, piece.rows): piece.mark for piece in planned.pieces}
        same = seal is not None and request.seal == seal
        landed = {p.number: p.rows for p in request.landed if same and p.mark == whole.get((p.number, p.rows))}
        cursor = connection.relation.cursor
        promise = Promise(
            snapshot="one",
            counted=True,
            late_commits="none_missed" if cursor else None,
            note=LATENESS_NOTE if cursor else None,
        )
        began = _state(files)

        def steady() -> None:
            if not changes and _state(files) != began:
                raise connection.relation.error(
                    f"{path} was written to while it was read", code="source.changed", fix="run again", transient=True
                )

        yield FileReading(connection, planned, promise, seal, landed, steady, planned.bound)
    finally:
        connection.close()


def _state(files: Iterable[Path]) -> list[list[int] | None]:
    """Size, time and inode of each; None where a file is not there or blank. JSON-ready."""
    found: list[list[int] | None] = []
    for path in files:
        try:
            stat = path.stat()
        except FileNotFoundError:
            found.append(None)
            continue
        found.append([stat.st_size, stat.st_mtime_ns, stat.st_ino] if stat.st_size else None)
    return found


def _settled(files: Iterable[Path]) -> list[list[int] | None] | None:
    """Their state, once a change from now on would show in it; None where they change all the time."""
    for _ in range(2):
        state = _state(files)
        age = time.time_ns() - max((one[1] for one in state if one), default=0)
        if age > TICK_NS or age < 0:
            return state
        time.sleep((TICK_NS - age) / 1e9)
    return None

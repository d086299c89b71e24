"""Sources: where rows come from. Each reading yields numbered, repeatable chunks in bounded memory.

``open_source`` gives a declared source, ``Source.open`` one reading of it; whoever collects or sinks a chunk's frame
does it inside ``reading``, because a scan fails only when it is run.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from engine.errors import SourceError
from engine.spec import ApiSpec, DatabaseSpec, FileSpec, S3Spec, SourceSpec
from engine.types import redact

if TYPE_CHECKING:
    import polars as pl


T = TypeVar("T")
CursorValue = int | float | str | Decimal | date | datetime


@dataclass(frozen=True)
class Span:
    """Neighbouring rows of a chunk that come from one place.

    Attributes:
        origin: a file's path, a page's URL; for people, and never a secret.
        first: the number of the first of them there, from 0; the others follow it. None: there is no such order.
        rows: how many.
    """

    origin: str
    first: int | None
    rows: int


@dataclass(frozen=True)
class Chunk:
    """A piece of a source, or a part of one: one file, a run of pages, a range of rows.

    Attributes:
        number: of the piece, from 0, in reading order: the rows of a later piece are later rows. Pieces may arrive in
            another order.
        origin: where the rows come from, for people (a path, ``pages 1-20``, ``rows 0-249999``); never a secret.
        frame: the rows, unchanged, as a lazy frame: a scan of a file, or rows already in memory. Use it before
            asking for the next chunk: what it scans may be a temporary copy.
        rows: how many rows ``frame`` has to give; None where the source cannot say. A reader that gives another
            number has lost or made up rows.
        open_schema: whether a column may be absent only because no record of this chunk has it (records of an API,
            NDJSON or JSON). Records without any field give a frame of their number without columns.
        part: from 0; a piece too large for one chunk arrives in several, one after the other.
        last: whether the piece ends with this part. Only a whole piece counts as read.
        mark: JSON-ready; by it a later reading can tell whether the piece, once landed, still holds. None: it cannot.
        spans: where just each row comes from; default: from ``origin``, in no order.
    """

    number: int
    origin: str
    frame: pl.LazyFrame
    rows: int | None = None
    open_schema: bool = False
    part: int = 0
    last: bool = True
    mark: Mapping[str, Any] | None = None
    spans: Sequence[Span] = ()


@dataclass(frozen=True)
class Landed:
    """A piece that an interrupted reading has landed: its number, the rows read of it, and its chunks' mark."""

    number: int
    rows: int
    mark: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What a reading is to give.

    Attributes:
        since: only rows whose cursor is this or more, or null; None: all rows.
        seal: of the interrupted reading that this one continues, with the pieces it ``landed``.
        trace: of the last reading that was completed; by it rows are found that were committed late.
    """

    since: CursorValue | None = None
    seal: Mapping[str, Any] | None = None
    landed: Sequence[Landed] = ()
    trace: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Promise:
    """What a reading can vouch for; kept in the ledger with what it read.

    Attributes:
        snapshot: ``one``: all rows are of one moment; ``per_chunk``: each chunk is, their whole is not; ``none``.
        shared: names the moment where other sources of the run were read at the same; None: this source alone.
        counted: whether the source's own count of its rows, at that moment, was compared with what was read.
        late_commits: with a cursor: ``none_missed``, or ``within_lateness`` where only ``lateness`` guards against
            rows that are committed after others with a larger cursor; None without a cursor.
        note: what else there is to say, for people.
    """

    snapshot: Literal["one", "per_chunk", "none"] = "none"
    shared: str | None = None
    counted: bool = False
    late_commits: Literal["none_missed", "within_lateness"] | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "snapshot": self.snapshot,
            "shared": self.shared,
            "counted": self.counted,
            "late_commits": self.late_commits,
            "note": self.note,
        }


class Reading(Protocol):
    """One reading of a source, from its beginning or where an interrupted one stopped.

    Attributes:
        promise: final once ``chunks`` has ended.
        seal: JSON-ready; with it and the marks of landed pieces a later reading can go on. None: it starts anew.
        kept: the numbers of the request's landed pieces that still hold; ``chunks`` leaves them out.
        bound: with a cursor of moments: the next reading goes on from no later than this; where the promise is
            ``none_missed``, what is committed later has a cursor of at least this. UTC; None: unknown.
        trace: JSON-ready; for the request of the next reading, once this one is completed.
    """

    promise: Promise
    seal: Mapping[str, Any] | None
    kept: frozenset[int]
    bound: datetime | None
    trace: Mapping[str, Any] | None

    def chunks(self) -> Iterator[Chunk]:
        """The table's chunks but for the pieces that are ``kept``; once.

        A table without rows gives one chunk without rows, except where its columns cannot be known (an API without
        records, a blank NDJSON file, a JSON file that is blank or ``[]``): that gives no chunk and is no error. A
        blank CSV or Parquet file is an error. Columns have one type within a chunk; between
        chunks with ``open_schema`` a type may differ (a column null throughout one chunk is ``Null`` there).

        Raises:
            TransientSourceError: reading failed in a way that a further reading may mend, which may go on from what
                has landed.
            SourceError: any other failure; also when the rows read are not as many as the source counts.
        """
        ...

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """These columns (named as in the source) of all rows whatever the cursor, of the same moment if it can be.

        Their values are equal to those that ``chunks`` gives. Only sources with modes have it.
        """
        ...


class Source(Protocol):
    """Something that yields a table in chunks.

    A plug-in's class is made with the source's name in the pipeline, its declaration (an instance of the class's
    ``Spec``, which is derived from `engine.spec.SourceSpec`) and the folder that relative paths start from; nothing is
    read then. See ``docs/sources.md``, and `engine.plugin` for all names that a plug-in needs.

    Attributes:
        kind: ``database``, ``file``, ``s3``, ``api``, or a plug-in's name.
        location: what is read, for people; never a secret.
    """

    kind: str
    location: str

    def open(self, request: Request) -> AbstractContextManager[Reading]:
        """One reading; leaving the context ends it, also in the middle, at once.

        Raises:
            SourceError: the source cannot be reached, or is not as declared.
        """
        ...


class StartOver(Exception):  # noqa: N818 - what happens next
    """Chunks that have landed do not fit what came later; the next reading of the source takes account of it."""


@dataclass
class Plain:
    """A reading of a source that is read from its beginning each time, and vouches for nothing."""

    start: Callable[[], Iterator[Chunk]]
    promise: Promise = Promise()
    seal: Mapping[str, Any] | None = None
    kept: frozenset[int] = frozenset()
    bound: datetime | None = None
    trace: Mapping[str, Any] | None = None

    def chunks(self) -> Iterator[Chunk]:
        """See `Reading.chunks`."""
        return self.start()

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """Not of these sources."""
        raise NotImplementedError


def plain(start: Callable[[], Iterator[Chunk]]) -> AbstractContextManager[Reading]:
    """A reading that is nothing but its chunks."""
    return nullcontext(Plain(start))


class Shared(AbstractContextManager["Shared"]):
    """What the sources of one run have in common, such as a database's snapshot; opened at first use."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Any, ExitStack]] = {}
        self._lost: set[str] = set()

    def get(self, key: str, opened: Callable[[], AbstractContextManager[T]]) -> T:
        """What is held under ``key``, else what ``opened`` gives, from now on."""
        if key not in self._held:
            stack = ExitStack()
            self._held[key] = (stack.enter_context(opened()), stack)
        found: T = self._held[key][0]
        return found

    def holds(self, key: str) -> bool:
        """Whether something is held under ``key``."""
        return key in self._held

    def lost(self, key: str) -> bool:
        """Whether what was held under ``key`` broke after it had been of use, so that others had another."""
        return key in self._lost

    def forget(self, key: str, *, used: bool = True) -> None:
        """Closes what is held under ``key``: it broke, and the next who asks gets another."""
        if key in self._held:
            if used:
                self._lost.add(key)
            self._held.pop(key)[1].close()

    def __exit__(self, *_: object) -> None:
        for key in list(self._held):
            self.forget(key)


def open_source(name: str, spec: SourceSpec, base: Path, shared: Shared | None = None) -> Source:
    """A declared source; nothing is read yet.

    Args:
        name: the source's name in the pipeline, for messages.
        spec: its declaration.
        base: the folder that relative paths start from.
        shared: between the sources of a run; None: this source stands alone.
    """
    if isinstance(spec, DatabaseSpec):
        from engine.sources.database import DatabaseSource

        return DatabaseSource(name, spec, base, shared)
    if isinstance(spec, ApiSpec):
        from engine.sources.api import ApiSource

        return ApiSource(name, spec)
    if isinstance(spec, FileSpec):
        from engine.sources.file import FileSource

        return FileSource(name, spec, base)
    if isinstance(spec, S3Spec):
        from engine.sources.s3 import S3Source

        return S3Source(name, spec)
    from engine.sources.plugged import PluggedSource

    return PluggedSource(name, spec, base)


@contextmanager
def reading(origin: str, name: str, secrets: Iterable[str] = ()) -> Iterator[None]:
    """Turn what goes wrong while a chunk is read into a SourceError that names its origin.

    Covers Polars' and Arrow's errors, panics of native code, and the operating system's errors; the engine's own
    errors, KeyboardInterrupt (which Arrow may turn into ArrowCancelled) and SystemExit pass unchanged.

    Args:
        origin: the chunk's origin.
        name: the source's name in the pipeline.
        secrets: values that must not appear in the message.

    Raises:
        SourceError: ``source.unreadable``, or ``source.disk_full`` when there was no room to write what was read.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "ArrowCancelled":  # how Arrow passes Ctrl-C on
            raise KeyboardInterrupt from None
        if not _is_read_failure(error):
            raise
        where = f"sources.{name}"
        text = redact(" ".join(str(error).split()), secrets)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
            raise SourceError(
                f"the disk is full: {origin} was read, but could not be written",
                code="source.disk_full",
                where=where,
                fix="free some space where workdir is, or set workdir to another disk",
            ) from None
        raise SourceError(
            f"{origin} cannot be read: {text[:300] or type(error).__name__}",
            code="source.unreadable",
            where=where,
            fix="check that it is complete and of the declared format",
        ) from None


def _is_read_failure(error: BaseException) -> bool:
    import polars.exceptions
    import pyarrow as pa

    if is_panic(error):
        return True
    return isinstance(error, polars.exceptions.PolarsError | pa.ArrowException | OSError | MemoryError)


def is_panic(error: BaseException) -> bool:
    """Whether ``error`` is a panic of a Rust extension; those are no ``Exception``."""
    return type(error).__name__ == "PanicException"

"""Sources: where rows come from. Each yields numbered, repeatable chunks in bounded memory.

``open_source`` gives the reader of a declared source; whoever collects or sinks a chunk's frame does it inside
``reading``, because a scan fails only when it is run.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.errors import SourceError
from engine.spec import AnySource, ApiSpec, DatabaseSpec, FileSpec
from engine.types import redact

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Chunk:
    """A numbered piece of a source: one file, a run of pages, a run of rows.

    Attributes:
        number: from 0, in reading order; a later chunk's rows are later rows.
        origin: where the rows come from, for people (a path, ``pages 1-20``, ``rows 0-249999``); never a secret.
        frame: the rows, unchanged, as a lazy frame: a scan of a file, or rows already in memory. Use it before
            asking for the next chunk: what it scans may be a temporary copy.
        rows: how many rows ``frame`` has to give; None where the source cannot say. A reader that gives another
            number has lost or made up rows.
        open_schema: whether a column may be absent only because no record of this chunk has it (records of an API,
            NDJSON or JSON). Records without any field give a frame of their number without columns.
    """

    number: int
    origin: str
    frame: pl.LazyFrame
    rows: int | None = None
    open_schema: bool = False


class Source(Protocol):
    """Something that yields a table in chunks.

    Attributes:
        kind: ``database``, ``file``, ``s3`` or ``api``.
        location: what is read, for people; never a secret.
    """

    kind: str
    location: str

    def chunks(self) -> Iterator[Chunk]:
        """The table's chunks, in order, each time from the beginning.

        A table without rows gives one chunk without rows, except where its columns cannot be known (an API without
        records, a blank NDJSON file, a JSON file that is blank or ``[]``): that gives no chunk and is no error. A
        blank CSV or Parquet file is an error. Columns have one type within a chunk; between
        chunks with ``open_schema`` a type may differ (a column null throughout one chunk is ``Null`` there).

        Raises:
            TransientSourceError: reading failed in a way that a new attempt from the beginning may mend.
            SourceError: any other failure.
        """
        ...


def open_source(name: str, spec: AnySource, base: Path) -> Source:
    """The reader of a declared source; nothing is read yet.

    Args:
        name: the source's name in the pipeline, for messages.
        spec: its declaration.
        base: the folder that relative paths start from.
    """
    if isinstance(spec, DatabaseSpec):
        from engine.sources.database import DatabaseSource

        return DatabaseSource(name, spec, base)
    if isinstance(spec, ApiSpec):
        from engine.sources.api import ApiSource

        return ApiSource(name, spec)
    if isinstance(spec, FileSpec):
        from engine.sources.file import FileSource

        return FileSource(name, spec, base)
    from engine.sources.s3 import S3Source

    return S3Source(name, spec)


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

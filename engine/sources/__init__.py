"""Sources: where rows come from. Each yields numbered, repeatable chunks in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.spec import AnySource, ApiSpec, DatabaseSpec, FileSpec

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Chunk:
    """A numbered piece of a source: one file, a run of pages, a run of rows.

    Attributes:
        number: from 0, in reading order; a later chunk's rows are later rows.
        origin: where the rows come from, for people (a path, ``pages 1-20``, ``rows 0-249999``); never a secret.
        frame: the rows, unchanged, as a lazy frame: a scan of a file, or rows already in memory.
    """

    number: int
    origin: str
    frame: pl.LazyFrame


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

"""What the tests of sources share: reading a declared source into plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from engine.sources import Chunk, Request, Source, open_source, reading
from engine.spec import AnySource, DatabaseSpec


def database(url: str, **keys: Any) -> DatabaseSpec:
    """A database source; ``table`` or ``query`` among the keys."""
    return DatabaseSpec(type="database", connection_string=url, **keys)


def collected(chunks: Iterable[Chunk]) -> pl.DataFrame:
    """The rows of chunks, in the order of their pieces; numbers and counts have to fit."""
    frames: dict[tuple[int, int], pl.DataFrame] = {}
    for chunk in chunks:
        with reading(chunk.origin, "s"):
            frame = chunk.frame.collect()
        assert chunk.rows == frame.height
        assert (chunk.number, chunk.part) not in frames
        frames[chunk.number, chunk.part] = frame
    numbers = sorted({number for number, _ in frames})
    assert numbers == list(range(len(numbers)))
    return pl.concat([frames[at] for at in sorted(frames)], how="diagonal_relaxed")


def chunks_of(source: Source, request: Request | None = None) -> Iterator[Chunk]:
    """The chunks of one reading."""
    with source.open(request or Request()) as opened:
        yield from opened.chunks()


def read(spec: AnySource, base: Path = Path()) -> pl.DataFrame:
    """All rows of a source named ``s``."""
    return collected(chunks_of(open_source("s", spec, base)))

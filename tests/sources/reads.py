"""What the tests of sources share: reading a declared source into plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from engine.sources import Chunk, open_source, reading
from engine.spec import AnySource, DatabaseSpec


def database(url: str, **keys: Any) -> DatabaseSpec:
    """A database source; ``table`` or ``query`` among the keys."""
    return DatabaseSpec(type="database", connection_string=url, **keys)


def collected(chunks: list[Chunk] | Any) -> pl.DataFrame:
    """The rows of chunks, whose numbers and counts have to fit."""
    frames = []
    for number, chunk in enumerate(chunks):
        assert chunk.number == number
        with reading(chunk.origin, "s"):
            frames.append(chunk.frame.collect())
        assert chunk.rows == frames[-1].height
    return pl.concat(frames, how="diagonal_relaxed")


def read(spec: AnySource, base: Path = Path()) -> pl.DataFrame:
    """All rows of a source named ``s``."""
    return collected(open_source("s", spec, base).chunks())

"""Files that are written while the next rows are made."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl


def write(frames: Iterable[pl.DataFrame], out: Path) -> None:
    """A zstd Parquet file for each frame, named by its number from 0, one at a time."""
    waiting = None
    with ThreadPoolExecutor(1) as writer:
        for number, frame in enumerate(frames):
            if waiting:
                waiting.result()
            waiting = writer.submit(frame.write_parquet, out / f"{number}.parquet", compression="zstd")
        if waiting:
            waiting.result()

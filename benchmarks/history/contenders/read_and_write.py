# /// script
# dependencies = ["polars==2.1.0"]
# ///
"""What any way takes at least: ``read_and_write.py FOLDER SET COUNT OUT``.

Decodes the columns of the events once, and encodes and writes the rows of every as-of, which are read (that is in its
figures, too) from the files of who was right before. Nothing is computed.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

folder, count, out = Path(sys.argv[1]), int(sys.argv[3]), Path(sys.argv[4])
begun = time.monotonic()
texts = pl.col("user_id", "task_type").str.len_bytes().sum()
pl.scan_parquet(folder / "activities.parquet").select(texts, pl.col("completion_time", "timestamp").max()).collect()


def write(frame: pl.DataFrame, path: Path) -> None:
    frame.write_parquet(path, compression="zstd")


waiting = None
with ThreadPoolExecutor(1) as writer:
    for i in range(count):
        frame = pl.read_parquet(Path(os.environ["REFERENCE"]) / f"{i}.parquet")
        if waiting:
            waiting.result()
        waiting = writer.submit(write, frame, out / f"{i}.parquet")
    assert waiting
    waiting.result()
print("inside", time.monotonic() - begun)

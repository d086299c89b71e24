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
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))
from beside import write

folder, count, out = Path(sys.argv[1]), int(sys.argv[3]), Path(sys.argv[4])
begun = time.monotonic()
texts = pl.col("user_id", "task_type").str.len_bytes().sum()
pl.scan_parquet(folder / "activities.parquet").select(texts, pl.col("completion_time", "timestamp").max()).collect()
write((pl.read_parquet(Path(os.environ["REFERENCE"]) / f"{i}.parquet") for i in range(count)), out)
print("inside", time.monotonic() - begun)

"""The generated table: work-tracking events as Parquet, by seed, with a small known number of rows that break checks.

Slices of at most ten million rows, one file each. A row's id is a hash of its number that no other number has, so ids
differ across slices too; a row that repeats an earlier id has the number of that one.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

SEED = 20260701
VERSION = 1  # of what is generated; another number makes it anew
SLICE = 10_000_000
NEWEST = datetime(2026, 7, 1, 6, 30, tzinfo=UTC)  # of the first slice; each next one is older
DAYS = 90

# Rows of each slice that break a check.
NULL_USERS = 40
TOO_SHORT, TOO_LONG = 25, 35
TOO_LOW, TOO_HIGH = 15, 30
OTHER_TYPES, OTHER_STATUSES = 50, 20
PAIRS, TRIPLES = 30, 5
ACROSS = 3  # rows with an id of the slice before

TYPES = ("created", "started", "paused", "resumed", "completed", "commented", "assigned", "archived")
STATUSES = ("open", "in_progress", "blocked", "done", "cancelled")
BAD_TYPES = ("Created", "deleted", "")
BAD_STATUSES = ("unknown",)


def make_table(folder: Path, rows: int) -> list[Path]:
    """The files of ``rows`` rows in ``folder``, made unless they stand."""
    stamp = folder / "made.json"
    made = {"seed": SEED, "version": VERSION, "rows": rows}
    sizes = [min(SLICE, rows - start) for start in range(0, rows, SLICE)]
    files = [folder / f"part-{number:03}.parquet" for number in range(len(sizes))]
    if stamp.exists() and json.loads(stamp.read_text()) == made:
        return files
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, (size, file) in enumerate(zip(sizes, files, strict=True)):
        _slice(number, size).write_parquet(file)
    stamp.write_text(json.dumps(made))
    return files


def _slice(number: int, rows: int) -> pl.DataFrame:
    rng = np.random.default_rng([SEED, number])
    counts = (NULL_USERS, TOO_SHORT, TOO_LONG, TOO_LOW, TOO_HIGH, OTHER_TYPES, OTHER_STATUSES)
    repeats = PAIRS + 2 * TRIPLES
    # What breaks a check stands in odd rows, what is repeated in even ones, so that no row does both.
    odd = rng.choice(rows // 2, sum(counts) + repeats + ACROSS, replace=False) * 2 + 1
    *bad, repeating, crossing = np.split(odd, np.cumsum((*counts, repeats)))
    null_users, short, long, low, high, types, statuses = bad

    numbers = np.arange(rows, dtype=np.uint64) + np.uint64(number * SLICE)
    sources = rng.choice(rows // 2, PAIRS + TRIPLES, replace=False) * 2
    numbers[repeating] = numbers[np.concatenate([sources, sources[:TRIPLES]])]
    if number:
        numbers[crossing] = rng.choice(SLICE // 2, ACROSS, replace=False) * 2 + (number - 1) * SLICE

    duration = np.minimum(np.round(rng.lognormal(6.5, 1.2, rows), 1), 86_000.0)
    duration[short], duration[long] = -1.5, 90_000.0
    score = np.round(rng.beta(3, 2, rows) * 100, 2)
    score[low], score[high] = -0.01, 100.01
    event_types = _picked(rng, TYPES + BAD_TYPES, len(TYPES), rows, types)
    status = _picked(rng, STATUSES + BAD_STATUSES, len(STATUSES), rows, statuses)
    users = rng.integers(0, 200_000, rows)
    created = _moments(rng, rows, number)
    notes = pl.Series([f"see the note of task {n}, section {n % 7}" for n in range(50_000)], dtype=pl.String)

    frame = pl.DataFrame(
        {
            "event_id": _ids(numbers),
            "user_id": pl.Series([f"u{n:07}" for n in range(200_000)]).gather(users),
            "task_id": rng.integers(1, 3_000_000, rows),
            "event_type": event_types,
            "status": status,
            "duration": duration,
            "score": score,
            "amount": np.round(rng.gamma(2.0, 40.0, rows), 2),
            "count": rng.poisson(3, rows).astype(np.int64),
            "created_at": created,
            "updated_at": created + rng.integers(0, 7_200_000, rows) * 1000,
            "note": notes.gather(rng.integers(0, 50_000, rows)),
        }
    )
    row = pl.int_range(pl.len())
    return frame.with_columns(
        pl.when(~row.is_in(null_users.tolist())).then("user_id").alias("user_id"),
        # Nulls break no range; they stand among the even rows, so none hides what does.
        pl.when(row % 50 != 0).then("duration").alias("duration"),
        pl.when(row % 3 == 0).then("note").alias("note"),
        pl.col("created_at", "updated_at").cast(pl.Datetime("us", "UTC")),
    )


def _ids(numbers: np.ndarray[Any, np.dtype[np.uint64]]) -> pl.Series:
    """Sixteen hexadecimal digits of each: splitmix64, which gives different numbers different ones."""
    z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    digits = np.frombuffer(b"".join(b"%02x" % n for n in range(256)), dtype=np.uint16)
    text = digits[z.byteswap().view(np.uint8)]
    offsets = np.arange(0, 16 * (len(numbers) + 1), 16, dtype=np.int64)
    array = pa.LargeStringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))
    return pl.Series(array)


def _picked(
    rng: np.random.Generator, words: tuple[str, ...], good: int, rows: int, bad: np.ndarray[Any, np.dtype[np.int64]]
) -> pl.Series:
    """One of the first ``good`` words in each row, another one in the rows ``bad``."""
    picked = rng.integers(0, good, rows)
    picked[bad] = good + np.arange(len(bad)) % (len(words) - good)
    return pl.Series(words, dtype=pl.String).gather(picked)


def _moments(rng: np.random.Generator, rows: int, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Ascending microseconds of whole milliseconds, the last one the newest of the slice."""
    span = DAYS * 86_400_000
    last = int(NEWEST.timestamp() * 1000) - number * span
    found = np.sort(rng.integers(0, span, rows)) + (last - span)
    found[-1] = last
    return found * 1000

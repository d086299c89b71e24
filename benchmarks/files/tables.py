"""The table, by seed: a file of it at a time, and what all of it comes to."""

from __future__ import annotations

import io
from collections.abc import Iterator

import polars as pl

COLUMNS = ("id", "user_id", "kind", "city", "amount", "score", "active", "created_at", "note", "n1", "n2", "ratio")
KINDS = ["view", "click", "buy", "share"]


def frame(number: int, rows: int) -> pl.DataFrame:
    """File ``number`` of the table: whole numbers, fractions, truths, texts, nulls; the same on every machine."""
    i = pl.int_range(number * rows, (number + 1) * rows, dtype=pl.Int64)
    mixed = (i * 2_654_435_761) % 4_294_967_291
    other = (i * 40_503 + number) % 1_000_003
    seconds = mixed % (28 * 86_400)
    return pl.select(
        id=i,
        user_id=mixed % 200_000,
        kind=pl.lit(pl.Series(KINDS)).implode().list.get(mixed % 4),
        city=pl.format("city-{}", mixed % 500),
        amount=(mixed % 100_000) / pl.lit(100.0),
        score=mixed / pl.lit(4_294_967_291.0),
        active=mixed % 2 == 0,
        created_at=(pl.datetime(2026, 1, 1) + pl.duration(seconds=seconds)).dt.strftime("%Y-%m-%dT%H:%M:%S"),
        note=pl.when(other % 10 >= 3).then(pl.format("note {}", other)),
        n1=other - 500_000,
        n2=pl.when(other % 10 > 0).then(other),
        ratio=(other - 500_000) / pl.lit(10_000.0),
    )


def bodies(files: int, rows: int, form: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file."""
    for number in range(files):
        sink = io.BytesIO()
        part = frame(number, rows)
        part.write_parquet(sink) if form == "parquet" else part.write_csv(sink)
        yield f"{form}/{number:04}.{form}", sink.getvalue()


def summary(frames: pl.LazyFrame) -> dict[str, float | int]:
    """What a table comes to: equal ones have equal figures, whatever their order."""
    found = frames.select(
        pl.len().alias("rows"),
        *(pl.col(c).sum().alias(c) for c in ("id", "user_id", "n1", "n2")),
        *(pl.col(c).cast(pl.Int64).sum().alias(c) for c in ("active",)),
        *((pl.col(c) * 1_000_000).round().cast(pl.Int64).sum().alias(c) for c in ("amount", "score", "ratio")),
        *(pl.col(c).cast(pl.String).str.len_bytes().sum().alias(c) for c in ("kind", "city", "note")),
        pl.col("note").is_null().sum().alias("nulls"),
        pl.col("created_at").cast(pl.String).n_unique().alias("created_at"),
    )
    figures: dict[str, float | int] = found.collect(engine="streaming").row(0, named=True)
    return figures

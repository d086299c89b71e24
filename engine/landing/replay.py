"""Rows in quarantine as a source: taken back into the table that they were kept from, as they are or mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from engine.errors import LedgerError
from engine.landing import files, quarantine
from engine.ledger import File, Quarantined
from engine.sources import Chunk, Reading, Request, Span, plain

_MOST_SPANS = 100_000
ID = "quarantine_id"  # the column of mended rows that says which rows they are


@dataclass
class Replay:
    """Files of a source's quarantine, read as a source.

    Attributes:
        root: the folder that the files' paths start from.
        mended: a Parquet file of rows of the table to take in their place, each with its `ID` in the last column; the
            others stay in quarantine. None: all rows, as they are.
    """

    name: str
    root: Path
    entries: Sequence[Quarantined]
    mended: Path | None = None
    kind: str = field(default="quarantine", init=False)
    location: str = field(init=False)

    def __post_init__(self) -> None:
        self.location = f"the quarantine of {self.name}"

    def open(self, request: Request) -> AbstractContextManager[Reading]:  # noqa: ARG002 - each reads anew
        """See `engine.sources.Source.open`."""
        return plain(self.chunks)

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        for number, entry in enumerate(self.entries):
            path = self.root / entry.file.path
            frame = quarantine.without_reasons(path)
            if self.mended is not None:
                mended, key = self._mended(self.mended)
                ids = self._reasons(path).select(pl.col("id").alias(key))
                frame = ids.join(mended, on=key, maintain_order="left").drop(key)
            yield Chunk(number, f"{self.location}, {entry.file.path}", frame, open_schema=True, spans=self._spans(path))

    def left(self, folder: Path) -> dict[str, File | None]:
        """What stays in quarantine of each file, in new files in ``folder``; None: nothing.

        Raises:
            LedgerError: a mended row is in quarantine no more.
        """
        left: dict[str, File | None] = {}
        count = 0
        for entry in self.entries:
            path = self.root / entry.file.path
            rows = self._taken(path).select(pl.col("at")).collect()["at"]
            count += rows.len()
            if rows.len() == entry.file.rows:
                left[entry.file.path] = None
            elif rows.len():
                left[entry.file.path] = files.seal(files.without(path, rows, folder), self.root)
        if self.mended is not None and count != files.scan(self.mended).select(pl.len()).collect().item():
            raise LedgerError(
                "another run has been at work since the mended rows were looked up",
                code="plan.outdated",
                where=f"sources.{self.name}",
                fix="run again",
            )
        return left

    def _reasons(self, path: Path) -> pl.LazyFrame:
        return files.scan(path).select(quarantine.reasons_of(path)).unnest(quarantine.reasons_of(path))

    def _taken(self, path: Path) -> pl.LazyFrame:
        """The reasons of the rows that are taken, with their number in the file, ``at``."""
        reasons = self._reasons(path).with_row_index("at")
        if self.mended is None:
            return reasons
        rows, key = self._mended(self.mended)
        return reasons.join(rows.select(pl.col(key).alias("id")), on="id", how="semi", maintain_order="left")

    @staticmethod
    def _mended(path: Path) -> tuple[pl.LazyFrame, str]:
        """The mended rows, and the column of their ids."""
        return files.scan(path), list(files.schema(path))[-1]

    def _spans(self, path: Path) -> list[Span]:
        """Where the rows that are taken came from at first."""
        places = self._taken(path).select("origin", "row").with_row_index("at").collect()
        step = pl.struct("origin", (pl.col("row") - pl.col("at")).alias("offset"))
        runs = places.group_by(step.rle_id().alias("run"), maintain_order=True).agg(
            pl.col("origin").first(), pl.col("row").first(), pl.len()
        )
        if runs.height > _MOST_SPANS:
            return [Span(self.location, None, places.height)]
        return [Span(origin or "", row, rows) for _, origin, row, rows in runs.iter_rows()]

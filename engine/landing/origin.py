"""Where landed rows came from. Each file carries it along, row by row: exact, or silent where it would be too much."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from engine.sources import Chunk

KEY = "maestro.origins"  # of the Parquet file's own metadata
MOST_RUNS = 4_096  # of one segment; more are not kept

Run = tuple[int, int]  # the first row, by its number in the origin, and how many follow it without a gap


@dataclass(frozen=True)
class Segment:
    """Neighbouring rows of a landed file that came from one place.

    Attributes:
        rows: how many.
        read: the read that they came in.
        origin: a file's path, a page's URL, a key range; empty where an earlier version did not keep it.
        runs: which rows of the origin they are, in order; None: unknown.
    """

    rows: int
    read: str
    origin: str
    runs: tuple[Run, ...] | None = None


def of(path: Path) -> list[Segment]:
    """The segments of a landed file, in row order."""
    footer = pq.read_metadata(path)
    text = (footer.metadata or {}).get(KEY.encode())
    if text is None:  # as an earlier version wrote it: its folder is named after its read
        return [Segment(footer.num_rows, path.parent.name, "")] if footer.num_rows else []
    known = json.loads(text)
    return [
        Segment(rows, known["reads"][read], known["origins"][origin], None if runs is None else _paired(runs))
        for rows, read, origin, runs in known["segments"]
    ]


def metadata(segments: Iterable[Segment]) -> dict[str, str]:
    """What a file carries along."""
    reads: dict[str, int] = {}
    origins: dict[str, int] = {}
    listed = [
        [
            segment.rows,
            reads.setdefault(segment.read, len(reads)),
            origins.setdefault(segment.origin, len(origins)),
            None if segment.runs is None else [number for run in segment.runs for number in run],
        ]
        for segment in segments
    ]
    whole = {"reads": list(reads), "origins": list(origins), "segments": listed}
    return {KEY: json.dumps(whole, separators=(",", ":"), ensure_ascii=False)}


def _paired(numbers: Sequence[int]) -> tuple[Run, ...]:
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def arrived(chunk: Chunk, read: str, rows: int) -> list[Segment]:
    """The segments of a chunk's ``rows`` rows, as they come."""
    if sum(span.rows for span in chunk.spans) != rows:  # none are named, or the source miscounted: others see to that
        return [Segment(rows, read, chunk.origin)] if rows else []
    spans = [span for span in chunk.spans if span.rows]
    return joined(Segment(s.rows, read, s.origin, None if s.first is None else ((s.first, s.rows),)) for s in spans)


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The same, with neighbours of one origin as one."""
    found: list[Segment] = []
    for segment in segments:
        last = found[-1] if found else None
        if last and (last.read, last.origin) == (segment.read, segment.origin):
            both = _both(last, segment)
            if both:
                found[-1] = both
                continue
        found.append(segment)
    return found


def _both(one: Segment, other: Segment) -> Segment | None:
    rows = one.rows + other.rows
    if one.runs is None and other.runs is None:
        return replace(one, rows=rows)
    if one.runs is None or other.runs is None:
        return None
    runs = _continuous([*one.runs, *other.runs])
    return replace(one, rows=rows, runs=runs) if len(runs) <= MOST_RUNS else None


def _continuous(runs: Iterable[Run]) -> tuple[Run, ...]:
    found: list[Run] = []
    for first, count in runs:
        if found and sum(found[-1]) == first:
            found[-1] = (found[-1][0], found[-1][1] + count)
        else:
            found.append((first, count))
    return tuple(found)


def without(segments: Sequence[Segment], removed: pl.Series) -> list[Segment]:
    """What is left of a file's segments.

    Args:
        removed: numbers of rows of the file.
    """
    total = sum(segment.rows for segment in segments)
    return kept(segments, _gaps_between(removed, total))


def _gaps_between(removed: pl.Series, total: int) -> Iterator[Run]:
    """The rows that stay, as runs."""
    gone = removed.cast(pl.Int64).unique().sort()
    neighbours = (gone - pl.int_range(gone.len(), eager=True)).rle()  # equal along rows without a gap
    at = before = 0
    for offset, count in zip(neighbours.struct["value"], neighbours.struct["len"], strict=True):
        yield at, offset + before - at
        before += count
        at = offset + before
    yield at, total - at


def kept(segments: Sequence[Segment], rows: Iterable[Run]) -> list[Segment]:
    """The segments of some rows of a file only, given as runs, in order."""
    known = [
        (number, start, rows, first)
        for number, (segment, start) in enumerate(zip(segments, _starts(segments), strict=True))
        for start, rows, first in _located(segment, start)
    ]
    counts = [0] * len(segments)
    runs: list[list[Run]] = [[] for _ in segments]
    i = 0
    for start, count in rows:
        stop = start + count
        while i < len(known) and known[i][1] < stop:
            number, at, length, first = known[i]
            low, high = max(at, start), min(at + length, stop)
            if low < high:
                counts[number] += high - low
                if first is not None:
                    runs[number].append((first + low - at, high - low))
            if at + length > stop:
                break
            i += 1
    left = []
    for segment, count, of_segment in zip(segments, counts, runs, strict=True):
        numbers = None if segment.runs is None else _continuous(of_segment)
        if numbers is not None and len(numbers) > MOST_RUNS:
            numbers = None
        if count:
            left.append(replace(segment, rows=count, runs=numbers))
    return joined(left)


def _located(segment: Segment, start: int) -> Iterator[tuple[int, int, int | None]]:
    """The runs of a segment that begins at row ``start``: the row there, how many follow, the row in the origin."""
    if segment.runs is None:
        yield start, segment.rows, None
    for first, count in segment.runs or ():
        yield start, count, first
        start += count


def _starts(segments: Iterable[Segment]) -> list[int]:
    return list(accumulate((segment.rows for segment in segments), initial=0))[:-1]


def table(files: Iterable[Sequence[Segment]]) -> pl.DataFrame:
    """Where each row of a table is from: a line for each row at which counting on from the line before would be wrong.

    Args:
        files: the segments of each of its files, in order.

    Returns:
        ``start`` (the row, counted over all files), ``origin``, ``row`` (its number in the origin, or null where that
        is unknown) and ``read``; by ``start``.
    """
    schema = {"start": pl.Int64, "origin": pl.String, "row": pl.Int64, "read": pl.String}
    frames = [pl.DataFrame(schema=schema)]
    total = 0
    for segments in files:
        lines = []
        for segment in segments:
            lines += [(at, segment.origin, row, segment.read) for at, _, row in _located(segment, total)]
            total += segment.rows
        frames.append(pl.DataFrame(lines, schema=schema, orient="row"))
    return pl.concat(frames)

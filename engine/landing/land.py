"""Landing one read of a source: extract, give all files one schema, merge with what had landed before."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from engine.frames import column as exactly
from engine.landing import files, origin, quarantine
from engine.landing.extract import UNFIT, Extracted, Extraction, Wait, footer_bytes, nothing
from engine.landing.journal import InMemory, Journal
from engine.landing.merge import Merge, Merged
from engine.landing.metrics import Metrics, per_chunk
from engine.landing.position import decode, earlier, encode, held_back
from engine.landing.quarantine import Aside
from engine.landing.schema import unify
from engine.landing.table import LandedTable
from engine.landing.witness import Watched
from engine.ledger import File, Read
from engine.sources import CursorValue, Source, reading
from engine.spec import DatabaseSpec, FileKeys, IncrementalSpec, SourceSpec, secrets_of
from engine.steps import reached


def land(
    source: Source,
    spec: SourceSpec,
    folder: Path,
    *,
    name: str,
    memory_limit: str,
    root: Path | None = None,
    journal: Journal | None = None,
    aside: Aside | None = None,
    base: Read | None = None,
    earlier: bool = False,
    last: Read | None = None,
    watched: Watched | None = None,
    progress: Callable[[int], object] | None = None,
    wait: Wait | None = None,
) -> LandedTable:
    """Reads ``source`` into ``folder`` and gives the table that it makes, with ``base`` where that is extended.

    A transient failure is followed by another attempt, up to ``spec.max_retries`` times; it goes on from the pieces
    that have landed, if the source can vouch for them.

    Args:
        root: the folder that recorded paths start from; default: ``folder``.
        journal: where landed pieces are recorded; default: nowhere.
        aside: where rows with a null in a critical column go; default: they are only counted.
        base: the read whose table this one extends; None: this read is the whole table.
        earlier: whether the rows are older than those of ``base``, whose position and trace stay.
        last: the read that landed last of this source, which the new one's columns are compared with.
        watched: looks at the rows on their way.
        progress: called with the number of rows landed so far.
        wait: sleeps between attempts; default: really.

    Raises:
        SourceError: the source cannot be read, lacks a required column, or breaks its contract.
    """
    started = time.monotonic()
    extraction = Extraction(
        source,
        spec,
        root or folder,
        folder,
        name,
        journal or InMemory(),
        aside or Aside(),
        since=_since(spec, base, name),
        trace=base.trace if base else None,
        known=_known(last, root or folder),
        find_keys=() if earlier else _find_keys(spec, base),
        watched=watched,
        progress=progress,
    )
    if wait is not None:
        extraction.wait = wait
    landing = _Landing(extraction, spec, base, memory_limit, earlier, last)
    found = extraction.run()
    try:
        table = landing.finish(found)
    finally:
        shutil.rmtree(folder / "spill", ignore_errors=True)
    table.metrics.duration_seconds = time.monotonic() - started
    return table


def _since(spec: SourceSpec, base: Read | None, name: str) -> CursorValue | None:
    position = decode(base.position) if base else None
    if position is None or not isinstance(spec, IncrementalSpec):
        return None
    return earlier(position, spec.lateness, name)


def _known(last: Read | None, root: Path) -> dict[str, pl.DataType] | None:
    """The columns and types of the table that landed last."""
    for file in last.files if last else ():
        path = root / file.path
        if path.is_file() and path.stat().st_size == file.bytes:
            with suppress(pl.exceptions.PolarsError, OSError):  # a damaged one says nothing
                return files.schema(path)
    return None


def _find_keys(spec: SourceSpec, base: Read | None) -> tuple[str, ...]:
    """The key columns, where a read is to find out which rows the source has deleted."""
    if base is None or not isinstance(spec, DatabaseSpec) or spec.deduplicate is None:
        return ()
    return spec.deduplicate.keys if spec.effective_mode == "merge" and spec.deletes == "find" else ()


@dataclass
class _Landing:
    """From landed pieces to the table."""

    extraction: Extraction
    spec: SourceSpec
    base: Read | None
    memory_limit: str
    earlier: bool = False
    last: Read | None = None

    def finish(self, found: Extracted) -> LandedTable:
        extraction, root = self.extraction, self.extraction.root
        old = [root / file.path for file in self.base.files] if self.base else []
        old, gone = self._without_replaced(old, found.replaced)
        new = [root / file.path for file in found.files] or ([] if old else [root / nothing(extraction).path])
        largest = self._largest(new)
        came = set(files.schema(new[0] if new else old[0]))
        had = set(self.base.schema or came) if self.base else came
        with reading("the landed chunks", extraction.name, secrets_of(self.spec)), self._set_aside(found) as aside:
            parts = unify(
                [*old, *new, *chain.from_iterable(aside)],
                extraction.folder,
                name=extraction.name,
                open_schema=found.open_schema,
            )
            merge = self._merge(parts, found, (len(old), len(new), *map(len, aside)))
            merge.gained, merge.lost = frozenset(came - had), frozenset(had - came)
            merged = merge.run()
            merged.replaced += gone
            kept = self._worth_keeping(merged.files)
            if old:
                kept = files.compact(kept, extraction.folder)
        for path in found.keys or ():
            path.unlink(missing_ok=True)
        known = {root / f.path: f for f in (*found.files, *(self.base.files if self.base else ()))}
        with reading("the landed chunks", extraction.name, secrets_of(self.spec)):
            table = tuple(known[p] if p in known else files.seal(p, root) for p in kept)
            again = self._unfit_again(found)
            unfit = sum(map(len, again.values()))
            again |= {file.path: merged.aside[i] for i, file in enumerate(_comparable(found)) if i in merged.aside}
            quarantined = tuple(self._quarantined(found, again))
        reached("table.written")
        metrics = self._metrics(found, merged, table, unfit)
        schema = {name: str(dtype) for name, dtype in files.schema(root / table[0].path).items()}
        return LandedTable(
            root,
            table,
            metrics,
            schema,
            position=encode(self._forward(held_back(largest, found.bound))),
            trace=self.base.trace if self.base and self.earlier else found.trace,
            promise=found.promise,
            quarantined=quarantined,
            witness=extraction.watched.of(table) if extraction.watched else None,
        )

    def _without_replaced(self, old: list[Path], replaced: frozenset[str]) -> tuple[list[Path], int]:
        """The table so far without the rows of origins that were read anew, and how many those are."""
        kept, gone = [], 0
        for path in old:
            segments = origin.of(path)
            if not replaced.intersection(segment.origin for segment in segments):
                kept.append(path)
                continue
            starts = accumulate((segment.rows for segment in segments), initial=0)
            rows = [
                pl.int_range(start, start + segment.rows, eager=True)
                for start, segment in zip(starts, segments, strict=False)
                if segment.origin in replaced
            ]
            gone += sum(map(len, rows))
            kept.append(files.without(path, pl.concat(rows), self.extraction.folder))
        return kept, gone

    @contextmanager
    def _set_aside(self, found: Extracted) -> Iterator[tuple[list[Path], list[Path], list[Path]]]:
        """The rows that are held already, those whose quarantine has ended, and those set aside now, as rows of the
        table; where one may be another."""
        sides: tuple[list[Path], list[Path], list[Path]] = ([], [], [])
        before = self.extraction.aside
        held, ended = ([path for path in paths if _is_comparable(path)] for paths in (before.held, before.ended))
        known = [*held, *ended] if self.base and not self.earlier else []
        try:
            for i, path in enumerate(known):
                side = sides[0 if i < len(held) else 1]
                side.append(files.new_path(self.extraction.folder, "aside"))
                # What a replay left, and what a file was made of, stand in several.
                files.write(quarantine.without_reasons(path, known[:i]), side[-1])
            for path in self._paths(_comparable(found)) if known else ():
                sides[2].append(files.new_path(self.extraction.folder, "aside"))
                files.write(quarantine.without_reasons(path), sides[2][-1])
            yield sides
        finally:
            for path in chain.from_iterable(sides):
                path.unlink(missing_ok=True)

    def _unfit_again(self, found: Extracted) -> dict[str, pl.Series]:
        """Of the files of rows that break the contract, the rows that are held already, or were and had their end."""
        if not self.base or self.earlier or isinstance(self.spec, FileKeys):
            return {}
        aside = self.extraction.aside
        known = [path for path in (*aside.held, *aside.ended) if not _is_comparable(path)]
        unfit = [file.path for file in found.quarantined if not _is_comparable(Path(file.path))]
        return {path: quarantine.repeated(self.extraction.root / path, known) for path in unfit} if known else {}

    def _quarantined(self, found: Extracted, again: Mapping[str, pl.Series]) -> Iterator[File]:
        """What was set aside now, without what is held already."""
        for file in found.quarantined:
            rows = again.get(file.path)
            if rows is None or rows.is_empty():
                yield file
            elif rows.len() < file.rows and self.extraction.aside.folder:
                path = files.without(self.extraction.root / file.path, rows, self.extraction.aside.folder)
                yield files.seal(path, self.extraction.root)

    def _paths(self, found: Iterable[File]) -> list[Path]:
        return [self.extraction.root / file.path for file in found]

    def _forward(self, position: CursorValue | None) -> CursorValue | None:
        """A position never goes back: what lateness read again is no reason to read even more next time."""
        before = decode(self.base.position) if self.base else None
        if position is None:
            return before
        if before is None or type(before) is not type(position):
            return position
        return max(before, position)

    def _largest(self, new: list[Path]) -> CursorValue | None:
        cursor = self.spec.cursor if isinstance(self.spec, IncrementalSpec) else None
        if cursor is None or self.earlier or not new:
            return None
        column = exactly(cursor)
        values = []
        for path in new:
            dtype = files.schema(path)[cursor]
            kept = column.filter(column.is_finite()) if dtype.is_float() else column
            values.append(files.scan(path).select(kept.max().alias("largest")).collect().item())
        return max((v for v in values if v is not None), default=None)

    def _merge(self, parts: list[Path], found: Extracted, counts: Sequence[int]) -> Merge:
        """
        Args:
            counts: how many of the ``parts`` are of the table so far, new, held, ended, and set aside now.
        """
        given = iter(parts)
        old, new, held, ended, aside = (list(islice(given, count)) for count in counts)
        spec = self.spec
        asked = spec if isinstance(spec, IncrementalSpec) else None
        merges = asked is not None and asked.effective_mode == "merge"
        return Merge(
            old,
            new,
            self.extraction.folder,
            self.extraction.name,
            self.memory_limit,
            rule=spec.deduplicate,
            order_by=asked.cursor if asked else None,
            cursor=asked.cursor if asked else None,
            keys=found.keys,
            tombstone=asked.tombstone if asked and merges else None,
            held=held,
            ended=ended,
            aside=aside,
            earlier=self.earlier,
            repeats=not isinstance(spec, FileKeys),
        )

    def _worth_keeping(self, paths: list[Path]) -> list[Path]:
        """Without files that hold no rows, but for the one that a table without any needs."""
        return [path for path in paths if pq.read_metadata(path).num_rows] or paths[:1]

    def _metrics(self, found: Extracted, merged: Merged, table: tuple[File, ...], unfit: int) -> Metrics:
        """
        Args:
            unfit: rows that break the contract and are in quarantine already.
        """
        metrics = Metrics(retries=found.retries, chunks_skipped=found.kept)
        for piece in found.pieces:
            metrics.records_read += piece.read
            metrics.records_failed += piece.failed
            for column, count in piece.failed_by_column.items():
                values = column.startswith(files.CONTRACT_VALUES)
                by_column = metrics.values_discarded if values else metrics.failed_by_column
                column = column.removeprefix(files.CONTRACT_VALUES)
                by_column[column] = by_column.get(column, 0) + count
            metrics.per_chunk.append(per_chunk(piece))
        metrics.chunks = len(found.pieces) - found.kept
        before = dict((self.last.metrics or {}).get("columns") or {}) if self.last else {}
        metrics.columns = before if self.earlier else found.terms.columns(before)
        metrics.schema_changes = found.terms.changes(before) if before and not self.earlier else []
        metrics.records_failed -= sum(rows.len() for rows in merged.aside.values()) + unfit
        metrics.duplicates_removed = merged.unchanged + merged.outranked + unfit
        metrics.records_written = metrics.records_read - metrics.records_failed - metrics.duplicates_removed
        metrics.rows = sum(file.rows for file in table)
        metrics.rows_replaced = merged.replaced
        metrics.rows_deleted = merged.deleted
        had = sum(file.rows for file in self.base.files) if self.base else 0
        if metrics.rows != had + metrics.records_written - merged.replaced - merged.deleted:
            raise AssertionError(f"{self.extraction.name}: {had} rows and {metrics} do not add up")
        metrics.bytes_processed = footer_bytes(self.extraction.root / file.path for file in found.files)
        return metrics


def _comparable(found: Extracted) -> list[File]:
    """Of the files set aside, those whose rows have the table's columns and types: they kept to the contract."""
    return [file for file in found.quarantined if _is_comparable(Path(file.path))]


def _is_comparable(path: Path) -> bool:
    return not path.name.startswith(f"{UNFIT}-")

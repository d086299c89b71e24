"""From a source's chunks to landed pieces: renamed, complete in their critical columns, counted, recorded."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow.parquet as pq

from engine.errors import SourceError, TransientSourceError, nearest
from engine.landing import files, origin
from engine.landing.contract import Terms
from engine.landing.journal import Journal
from engine.landing.marked import Marked, count_rows, counts
from engine.landing.marked import nulls as nulls_of
from engine.landing.origin import Segment
from engine.landing.quarantine import Aside
from engine.landing.witness import Watched
from engine.ledger import File, Piece, make_folder
from engine.sources import Chunk, CursorValue, Promise, Reading, Request, Source, StartOver, reading
from engine.sources import Landed as LandedPiece
from engine.spec import IncrementalSpec, SourceSpec, secrets_of
from engine.steps import reached

_RANDOM = random.Random()  # noqa: S311 - jitter and names, no secrets; the program's own generator is not touched

log = logging.getLogger(__name__)

Wait = Callable[[float], object]
UNFIT = "unfit"  # begins the names of files with rows that broke the contract


@dataclass
class Extracted:
    """All pieces of one read, in order, and what the reading said of itself.

    Attributes:
        keys: files with the keys of all rows that the source has now; None where they were not asked for.
        replaced: origins whose earlier rows do not count any more: what was read of them now does.
        open_schema: whether the pieces may differ in columns and types, as JSON's records do.
    """

    pieces: list[Piece]
    promise: Promise
    bound: datetime | None
    trace: Mapping[str, Any] | None
    terms: Terms
    keys: list[Path] | None = None
    open_schema: bool = False
    replaced: frozenset[str] = frozenset()
    retries: int = 0
    kept: int = 0

    @property
    def files(self) -> list[File]:
        return [file for piece in self.pieces for file in piece.files]

    @property
    def quarantined(self) -> list[File]:
        return [file for piece in self.pieces for file in piece.quarantined]


@dataclass
class Extraction:
    """Reading one source into a folder.

    Attributes:
        root: the folder that recorded paths start from.
        folder: where the files go, below it.
        since: where the cursor goes on; None: everything.
        trace: what the source left for this read.
        aside: where rows with a null in a critical column go, and those that break the contract.
        known: the schema that the source landed with last; None: it never has.
        find_keys: columns (as landed) that name a row, to learn which rows the source still has; empty: not asked.
        watched: looks at the rows on their way; None: nobody does.
        progress: called with the number of rows landed so far.
        wait: sleeps between attempts; default: really.
    """

    source: Source
    spec: SourceSpec
    root: Path
    folder: Path
    name: str
    journal: Journal
    aside: Aside = field(default_factory=Aside)
    since: CursorValue | None = None
    trace: Mapping[str, Any] | None = None
    known: Mapping[str, pl.DataType] | None = None
    find_keys: Sequence[str] = ()
    watched: Watched | None = None
    progress: Callable[[int], object] | None = None
    wait: Wait = field(default_factory=lambda: threading.Event().wait)
    _failed: int = field(default=0, init=False)  # attempts
    _earlier: set[int] = field(default_factory=set, init=False)  # pieces of an interrupted run that still hold

    def run(self) -> Extracted:
        """Reads all; a transient failure is followed by another attempt, which goes on from what has landed.

        Raises:
            SourceError: the source cannot be read, or lacks a required column.
            LedgerError: the workdir cannot be written.
        """
        make_folder(self.folder)
        if self.aside.folder:
            make_folder(self.aside.folder)
        self._drop_lost_pieces()
        self._earlier = set(self.journal.pieces)
        for attempt in range(self.spec.max_retries + 1):
            self._failed = attempt
            try:
                found = self._whole_attempt()
            except BaseException as error:
                if self.journal.seal is None:  # nothing that another attempt or run could go on from
                    self._keep(None, ())
                if not isinstance(error, TransientSourceError) or attempt == self.spec.max_retries:
                    raise
                delay = _RANDOM.uniform(0.5, 1.0) * min(30.0, 2.0**attempt)
                log.warning("%s: %s; trying again in %.1f s", error.where, error.message, delay)
            else:
                found.retries = attempt
                return found
            self.wait(delay)
        raise AssertionError("unreachable")  # pragma: no cover

    def _whole_attempt(self) -> Extracted:
        """An attempt; as often as one finds out how it should have begun."""
        while True:
            with suppress(StartOver):
                return self._attempt()

    def _drop_lost_pieces(self) -> None:
        """Forgets pieces of an interrupted run whose files are gone or cut short."""
        for number, piece in list(self.journal.pieces.items()):
            for file in (*piece.files, *piece.quarantined):
                path = self.root / file.path
                if not path.is_file() or path.stat().st_size != file.bytes:
                    del self.journal.pieces[number]
                    break

    def _attempt(self) -> Extracted:
        journal = self.journal
        landed = [LandedPiece(p.number, p.read, p.mark) for p in journal.pieces.values() if p.mark is not None]
        request = Request(since=self.since, seal=journal.seal, landed=landed, trace=self.trace)
        with self.source.open(request) as opened:
            self._keep(opened.seal, opened.kept)
            pass_ = _Pass(self, self._failed)
            with closing(cast("Generator[Chunk, None, None]", opened.chunks())) as chunks:
                pass_.land(chunks)
            keys = self._keys(opened) if self.find_keys else None
            promise, bound, trace = opened.promise, opened.bound, opened.trace
            replaced: frozenset[str] = getattr(opened, "replaced", frozenset())
        if pass_.open_columns is not None:
            pass_.check_columns(pass_.open_columns, self.source.location)
        pieces = [journal.pieces[number] for number in sorted(journal.pieces)]
        kept = [file for piece in pieces if piece.number in self._earlier for file in piece.files[:1]]
        pass_.terms.finish((files.schema(self.root / file.path) for file in kept), self.source.location)
        open_schema, terms = pass_.open_columns is not None, pass_.terms
        return Extracted(pieces, promise, bound, trace, terms, keys, open_schema, replaced, kept=len(self._earlier))

    def _keep(self, seal: Mapping[str, Any] | None, kept: Container[int]) -> None:
        """Records what of the pieces landed before still holds, and removes the files of the others."""
        before = self.journal.pieces
        self.journal.reading(seal, kept)
        self._earlier &= set(self.journal.pieces)
        for piece in before.values():
            if piece.number not in self.journal.pieces:
                for file in (*piece.files, *piece.quarantined):
                    path = self.root / file.path
                    if path.parent in (self.folder, self.aside.folder):  # what another read landed, its table may name
                        path.unlink(missing_ok=True)

    def _keys(self, opened: Reading) -> list[Path]:
        """The keys of all rows the source has, as landed columns."""
        names = {self.spec.in_source(column): column for column in self.find_keys}
        found = []
        with closing(cast("Generator[Chunk, None, None]", opened.keys(list(names)))) as chunks:
            for chunk in chunks:
                path = files.new_path(self.folder, "keys")
                with reading(chunk.origin, self.name, secrets_of(self.spec)):
                    files.write(chunk.frame.rename(names), path)
                found.append(path)
        return found


class _Pass:
    """The chunks of one attempt, as they come."""

    def __init__(self, extraction: Extraction, retries: int) -> None:
        self.extraction, self.retries = extraction, retries
        self.spec, self.name = extraction.spec, extraction.name
        self.secrets = secrets_of(extraction.spec)
        self.terms = Terms(self.spec, extraction.known, self.name, {column for _, column in needed(self.spec)})
        # Columns seen in records, as they come; None for sources whose every chunk must have them all.
        self.open_columns: dict[str, None] | None = None
        self.parts: dict[int, list[_Part]] = {}  # of pieces that are not whole yet
        self.rows = sum(file.rows for piece in extraction.journal.pieces.values() for file in piece.files)
        self.since = time.monotonic()

    def land(self, chunks: Iterable[Chunk]) -> None:
        """Lands every piece; what is left of one that never became whole is removed."""
        try:
            for chunk in chunks:
                self._check_number(chunk)
                self.parts.setdefault(chunk.number, []).append(self._write(chunk))
                if chunk.last:
                    self._commit(chunk)
                if self.extraction.progress:
                    self.extraction.progress(self.rows)
            for number in self.parts:
                raise self._misnumbered(f"piece {number} never came to its last part")
        except BaseException:
            for file in (file for parts in self.parts.values() for part in parts for file in part.all_files):
                with suppress(OSError):
                    (self.extraction.root / file.path).unlink(missing_ok=True)
            raise

    def _check_number(self, chunk: Chunk) -> None:
        """Two pieces of one number, or a part out of turn, would be rows lost in silence."""
        if chunk.number in self.extraction.journal.pieces:
            raise self._misnumbered(f"there are two pieces with the number {chunk.number}")
        if chunk.part != len(self.parts.get(chunk.number, ())):
            raise self._misnumbered(f"part {chunk.part} of piece {chunk.number} came out of turn")

    def _misnumbered(self, message: str) -> SourceError:
        return SourceError(
            f"the source has miscounted its chunks: {message}",
            code="source.misnumbered",
            where=f"sources.{self.name}",
            allowed="pieces numbered from 0, the parts of each from 0, one after the other, the last marked as such",
            fix="this is a mistake in the source, not in the data; tell whoever wrote it",
        )

    def _commit(self, chunk: Chunk) -> None:
        parts = self.parts.pop(chunk.number)
        by_column: dict[str, int] = {}
        for part in parts:
            for column, count in part.failed_by_column.items():
                by_column[column] = by_column.get(column, 0) + count
        now = time.monotonic()
        self.extraction.journal.add(
            Piece(
                number=chunk.number,
                mark=chunk.mark,
                read=sum(part.read for part in parts),
                failed=sum(part.failed for part in parts),
                failed_by_column=by_column,
                files=tuple(part.file for part in parts),
                seconds=round(now - self.since, 6),
                retries=self.retries,
                quarantined=tuple(file for part in parts for file in part.quarantined),
            )
        )
        self.since = now

    def _write(self, chunk: Chunk) -> _Part:
        """Writes a chunk: renamed, rows with a null in a critical column set aside, everything counted."""
        extraction = self.extraction
        path = files.new_path(extraction.folder, f"chunk-{chunk.number:06d}-{chunk.part:03d}")
        with reading(chunk.origin, self.name, self.secrets):
            frame = self._mapped(chunk)
            read = chunk.rows if chunk.rows is not None else count_rows(frame)
            segments = origin.arrived(chunk, extraction.aside.read, read)
            fitted = self.terms.fit(frame, chunk.origin, open_schema=chunk.open_schema)
            unfit = Marked(frame, fitted.unfit, files.CONTRACT)
            rest = fitted.of(unfit.without())
            nulls = Marked(rest, nulls_of(rest, self.spec.critical_columns), "critical_columns.")
            left = unfit.left_of(segments)
            going, watched = nulls.without(), extraction.watched
            rows = watched.taken(going, chunk.rows) if watched else None
            files.write(going if rows is None else rows.lazy(), path, nulls.left_of(left))
            aside = (self._set_aside(unfit, chunk, segments, UNFIT), self._set_aside(nulls, chunk, left, "null"))
            reached("piece.written")
            broken = {f"{files.CONTRACT}{column}": count for column, count in unfit.by_column.items()}
            lost = counts(frame, fitted.lost)
            broken |= {f"{files.CONTRACT_VALUES}{column}": count for column, count in lost.items()}
            by_column = {**nulls.by_column, **{column: count for column, count in broken.items() if count}}
            failed, quarantined = unfit.rows + nulls.rows, tuple(file for file in aside if file)
            part = _Part(files.seal(path, extraction.root), read, failed, by_column, quarantined)
        if failed != read - part.file.rows or (quarantined and sum(file.rows for file in quarantined) != failed):
            raise SourceError(
                f"{chunk.origin}: {read} rows are there, {part.failed} of them are left out, but {part.file.rows} were "
                "written",
                code="source.count_mismatch",
                where=f"sources.{self.name}",
                fix="the source changed while it was read, or is damaged; run again",
            )
        if watched and rows is not None:
            watched.seen(rows, part.file)
        self.rows += part.file.rows
        return part

    def _set_aside(self, marked: Marked, chunk: Chunk, segments: Sequence[Segment], stem: str) -> File | None:
        aside = self.extraction.aside
        if not marked.rows or not aside.folder:
            return None
        path = files.new_path(aside.folder, f"{stem}-{chunk.number:06d}-{chunk.part:03d}")
        marked.write(path, segments, aside.run)
        return files.seal(path, self.extraction.root)

    def _mapped(self, chunk: Chunk) -> pl.LazyFrame:
        """The chunk's frame with its columns renamed and those there that it must have."""
        have = chunk.frame.collect_schema().names()
        if chunk.open_schema:
            # No record of this chunk has some column: that is null here; whether any chunk has it is seen at the end.
            self.open_columns = {**(self.open_columns or {}), **dict.fromkeys(have)}
            mapping = {old: new for old, new in self.spec.column_mapping.items() if old in have}
        else:
            mapping = dict(self.spec.column_mapping)
            self.check_columns(have, chunk.origin)
        names = [mapping.get(c, c) for c in have]
        if clash := sorted({n for n in names if names.count(n) > 1}):
            raise SourceError(
                f"{chunk.origin}: column_mapping gives two columns the name {clash[0]!r}",
                code="source.mapping_collision",
                where=f"sources.{self.name}",
                fix=f"map the other {clash[0]!r} to a name of its own",
            )
        absent = dict.fromkeys(c for _, c in needed(self.spec) if c not in names)
        return chunk.frame.rename(mapping).with_columns(pl.lit(None).alias(c) for c in absent)

    def check_columns(self, have: Iterable[str], origin: str) -> None:
        """Makes sure that every column the declaration names is there."""
        have = list(have)
        for old in self.spec.column_mapping:
            if old not in have:
                raise self._missing(old, have, origin, "column_mapping")
        names = [self.spec.column_mapping.get(c, c) for c in have]
        for key, column in needed(self.spec):
            if column not in names:
                raise self._missing(column, names, origin, key)

    def _missing(self, column: str, have: Sequence[str], origin: str, key: str) -> SourceError:
        near = nearest(column, have)
        return SourceError(
            f"{origin} has no column {column!r}, which {key} names",
            code="source.missing_column",
            where=f"sources.{self.name}",
            allowed=f"columns there are: {', '.join(have)}",
            fix=f"did you mean {near!r}?" if near else f"correct {key}, or the source",
        )


@dataclass(frozen=True)
class _Part:
    file: File
    read: int
    failed: int
    failed_by_column: Mapping[str, int]
    quarantined: tuple[File, ...] = ()

    @property
    def all_files(self) -> list[File]:
        return [self.file, *self.quarantined]


def nothing(extraction: Extraction) -> File:
    """An empty table of a source that gave no records, with the columns that its declaration names."""
    names = dict.fromkeys(column for _, column in needed(extraction.spec))
    path = files.empty(dict.fromkeys(names or ["nothing"], pl.Null()), extraction.folder)
    return files.seal(path, extraction.root)


def needed(spec: SourceSpec) -> list[tuple[str, str]]:
    """The columns that a declaration names, each with the key that does; as they are after mapping."""
    found = [("required_columns", c) for c in spec.required_columns]
    found += [("critical_columns", c) for c in spec.critical_columns]
    found += [("pii", c) for c in spec.pii]  # one that is misspelt would be no secret
    if spec.deduplicate:
        found += [("deduplicate", c) for c in spec.deduplicate.keys]
        found += [("deduplicate", c) for c in [spec.deduplicate.order_by] if c]
    if isinstance(spec, IncrementalSpec):
        found += [(key, c) for key in ("cursor", "tombstone") if (c := getattr(spec, key)) is not None]
    return found


def footer_bytes(paths: Iterable[Path]) -> int:
    """The size of all columns, uncompressed."""
    footers = map(pq.read_metadata, paths)
    return sum(f.row_group(i).total_byte_size for f in footers for i in range(f.num_row_groups))

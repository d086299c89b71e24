"""One reading of files: which of them, in what pieces, how they become chunks.

A piece is a run of small files, a large file, or a slice of a large Parquet file's row groups. One is read while
another lands: Arrow and Polars have threads of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from engine.errors import TransientSourceError
from engine.sources import Chunk, Promise, Request, Span, StartOver
from engine.sources.copies import Copies
from engine.sources.store import FETCHES, Entry, LocalStore, Store
from engine.sources.threads import Stalled, Threads, begin, result
from engine.spec import COMPRESSIONS, FileSpec, S3Spec, file_format
from engine.stopwatch import waiting

if TYPE_CHECKING:
    import polars as pl

    from engine.sources.formats import Job, Part

BATCH_BYTES = 32 * 2**20  # of small files that are one piece
AHEAD_BYTES = 12 * 2**20  # of files that are fetched while another is read; one at least
BATCH_FILES = 256
SLICE_BYTES = 128 * 2**20  # of a large Parquet file that is one piece
PART_ROWS = 50_000
PART_BYTES = 12 * 2**20


@dataclass(frozen=True)
class Piece:
    """Some files, or a slice of one."""

    number: int
    entries: tuple[Entry, ...]
    slice: tuple[int, int] = (0, 1)

    @cached_property
    def digest(self) -> str:
        """Of all that its rows depend on, the declaration aside."""
        text = json.dumps([[entry.path, *entry.state] for entry in self.entries] + [list(self.slice)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def known(self) -> bool:
        """Whether a change of its files would show."""
        return all(entry.version is not None for entry in self.entries)


class FileReading(AbstractContextManager["FileReading"]):
    """See `engine.sources.Reading`.

    Attributes:
        replaced: the files that have changed since an earlier read, whose rows of then do not count any more.
    """

    bound: datetime | None = None

    def __init__(
        self, name: str, spec: FileSpec | S3Spec, path: str, store: Store, request: Request, texts: set[str]
    ) -> None:
        self._name, self._spec, self._store = name, spec, store
        self._form = spec.format or file_format(path) or ""
        self._texts = texts  # columns of CSV files that are text, as came out while they were read
        self._compression = spec.compression
        self._shared: dict[str, Future[Path | bytes]] = {}
        self._left: dict[str, int] = {}
        self._lock = Lock()
        self._copies: Copies | None = None
        self._pool: ThreadPoolExecutor | None = None
        try:
            entries = store.entries()
        except BaseException:
            store.close()
            raise
        self._partitions = _partitions(entries) if spec.hive_partitions else None
        before: Mapping[str, Any] = (request.trace or {}).get("files", {}) if spec.mode == "append" else {}
        new = [e for e in entries if e.version is None or before.get(e.shown) != e.state]
        self.replaced = frozenset(e.shown for e in new if e.shown in before)
        self.trace: Mapping[str, Any] | None = None
        if spec.mode == "append":
            self.trace = {"files": {**before, **{entry.shown: entry.state for entry in entries}}}
        self._plan = list(_pieces(new, sliced=self._form == "parquet"))
        options = spec.model_dump(mode="json", include={"format", "compression", "csv", "hive_partitions", "mode"})
        options["partitions"] = self._partitions and {key: str(kind) for key, kind in self._partitions.items()}
        digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
        same = request.seal is not None and request.seal.get("options") == digest
        if same and request.seal is not None:
            self._texts |= set(request.seal["texts"])
        self.seal: Mapping[str, Any] | None = {"options": digest, "texts": sorted(self._texts)}
        self._kinds: dict[str, set[str]] = {}
        self.kept = frozenset(self._still(request) if same else ())
        counted = self._form == "parquet" and bool(new)
        self.promise = Promise(counted=counted)

    def __exit__(self, *_: object) -> None:
        self._store.close()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._copies:
            self._copies.remove()

    def _still(self, request: Request) -> Iterator[int]:
        """The pieces that an interrupted reading landed, and that this one would land alike."""
        plan = {piece.number: piece for piece in self._plan}
        for landed in request.landed:
            piece = plan.get(landed.number)
            kinds = landed.mark.get("kinds", {})
            changed = [c for c in self._texts if set(kinds.get(c, ())) - {"null", "text"}]
            if piece and piece.known and landed.mark.get("of") == piece.digest and not changed:
                for column, found in kinds.items():
                    self._kinds.setdefault(column, set()).update(found)
                yield landed.number

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """Not of these sources."""
        raise NotImplementedError

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        pieces = [piece for piece in self._plan if piece.number not in self.kept]
        if not pieces:
            return
        for piece in pieces:
            for entry in piece.entries:
                self._left[entry.path] = self._left.get(entry.path, 0) + 1
        self._copies = Copies()
        limits = self._spec.limits
        deadline = self._spec.timeout_seconds * (self._spec.max_retries + 2) + limits.seconds * BATCH_FILES
        threads = Threads[None, Piece](
            nullcontext, lambda _, piece: self._read(piece), workers=1, deadline=deadline, ahead=1
        )
        try:
            for chunk in threads.chunks(pieces):
                self._check_kinds(chunk)
                yield chunk
        except Stalled:
            raise TransientSourceError(
                f"nothing was read within {deadline:g} seconds",
                code="source.timeout",
                where=f"sources.{self._name}",
                fix="check that the store is up",
            ) from None

    def _check_kinds(self, chunk: Chunk) -> None:
        """Makes sure that no column of CSV files is of one kind here and of another there, which only text is both.

        Raises:
            StartOver: there is such a column; from now on it is text.
        """
        from engine.sources.csv_types import common

        wrong = set()
        for column, kinds in (chunk.mark or {}).get("kinds", {}).items():
            known = self._kinds.setdefault(column, set())
            known.update(kinds)
            if column not in self._texts and not common(known):
                wrong.add(column)
        if wrong:
            self._texts |= wrong
            raise StartOver

    # --- one piece, in a thread ------------------------------------------------------------------------------------

    def _read(self, piece: Piece) -> Iterator[Chunk]:
        """The chunks of a piece; each but the last is followed by another."""
        kinds: dict[str, set[str]] = {}
        held: Chunk | None = None
        for part, chunk in enumerate(self._parts(piece, kinds)):
            if held is not None:
                yield held
            mark = {"of": piece.digest, "kinds": {c: sorted(found) for c, found in kinds.items()}}
            held = replace(chunk, part=part, last=False, mark=mark)
        if held is not None:
            yield replace(held, last=True)

    def _parts(self, piece: Piece, kinds: dict[str, set[str]]) -> Iterator[Chunk]:
        """Chunks of neighbouring parts of one schema."""
        import polars as pl

        frames: list[pl.DataFrame] = []
        spans: list[Span] = []
        origins: list[str] = []
        open_schema, rows, size = False, 0, 0

        def chunk() -> Chunk:
            origin = origins[0] if len(origins) == 1 else f"{origins[0]} to {origins[-1]}"
            whole = pl.concat(frames) if len(frames) > 1 else frames[0]
            return Chunk(piece.number, origin, whole.lazy(), whole.height, open_schema, spans=list(spans))

        for entry, found in self._each_part(piece):
            for column, kind in (found.kinds or {}).items():
                kinds.setdefault(column, set()).add(kind)
            frame = self._with_partitions(found.frame, entry)
            weight = int(frame.estimated_size())
            full = rows + frame.height > PART_ROWS or size + weight > PART_BYTES
            alike = frames and frame.width and list(frames[0].schema.items()) == list(frame.schema.items())
            if frames and (full or not alike or (found.place and origins)):
                yield chunk()
                frames, spans, origins, rows, size = [], [], [], 0, 0
            frames.append(frame)
            spans.append(Span(entry.shown, found.first, frame.height))
            origins.append(entry.shown + found.place)
            open_schema, rows, size = found.open_schema, rows + frame.height, size + weight
            del frame, found
        if frames:
            yield chunk()

    def _each_part(self, piece: Piece) -> Iterator[tuple[Entry, Part]]:
        """The parts of the piece's files, fetched some ahead where that takes time."""
        if len(piece.entries) == 1 or isinstance(self._store, LocalStore):
            yield from self._of_files(piece, map(self._body, piece.entries))
        else:
            yield from self._of_files(piece, self._fetched(piece.entries))

    def _fetched(self, entries: Sequence[Entry]) -> Iterator[Path | bytes]:
        """The files' contents, in order."""
        with self._lock:
            pool = self._pool = self._pool or ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
        ahead: deque[tuple[int, Future[Path | bytes]]] = deque()
        held, rest = 0, deque(entries)
        while rest or ahead:
            while rest and len(ahead) < FETCHES and (not ahead or held + (rest[0].size or 0) <= AHEAD_BYTES):
                entry = rest.popleft()
                ahead.append((entry.size or 0, pool.submit(self._body, entry)))
                held += entry.size or 0
            size, first = ahead.popleft()
            with waiting("source"):
                body = first.result()
            yield body
            held -= size

    def _of_files(self, piece: Piece, bodies: Iterator[Path | bytes]) -> Iterator[tuple[Entry, Part]]:
        from engine.sources import formats
        from engine.sources.child import Child

        with Child() as child:
            read = child.read if self._spec.untrusted else formats.read
            for entry, body in zip(piece.entries, bodies, strict=True):
                for part in read(self._job(entry, body, piece.slice)):
                    yield entry, part
                self._store.check(entry)
                self._done(entry, body)

    def _job(self, entry: Entry, body: Path | bytes, cut: tuple[int, int]) -> Job:
        from engine.sources.formats import Job

        by_suffix = next((c for suffix, c in COMPRESSIONS.items() if entry.shown.lower().endswith(suffix)), "none")
        spec = self._spec
        return Job(
            body,
            self._form,
            entry.shown,
            self._name,
            spec.compression or by_suffix,
            spec.csv,
            spec.limits,
            spec.batch_size,
            frozenset(self._texts),
            cut,
        )

    def _body(self, entry: Entry) -> Path | bytes:
        """A file's content; of one that is read in slices the same for all of them."""
        folder = self._folder
        with self._lock:
            known = self._shared.get(entry.path)
            if known is None and self._left[entry.path] > 1:
                known = begin(lambda: self._store.body(entry, folder, spooled=self._spec.untrusted))
                self._shared[entry.path] = known
        return result(known, 1e9) if known else self._store.body(entry, folder, spooled=self._spec.untrusted)

    @property
    def _folder(self) -> Path:
        assert self._copies  # noqa: S101 - it is there while pieces are read
        return self._copies.path

    def _done(self, entry: Entry, body: Path | bytes) -> None:
        """A slice of a file, or all of it, is read; a copy that nobody needs any more is removed."""
        with self._lock:
            self._left[entry.path] -= 1
            if self._left[entry.path]:
                return
            self._shared.pop(entry.path, None)
        if isinstance(body, Path) and body.parent == self._folder:
            body.unlink(missing_ok=True)

    def _with_partitions(self, frame: pl.DataFrame, entry: Entry) -> pl.DataFrame:
        """With the columns that its folders name; a column of the file itself stays as it is."""
        import polars as pl

        if self._partitions is None:
            return frame
        values = entry.partitions()
        added = [
            pl.lit(values.get(key)).cast(kind).alias(key)
            for key, kind in self._partitions.items()
            if key not in frame.columns
        ]
        return frame.with_columns(added) if frame.width else frame


def _partitions(entries: Sequence[Entry]) -> dict[str, Any]:
    """The columns that folders name, with types that rest on all of them: whole numbers, else text."""
    import polars as pl

    from engine.sources.csv_types import Column

    found: dict[str, list[str | None]] = {}
    for entry in entries:
        for key, value in entry.partitions().items():
            found.setdefault(key, []).append(value)
    types = {}
    for key, values in found.items():
        column = Column()
        column.add(pl.Series(values, dtype=pl.String))
        types[key] = pl.Int64 if column.type is pl.Int64 else pl.String
    return types


def _pieces(entries: Sequence[Entry], *, sliced: bool) -> Iterator[Piece]:
    """Files in order: small neighbours together, large Parquet files in slices."""
    number = 0
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        weight = entry.size if entry.size is not None else BATCH_BYTES
        if batch and (size + weight > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield Piece(number, tuple(batch))
            batch, size, number = [], 0, number + 1
        slices = -(-weight // SLICE_BYTES) if sliced else 1
        if slices > 1:
            for i in range(slices):
                yield Piece(number, (entry,), (i, slices))
                number += 1
            continue
        batch.append(entry)
        size += weight
    if batch:
        yield Piece(number, tuple(batch))

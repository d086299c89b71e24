"""The test kit of sources: `check_source` runs one through all that the engine relies on.

A broken rule raises `Broken` (an AssertionError) that says which, and what was seen. Nothing here waits for a time to
pass, and no order of the files in a folder, or of threads, makes a difference to the verdict.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import polars as pl
from pydantic import ValidationError

from engine.errors import MaestroError, SourceError
from engine.sources import Chunk, Landed, Reading, Request, Source
from engine.spec import IncrementalSpec, SourceSpec, secrets_of
from engine.spec.plugins import wrong_with

CHUNK_BYTES = 128 * 2**20
STOP_SECONDS = 30.0  # how long a reading may take to end before it counts as one that does not end
Open = Callable[[str, SourceSpec, Path], Source]


class Broken(AssertionError):  # noqa: N818 - a rule is
    """A rule that a source breaks: its name, and what was seen."""

    def __init__(self, rule: str, seen: str) -> None:
        super().__init__(f"{rule}: {seen}")
        self.rule = rule


@dataclass(frozen=True)
class Checked:
    """What the kit saw of a source that broke no rule.

    Attributes:
        rows: how many it gives.
        chunks: in how many chunks.
        resumable: whether a reading that was interrupted goes on from what had landed.
        rules: those that it was held to, by name.
    """

    rows: int
    chunks: int
    resumable: bool
    rules: tuple[str, ...]


def check_source(
    kind: type[Any],
    keys: Mapping[str, Any],
    expected: pl.DataFrame,
    *,
    base: Path | str = ".",
    wrong: Iterable[Mapping[str, Any]] = (),
    large: Mapping[str, Any] | None = None,
    memory_mb: int = 64,
    secrets: Iterable[str] | None = None,
    source: Open | None = None,
) -> Checked:
    """Runs a source through all rules.

    Args:
        kind: its class.
        keys: its declaration as in the pipeline file, without ``type``; best of two chunks at least. Where there are
            keys for secrets, some must be given, of four characters or more.
        expected: the rows it must give, in order.
        base: the folder that relative paths start from.
        wrong: declarations that cannot be read (a wrong password, a missing file): each must fail with a SourceError.
        large: a declaration of a table that takes four times ``memory_mb`` and more: reading it must not take more
            than that. Linux only; elsewhere nothing is measured.
        memory_mb: how much more memory reading may take.
        secrets: what must not be told; default: the values of all keys for secrets, also of ``wrong``.
        source: makes the source; default: ``kind`` itself.

    Raises:
        Broken: it breaks a rule.
    """
    told = None if secrets is None else frozenset(secrets)
    return _Kit(kind, dict(keys), Path(base), source or kind, told).run(expected, wrong, large, memory_mb)


@dataclass
class _Kit:
    """One source under test."""

    kind: type[Any]
    keys: Mapping[str, Any]
    base: Path
    make: Open
    secrets: frozenset[str] | None

    def run(
        self, expected: pl.DataFrame, wrong: Iterable[Mapping[str, Any]], large: Mapping[str, Any] | None, memory: int
    ) -> Checked:
        spec = self._declared()
        with _overheard() as said:
            source = self._made(spec)
            first = self._complete(source, expected)
            self._repeatable(source, first)
            self._bounded(source)
            self._cancellable(spec, first)
            resumable = self._resumable(source, first)
            incremental = self._incremental(spec, source, first)
            told = [self._failing(keys) for keys in wrong]
            if large is not None:
                self._within(large, memory)
        self._silent(spec, [said(), *told, *_texts(source, spec, first)])
        for keys, text in zip(wrong, told, strict=False):
            self._silent(self._spec(keys), [text])
        rules: tuple[str, ...] = ("declared", "complete", "numbered", "repeatable", "bounded", "cancellable", "silent")
        rules += (("resumable",) if resumable else ()) + (("incremental",) if incremental else ())
        rules += ("failing",) if told else ()
        return Checked(expected.height, len(first.chunks), resumable, rules + (("within",) if large else ()))

    # --- declared ---------------------------------------------------------------------------------------------------

    def _spec(self, keys: Mapping[str, Any]) -> SourceSpec:
        name = self._type()
        try:
            spec: SourceSpec = self.kind.Spec.model_validate({"type": name, **keys})
        except ValidationError as error:
            raise Broken("declared", f"Spec refuses the declaration: {error}") from None
        if problems := [problem.message for problem in spec.problems(("sources", "s"))]:
            raise Broken("declared", f"Spec finds mistakes in the declaration: {'; '.join(problems)}")
        return spec

    def _type(self) -> str:
        field = getattr(getattr(self.kind, "Spec", None), "model_fields", {}).get("type")
        name = next(iter(getattr(getattr(field, "annotation", None), "__args__", ())), "")
        if wrong := wrong_with(self.kind, name):
            raise Broken("declared", wrong)
        return str(name)

    def _declared(self) -> SourceSpec:
        """Strict, frozen, with a JSON Schema; secrets where there are keys for them."""
        spec = self._spec(self.keys)
        try:
            self.kind.Spec.model_validate({"type": spec.type, **self.keys, "no_such_key": 1})
        except ValidationError:
            pass
        else:
            raise Broken("declared", "an unknown key is accepted; leave model_config as SourceSpec has it")
        schema = json.dumps(self.kind.Spec.model_json_schema())
        if '"writeOnly": true' in schema and self.secrets is None and not secrets_of(spec):
            raise Broken("declared", "there are keys for secrets, but the declaration has none (of four characters)")
        return spec

    def _made(self, spec: SourceSpec) -> Source:
        source = self.make("s", spec, self.base)
        if source.kind != spec.type or not isinstance(source.location, str) or not source.location:
            raise Broken("declared", f"kind must be {spec.type!r} and location a text, not {source.kind!r}")
        return source

    # --- complete, numbered, repeatable -------------------------------------------------------------------------------

    def _read(self, source: Source, request: Request | None = None) -> _Read:
        with source.open(request or Request()) as opened:
            kept, seal = opened.kept, opened.seal
            chunks, frames = [], []
            with _closing(opened) as given:
                for chunk in given:
                    frame = chunk.frame.collect()
                    if chunk.rows is not None and chunk.rows != frame.height:
                        raise Broken("complete", f"{chunk.origin}: rows says {chunk.rows}, there are {frame.height}")
                    chunks.append(replace(chunk, frame=pl.LazyFrame()))
                    frames.append(frame)
            promise = opened.promise
        read = _Read(chunks, frames, kept, seal, promise)
        read.check_numbers()
        return read

    def _complete(self, source: Source, expected: pl.DataFrame) -> _Read:
        read = self._read(source)
        if wrong := _different(read.table(), expected):
            raise Broken("complete", wrong)
        if read.kept:
            raise Broken("complete", f"a reading that nothing was asked of keeps the pieces {sorted(read.kept)}")
        return read

    def _repeatable(self, source: Source, first: _Read) -> None:
        again = self._read(source)
        mine, theirs = (
            [(c.number, c.part, c.last, c.origin, c.open_schema) for c in r.sorted()] for r in (first, again)
        )
        if mine != theirs:
            raise Broken("repeatable", f"a second reading is cut otherwise: {mine[:5]}, then {theirs[:5]}")
        for one, other in zip(first.sorted_frames(), again.sorted_frames(), strict=True):
            if wrong := _different(other, one):
                raise Broken("repeatable", wrong)

    # --- bounded ------------------------------------------------------------------------------------------------------

    def _bounded(self, source: Source) -> None:
        """No chunk is too large, and none is held on to once the next one was asked for."""
        held: list[Any] = []
        with source.open(Request()) as opened, _closing(opened) as chunks:
            for chunk in chunks:
                if _in_memory(chunk.frame) and (size := chunk.frame.collect().estimated_size()) > CHUNK_BYTES:
                    raise Broken("bounded", f"{chunk.origin} has {size:,} bytes in memory; at most {CHUNK_BYTES:,}")
                held.append(weakref.ref(chunk.frame))
                gc.collect()
                still = sum(frame() is not None for frame in held) - 1
                if still > 1:
                    raise Broken(
                        "bounded", f"at {chunk.origin} the {still} chunks before it are still held; forget them"
                    )
                del chunk

    def _within(self, keys: Mapping[str, Any], memory_mb: int) -> None:
        statm = Path("/proc/self/statm")
        if not statm.exists():
            return

        def used() -> int:
            return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        source = self._made(self._spec(keys))
        gc.collect()
        before = used()
        most = total = 0
        with source.open(Request()) as opened, _closing(opened) as chunks, tempfile.TemporaryDirectory() as folder:
            for chunk in chunks:
                most = max(most, used() - before)
                chunk.frame.sink_parquet(Path(folder) / "chunk.parquet")
                total += int(pl.scan_parquet(Path(folder) / "chunk.parquet").collect().estimated_size())
        limit = memory_mb * 2**20
        if total < 4 * limit:
            raise Broken("within", f"large is {total:,} bytes; four times memory_mb is {4 * limit:,}")
        if most > limit:
            raise Broken("within", f"reading {total:,} bytes took {most:,} bytes of memory; allowed are {limit:,}")

    # --- cancellable --------------------------------------------------------------------------------------------------

    def _cancellable(self, spec: SourceSpec, first: _Read) -> None:
        """Left in the middle it ends at once and leaves nothing behind; an interrupt comes through."""
        source = self._made(spec)
        self._stop_after(source, 1, None)  # what opens once for all readings is open now
        gc.collect()
        with tempfile.TemporaryDirectory() as folder, _temporary(folder):
            before = _resources()
            self._stop_after(source, 1, None)
            self._stop_after(source, 0, None)
            self._stop_after(source, 1, KeyboardInterrupt)
            gc.collect()
            left = sorted(os.listdir(folder))  # noqa: PTH208 - names only
        if left:
            raise Broken("cancellable", f"temporary files stay behind: {', '.join(left[:5])}")
        if more := _more_than(before):
            raise Broken("cancellable", f"{more} stay behind")
        if _different(self._read(source).table(), first.table()):
            raise Broken("cancellable", "a reading after one that was stopped gives other rows")

    def _stop_after(self, source: Source, chunks: int, interrupt: type[BaseException] | None) -> None:
        ended = threading.Event()
        swallowed: list[str] = []

        def stop() -> None:
            try:
                with source.open(Request()) as opened:
                    given = opened.chunks()
                    for _ in range(chunks):
                        next(given, None)
                    if interrupt and hasattr(given, "throw"):
                        cast("Any", given).throw(interrupt())
                        swallowed.append("the interrupt is swallowed")
                    cast("Any", given).close()
            except BaseException as error:  # noqa: BLE001 - told by the thread that waits
                if not interrupt or not isinstance(error, interrupt):
                    swallowed.append(f"stopped in the middle, it raises {type(error).__name__}: {error}")
            finally:
                ended.set()

        thread = threading.Thread(target=stop, daemon=True)
        thread.start()
        if not ended.wait(STOP_SECONDS):
            raise Broken("cancellable", f"left in the middle, it has not ended after {STOP_SECONDS:g} s")
        thread.join()
        if swallowed:
            raise Broken("cancellable", swallowed[0])

    # --- resumable ----------------------------------------------------------------------------------------------------

    def _resumable(self, source: Source, first: _Read) -> bool:
        """What is kept of an interrupted reading, and what is read now, are all rows once."""
        marks = {c.number: c.mark for c in first.chunks if c.last and c.mark is not None}
        if first.seal is None or not marks:
            return False
        number, mark = next(iter(marks.items()))
        rows = sum(f.height for c, f in zip(first.chunks, first.frames, strict=True) if c.number == number)
        landed = Landed(number, rows, json.loads(json.dumps(mark)))
        again = self._read(source, Request(seal=json.loads(json.dumps(first.seal)), landed=[landed]))
        if not again.kept <= {number}:
            raise Broken("resumable", f"the pieces {sorted(again.kept)} are kept, of which only {number} had landed")
        table = first.of(again.kept) + again.pieces()
        order = sorted(table, key=lambda piece: piece[0])
        if wrong := _different(_concat([frame for _, frame in order]), first.table()):
            raise Broken("resumable", f"the pieces {sorted(again.kept)} were kept; with them, {wrong}")
        return bool(again.kept)

    # --- incremental --------------------------------------------------------------------------------------------------

    def _incremental(self, spec: SourceSpec, source: Source, first: _Read) -> bool:
        """Asked for the rows since a value of the cursor, it gives those that have it or more, or none; no others."""
        if not isinstance(spec, IncrementalSpec) or spec.cursor is None:
            return False
        table, column = first.table(), spec.in_source(spec.cursor)
        if column not in table.columns:
            raise Broken("incremental", f"there is no column {column!r}, which is the cursor")
        known = table[column].drop_nulls().unique().sort()
        if known.len() < 3:
            raise Broken("incremental", f"{column!r} has {known.len()} values; three are needed to try it")
        for since in (known[known.len() // 2], known[-1]):
            wanted = table.filter((pl.col(column) >= since) | pl.col(column).is_null())
            if wrong := _different(self._read(source, Request(since=since)).table(), wanted):
                raise Broken("incremental", f"of the rows since {since!r}: {wrong}")
        return True

    # --- failing, silent ----------------------------------------------------------------------------------------------

    def _failing(self, keys: Mapping[str, Any]) -> str:
        """What a declaration that cannot be read says of that."""
        spec = self._spec(keys)
        try:
            self._read(self.make("s", spec, self.base))
        except SourceError as error:
            return f"{error}\n{error.__cause__}\n{'' if error.__suppress_context__ else error.__context__}"
        except MaestroError as error:
            raise Broken("failing", f"{type(error).__name__} instead of a SourceError: {error}") from None
        except Exception as error:
            raise Broken("failing", f"{type(error).__name__} instead of a SourceError: {error}") from error
        raise Broken("failing", "a declaration said to be wrong was read without an error")

    def _silent(self, spec: SourceSpec, texts: Iterable[str]) -> None:
        for secret in secrets_of(spec) if self.secrets is None else self.secrets:
            for text in texts:
                if secret in text:
                    raise Broken("silent", f"a secret is told: {text.replace(secret, '<secret>')[:300]}")


@dataclass
class _Read:
    """One reading, collected: its chunks in the order in which they came, without their frames, and those."""

    chunks: list[Chunk]
    frames: list[pl.DataFrame]
    kept: frozenset[int]
    seal: Mapping[str, Any] | None
    promise: Any

    def check_numbers(self) -> None:
        parts: dict[int, int] = {}
        whole = set(self.kept)
        for chunk in self.chunks:
            if chunk.number in whole:
                raise Broken("numbered", f"piece {chunk.number} comes again after its last part, or though it is kept")
            if chunk.part != parts.get(chunk.number, 0):
                raise Broken("numbered", f"part {chunk.part} of piece {chunk.number} is out of turn")
            parts[chunk.number] = chunk.part + 1
            if chunk.last:
                whole.add(chunk.number)
        if unfinished := set(parts) - whole:
            raise Broken("numbered", f"the pieces {sorted(unfinished)} have no last part")
        if whole != set(range(len(whole))):
            raise Broken("numbered", f"the pieces are {sorted(whole)[:20]}, not 0, 1, 2 …")

    def sorted(self) -> list[Chunk]:
        return sorted(self.chunks, key=lambda chunk: (chunk.number, chunk.part))

    def sorted_frames(self) -> list[pl.DataFrame]:
        return [frame for _, frame in sorted(self._placed(), key=lambda placed: placed[0])]

    def _placed(self) -> Iterator[tuple[tuple[int, int], pl.DataFrame]]:
        for chunk, frame in zip(self.chunks, self.frames, strict=True):
            yield (chunk.number, chunk.part), frame

    def pieces(self) -> list[tuple[tuple[int, int], pl.DataFrame]]:
        return list(self._placed())

    def of(self, numbers: frozenset[int]) -> list[tuple[tuple[int, int], pl.DataFrame]]:
        return [placed for placed in self._placed() if placed[0][0] in numbers]

    def table(self) -> pl.DataFrame:
        return _concat(self.sorted_frames())


def _concat(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def _different(found: pl.DataFrame, expected: pl.DataFrame) -> str | None:
    """How a table differs from what it should be; None: it does not."""
    if found.height != expected.height:
        return f"{found.height} rows instead of {expected.height}"
    if found.schema != expected.schema:
        return f"the columns are {dict(found.schema)} instead of {dict(expected.schema)}"
    if found.equals(expected, null_equal=True):
        return None
    for row, (one, other) in enumerate(zip(found.iter_rows(), expected.iter_rows(), strict=True)):
        if repr(one) != repr(other):
            return f"row {row} is {one} instead of {other}"
    return None


def _in_memory(frame: pl.LazyFrame) -> bool:
    return frame.explain(optimized=False).lstrip().startswith("DF [")


@contextmanager
def _closing(opened: Reading) -> Iterator[Iterator[Chunk]]:
    chunks = opened.chunks()
    if not hasattr(chunks, "close"):
        raise Broken("cancellable", "chunks is no generator; write it with yield, so that it can be closed")
    with closing(cast("Any", chunks)):
        yield chunks


@contextmanager
def _overheard() -> Iterator[Callable[[], str]]:
    """All that is logged, at any level, and written to the standard streams."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            yield text.getvalue
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@contextmanager
def _temporary(folder: str) -> Iterator[None]:
    """Temporary files go to ``folder``."""
    with ExitStack() as stack:
        before, tempfile.tempdir = tempfile.tempdir, folder
        stack.callback(setattr, tempfile, "tempdir", before)
        yield


def _resources() -> dict[str, int]:
    files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    return {"open files": files, "threads": threading.active_count()}


def _more_than(before: Mapping[str, int]) -> str | None:
    """What there is more of now, also after those who end by themselves had time to; None: nothing."""
    deadline = time.monotonic() + STOP_SECONDS / 10
    while True:
        more = {what: count - before[what] for what, count in _resources().items() if count > before[what]}
        if not more or time.monotonic() > deadline:
            return ", ".join(f"{count} {what}" for what, count in more.items()) or None
        gc.collect()
        threading.Event().wait(0.01)


def _texts(source: Source, spec: SourceSpec, read: _Read) -> Iterator[str]:
    """What of a source is shown or stored: nothing of it may hold a secret."""
    yield from (source.kind, source.location, repr(source), repr(spec), str(spec))
    yield json.dumps(read.seal)
    yield json.dumps(read.promise.to_dict())
    for chunk in read.chunks:
        yield chunk.origin
        yield json.dumps(dict(chunk.mark)) if chunk.mark else ""
        yield from (span.origin for span in chunk.spans)

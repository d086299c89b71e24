"""Sources of other packages, held to the protocol: what goes wrong in them is an error that names them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from engine.errors import MaestroError, SourceError, is_interrupt
from engine.sources import Chunk, Promise, Reading, Request, is_panic
from engine.spec import SourceSpec, secrets_of
from engine.spec.plugins import Unusable, kind_of_source, unusable
from engine.types import redact


class PluggedSource:
    """A source whose class an installed package announces."""

    def __init__(self, name: str, spec: SourceSpec, base: Path) -> None:
        self._name, self._spec, self._secrets = name, spec, secrets_of(spec)
        self.kind = spec.type
        try:
            kind = kind_of_source(spec.type)
        except Unusable as error:
            raise unusable(spec.type, name, error) from None
        with self._worded():
            self._source = kind(name, spec, base)
            self.location = redact(str(self._source.location), self._secrets)

    @contextmanager
    def open(self, request: Request) -> Iterator[Reading]:
        """See `engine.sources.Source.open`."""
        with self._worded():
            manager = self._source.open(request)
            opened = manager.__enter__()
        try:
            yield cast(Reading, _Reading(opened, self))
        except BaseException:
            with suppress(Exception):  # the failure that ends the reading is the one to tell of
                manager.__exit__(*sys.exc_info())
            raise
        with self._worded():
            manager.__exit__(None, None, None)

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except MaestroError:
            raise
        except BaseException as error:
            if is_interrupt(error) or not (isinstance(error, Exception) or is_panic(error)):
                raise
            text = redact(" ".join(f"{type(error).__name__}: {error}".split()), self._secrets)
            raise self._error(f"failed: {text[:300]}") from None

    def _error(self, message: str) -> SourceError:
        return SourceError(
            f"the plug-in {self.kind!r} {message}",
            code="source.plug_in",
            where=f"sources.{self._name}",
            fix="tell whoever wrote it; maestro sources says which package it is from",
        )

    def checked(self, chunk: Any) -> Chunk:
        """What a plug-in has given, if it is a chunk."""
        import polars as pl

        if not isinstance(chunk, Chunk) or not isinstance(chunk.frame, pl.LazyFrame):
            given = f"a Chunk with a frame of type {type(chunk.frame).__name__}" if isinstance(chunk, Chunk) else ""
            raise self._error(f"gave {given or type(chunk).__name__}, not a Chunk with a LazyFrame (frame.lazy())")
        return chunk


class _Reading:
    """A plug-in's reading; see `engine.sources.Reading`."""

    def __init__(self, opened: Reading, source: PluggedSource) -> None:
        self._opened, self._source = opened, source

    @property
    def promise(self) -> Promise:
        return self._opened.promise

    @property
    def seal(self) -> Mapping[str, Any] | None:
        return self._opened.seal

    @property
    def kept(self) -> frozenset[int]:
        return frozenset(self._opened.kept)

    @property
    def bound(self) -> datetime | None:
        return self._opened.bound

    @property
    def trace(self) -> Mapping[str, Any] | None:
        return self._opened.trace

    def chunks(self) -> Iterator[Chunk]:
        return self._each(self._opened.chunks)

    def keys(self, columns: Sequence[str]) -> Iterator[Chunk]:
        return self._each(lambda: self._opened.keys(columns))

    def _each(self, start: Any) -> Iterator[Chunk]:
        with self._source._worded():
            chunks = iter(start())
        try:
            while True:
                with self._source._worded():
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield self._source.checked(chunk)
        finally:
            if close := getattr(chunks, "close", None):
                with self._source._worded():
                    close()

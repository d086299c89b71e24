"""Local files: one path or a glob."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from engine.errors import SourceError
from engine.sources import Chunk, Reading, Request, plain, reading
from engine.spec import SUFFIXES, FileSpec, file_format


class FileSource:
    """Reads files in the order of their paths, each as one chunk (NDJSON: as several).

    ``*``, ``?``, ``[…]`` and ``**`` are expanded; hidden files and what lies in hidden folders are left out.
    """

    kind = "file"

    def __init__(self, name: str, spec: FileSpec, base: Path) -> None:
        self._name = name
        self._spec = spec
        self._base = base
        self._path = os.path.normpath(Path(spec.path).expanduser())
        self.location = os.path.normpath(base / self._path)

    def open(self, request: Request) -> AbstractContextManager[Reading]:  # noqa: ARG002 - each reads anew
        """See `engine.sources.Source.open`."""
        return plain(self.chunks)

    def chunks(self) -> Iterator[Chunk]:
        """See `engine.sources.Reading.chunks`."""
        from engine.sources import formats

        form = self._spec.format or file_format(self._spec.path) or ""
        number = 0
        for path in self._paths():
            with reading(path, self._name):
                for piece in formats.pieces(
                    Path(path), form, name=self._name, origin=path, batch_size=self._spec.batch_size
                ):
                    yield piece.chunk(number, path)
                    number += 1

    def _paths(self) -> list[str]:
        from fsspec.implementations.local import LocalFileSystem

        files = LocalFileSystem()
        if files.isfile(self.location):  # also a name that looks like a pattern
            return [self.location]
        if files.isdir(self.location):
            raise self._error(
                f"{self.location} is a directory",
                code="source.directory",
                allowed="a file or a glob",
                fix=f"write {self._spec.path.rstrip('/')}/*.parquet, or another suffix of {', '.join(SUFFIXES)}",
            )
        start, pattern = split_glob(self._path)
        folder = os.path.normpath(self._base / start)
        try:
            matches = files.glob(f"{glob.escape(folder.rstrip('/'))}/{pattern}")
        except ValueError:
            raise self._error(
                f"{self._spec.path!r} is no pattern: ** stands for folders, and only between slashes",
                code="source.bad_pattern",
                allowed="**/*.csv, data/**/*.csv",
                fix="write * for a part of a name",
            ) from None
        found = [path for path in matches if not is_hidden(path, folder) and files.isfile(path)]
        if not found:
            known = "" if files.isdir(folder) else ", which does not exist"
            raise self._error(
                f"no file matches {self._spec.path!r}; looked in {folder}{known}",
                code="source.no_match",
                allowed="a path relative to the pipeline file, or an absolute one; * ? [] and ** are expanded",
                fix="correct the path, or create the file first",
            )
        for path in found:
            shown = os.fsencode(path).decode(errors="backslashreplace")
            if shown != path:
                raise self._error(
                    f"the name of {shown} is not UTF-8",
                    code="source.bad_name",
                    allowed="names in UTF-8",
                    fix="rename it",
                )
        return sorted(found)

    def _error(self, message: str, *, code: str, allowed: str, fix: str) -> SourceError:
        return SourceError(message, code=code, where=f"sources.{self._name}", allowed=allowed, fix=fix)


def split_glob(pattern: str) -> tuple[str, str]:
    """A glob as the folder before its first wildcard, with its slash, and the rest."""
    wild = min((pattern.index(mark) for mark in "*?[" if mark in pattern), default=len(pattern))
    start = pattern.rfind("/", 0, wild) + 1
    return pattern[:start], pattern[start:]


def is_hidden(path: str, folder: str) -> bool:
    """Whether a name below ``folder`` begins with a dot."""
    return any(part.startswith(".") for part in path.removeprefix(folder).split("/"))

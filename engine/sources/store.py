"""Where files lie: on this machine, or behind an fsspec file system whose reads are cut into ranges and retried."""

from __future__ import annotations

import glob
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from engine.errors import SourceError, TransientSourceError
from engine.sources.threads import Stalled, within
from engine.spec import SUFFIXES, FileSpec

_RANDOM = random.Random()  # noqa: S311 - jitter and names, no secrets; the program's own generator is not touched

RANGE_BYTES = 8 * 2**20
HELD_BYTES = 24 * 2**20  # a remote file that is no larger is held in memory, not copied to disk
FETCHES = 8  # requests in flight, of one piece
PAUSE_SECONDS = 0.2  # before a range is asked for again; doubled each time
Read = Callable[[str, int | None, int | None], tuple[bytes, str | None]]
_VERSIONS = ("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified", "last_modified", "mtime")


@dataclass(frozen=True)
class Entry:
    """A file, as its store describes it.

    Attributes:
        path: as the store knows it.
        shown: its path or URL, for people; never a secret.
        size: in bytes; None: unknown before it is read.
        version: changes when the content does: an ETag, a time; None: nothing tells.
        folders: of its path, those below the first wildcard.
    """

    path: str
    shown: str
    size: int | None
    version: str | None
    folders: tuple[str, ...] = ()

    @property
    def state(self) -> list[Any]:
        """What the ledger keeps of it."""
        return [self.size, self.version]

    def partitions(self) -> dict[str, str | None]:
        """Of folders named ``key=value``."""
        pairs = (folder.partition("=") for folder in self.folders if "=" in folder)
        return {unquote(k): None if v == "__HIVE_DEFAULT_PARTITION__" else unquote(v) for k, _, v in pairs if k}


class Store(Protocol):
    """Where the files of one source lie."""

    def entries(self) -> list[Entry]:
        """The files, in the order of their paths.

        Raises:
            SourceError: there is none, or they cannot be listed.
        """
        ...

    def body(self, entry: Entry, folder: Path, *, spooled: bool) -> Path | bytes:
        """A file's content, or a path where it lies.

        Args:
            folder: for a copy, if one is made.
            spooled: never the content itself.
        """
        ...

    def check(self, entry: Entry) -> None:
        """Makes sure that a file is still the one that was listed.

        Raises:
            TransientSourceError: it is not.
        """
        ...

    def close(self) -> None:
        """Gives back connections."""
        ...


class LocalStore:
    """Files of this machine."""

    def close(self) -> None:
        """See `Store.close`."""

    def __init__(self, name: str, spec: FileSpec, base: Path) -> None:
        self._name, self._spec, self._base = name, spec, base
        self._path = os.path.normpath(Path(spec.path).expanduser())
        self.location = os.path.normpath(base / self._path)

    def entries(self) -> list[Entry]:
        """See `Store.entries`."""
        start = len(os.path.normpath(self._base / split_glob(self._path)[0]))
        return [self._entry(path, start) for path in self._paths()]

    def _entry(self, path: str, start: int) -> Entry:
        try:
            stat = os.stat(path)  # noqa: PTH116 - paths are texts here
        except OSError as error:
            raise self._error(
                f"{path} cannot be read: {error.strerror or error}",
                code="source.unreadable",
                allowed="files that this user may read",
                fix="run again if something just moved it, else check its permissions",
            ) from None
        folders = Path(path[start:]).parent.parts if path != self.location else ()
        return Entry(
            path,
            path,
            stat.st_size,
            f"{stat.st_mtime_ns}-{stat.st_ino}",
            tuple(part for part in folders if part != os.sep),
        )

    def body(self, entry: Entry, folder: Path, *, spooled: bool) -> Path | bytes:  # noqa: ARG002 - no copy is made
        """See `Store.body`."""
        path = Path(entry.path)
        return path if spooled or (entry.size or 0) > HELD_BYTES or not path.is_file() else path.read_bytes()

    def check(self, entry: Entry) -> None:
        """See `Store.check`."""
        if self._entry(entry.path, 0).state != entry.state:
            raise changed(self._name, entry)

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


@dataclass
class RemoteStore:
    """Files behind an fsspec file system.

    Attributes:
        name: the source's.
        files: the file system.
        pattern: a path or a glob, as the file system takes it.
        shown: what to put before a path, for people.
        retries: further attempts at a range.
        timeout: seconds for one request.
        worded: what is raised instead of an error of the file system.
        limit: most bytes of a file whose size nobody tells.
        globs: whether a path may be a glob.
        read: gives some of a file's bytes, and the version of the file that they are of; None: nothing tells that.
    """

    name: str
    files: Any
    pattern: str
    shown: str
    retries: int
    timeout: float
    worded: Callable[[BaseException], BaseException]
    limit: int
    globs: bool = True
    read: Read | None = None

    def close(self) -> None:
        """See `Store.close`."""

    def entries(self) -> list[Entry]:
        """See `Store.entries`."""
        found: Mapping[str, Mapping[str, Any]]
        if not self.globs or not any(mark in self.pattern for mark in "*?["):
            found = {self.pattern: self._call(self.files.info, self.pattern)}
        else:
            start, _ = split_glob(self.pattern)
            details = self._call(self.files.glob, self.pattern, detail=True)
            found = {p: facts for p, facts in details.items() if facts["type"] == "file" and not is_hidden(p, start)}
            if not found:
                raise self.worded(FileNotFoundError(self.pattern))
        if any(facts.get("size") is None or _version(facts) is None for facts in found.values()):
            found = dict(
                zip(found, self._each(lambda path: self._call(self.files.info, path), list(found)), strict=True)
            )
        return [self._entry(path, found[path]) for path in sorted(found)]

    def _entry(self, path: str, facts: Mapping[str, Any]) -> Entry:
        size = facts.get("size")
        folders = path.removeprefix(split_glob(self.pattern)[0]).split("/")[:-1] if path != self.pattern else []
        shown = self.shown + path.partition("?")[0]
        return Entry(path, shown, None if size is None else int(size), _version(facts), tuple(folders))

    def body(self, entry: Entry, folder: Path, *, spooled: bool) -> Path | bytes:
        """See `Store.body`."""
        size = entry.size
        if size is None or size <= HELD_BYTES:
            data = b"".join(self._each(lambda cut: self._range(entry, *cut), _cuts(size)))
            if not spooled:
                return data
            path = folder / f"{threading.get_ident()}-{_RANDOM.getrandbits(48):x}"
            path.write_bytes(data)
            return path
        path = folder / f"{threading.get_ident()}-{_RANDOM.getrandbits(48):x}"
        with path.open("wb") as copy:
            cuts = _cuts(size)
            for some in range(0, len(cuts), 4):
                for data in self._each(lambda cut: self._range(entry, *cut), cuts[some : some + 4]):
                    copy.write(data)
        return path

    def check(self, entry: Entry) -> None:
        """See `Store.check`; a file that came in one answer is what it was then."""
        if self.read is None and entry.size is not None and entry.size > RANGE_BYTES:
            facts = self._call(self.files.info, entry.path)
            if [int(facts.get("size") or -1), _version(facts)] != entry.state:
                raise changed(self.name, entry)

    def _range(self, entry: Entry, start: int | None, stop: int | None) -> bytes:
        """Some of a file's bytes; asked for again where the connection broke."""
        wanted = None if start is None or stop is None else stop - start
        for attempt in range(self.retries + 1):
            try:
                data, version = within(self.timeout, lambda: self._read(entry.path, start, stop))
            except Stalled:
                raise self._stalled(entry.shown) from None
            except BaseException as error:  # noqa: BLE001 - worded, and raised
                known = self.worded(error)
                if attempt == self.retries or not isinstance(known, TransientSourceError):
                    raise known from None
            else:
                if version is not None and version != entry.version:
                    raise changed(self.name, entry)
                if wanted is None or len(data) == wanted:
                    return self._bounded(entry, data)
                if start is not None and len(data) == entry.size:  # a server that knows no ranges
                    return data[start:stop]
                if attempt == self.retries:
                    raise self._short(entry, len(data), wanted)
            threading.Event().wait(PAUSE_SECONDS * 2**attempt * _RANDOM.uniform(0.5, 1.0))
        raise AssertionError("unreachable")  # pragma: no cover

    def _read(self, path: str, start: int | None, stop: int | None) -> tuple[bytes, str | None]:
        if self.read is not None:
            return self.read(path, start, stop)
        return bytes(self.files.cat_file(path, start=start, end=stop)), None

    def _bounded(self, entry: Entry, data: bytes) -> bytes:
        if len(data) > self.limit:
            raise SourceError(
                f"{entry.shown} is more than {self.limit:,} bytes",
                code="source.limit_bytes",
                where=f"sources.{self.name}",
                fix="raise limits.bytes if this is right",
            )
        return data

    def _short(self, entry: Entry, found: int, wanted: int) -> TransientSourceError:
        return TransientSourceError(
            f"{entry.shown}: {found:,} bytes came where {wanted:,} were asked for",
            code="source.cut_short",
            where=f"sources.{self.name}",
            fix="run again; if it stays so, the store does not give what it lists",
        )

    def _stalled(self, what: str) -> TransientSourceError:
        return TransientSourceError(
            f"{what}: nothing came within {self.timeout:g} seconds",
            code="source.timeout",
            where=f"sources.{self.name}",
            fix="check that the store is up, or raise timeout_seconds",
        )

    def _call(self, call: Callable[..., Any], *given: Any, **more: Any) -> Any:
        """A call of the file system; asked again where the connection broke."""
        for attempt in range(self.retries + 1):
            try:
                return within(self.timeout, lambda: call(*given, **more))
            except Stalled:
                raise self._stalled(self.shown + self.pattern.partition("?")[0]) from None
            except BaseException as error:  # noqa: BLE001 - worded, and raised
                known = self.worded(error)
                if attempt == self.retries or not isinstance(known, TransientSourceError):
                    raise known from None
            threading.Event().wait(PAUSE_SECONDS * 2**attempt * _RANDOM.uniform(0.5, 1.0))
        raise AssertionError("unreachable")  # pragma: no cover

    def _each(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """What ``call`` gives for each, some at a time."""
        if len(items) < 2:
            return [call(item) for item in items]
        with ThreadPoolExecutor(FETCHES) as pool:
            return list(pool.map(call, items))


def changed(name: str, entry: Entry) -> TransientSourceError:
    """A file is another than was listed."""
    return TransientSourceError(
        f"{entry.shown} was changed while it was read",
        code="source.changed",
        where=f"sources.{name}",
        fix="run again; let writers put new files beside the old ones, then rename",
    )


def _cuts(size: int | None) -> list[tuple[int | None, int | None]]:
    if size is None:
        return [(None, None)]
    return [(at, min(at + RANGE_BYTES, size)) for at in range(0, size, RANGE_BYTES)]


def _version(facts: Mapping[str, Any]) -> str | None:
    return next((str(facts[key]).strip('"') for key in _VERSIONS if facts.get(key) is not None), None)


def split_glob(pattern: str) -> tuple[str, str]:
    """A glob as the folder before its first wildcard, with its slash, and the rest."""
    wild = min((pattern.index(mark) for mark in "*?[" if mark in pattern), default=len(pattern))
    start = pattern.rfind("/", 0, wild) + 1
    return pattern[:start], pattern[start:]


def is_hidden(path: str, folder: str) -> bool:
    """Whether a name below ``folder`` begins with a dot."""
    return any(part.startswith(".") for part in path.removeprefix(folder).split("/"))

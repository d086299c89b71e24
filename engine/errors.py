"""Every error the engine raises on purpose.

MaestroError
├── ConfigError        the pipeline file, its Python twin, or the command line is wrong    exit code 2
├── UsageError         a library or command-line call makes no sense                         exit code 2
├── MissingExtra       an optional package is not installed                                exit code 2
├── SourceError        a source could not be read                                          exit code 3
│   └── TransientSourceError   …and trying again may help (time-out, 429, 5xx)
├── DataError          data was read, but what was asked of it cannot be computed          exit code 3
├── SinkError          features could not be published, registered or loaded               exit code 3
└── LedgerError        the ledger is locked, unreadable, or of a newer version             exit code 3

Each carries ``code`` (stable, dotted), ``message`` (what), ``where``, ``allowed`` and ``fix`` (what to do).
A failed ERROR check is not an exception: it is a report, and exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class MaestroError(Exception):
    """Base of all the engine's errors.

    Attributes:
        code: stable dotted identifier, such as ``source.missing_column``.
        message: what went wrong, without secrets.
        where: file, line, source, view or column; None where there is none.
        allowed: what would have been accepted; None where that says nothing.
        fix: what to do next.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        code: str,
        where: str | None = None,
        allowed: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.where = where
        self.allowed = allowed
        self.fix = fix

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        lines = [f"{head} [{self.code}]"]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """The attributes as JSON-ready values, in a stable order."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "allowed": self.allowed,
            "fix": self.fix,
        }


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration: what, where, what is allowed, what to do.

    ``path`` is the place inside the document (``("sources", "users", "type")``); ``line`` and ``column``
    count from 1 and are None for a pipeline built in Python.
    """

    code: str
    message: str
    path: tuple[str | int, ...] = ()
    file: str | None = None
    line: int | None = None
    column: int | None = None
    allowed: str | None = None
    fix: str | None = None

    @property
    def where(self) -> str:
        if self.file is not None:
            position = "".join(f":{n}" for n in (self.line, self.column) if n is not None)
            return f"{self.file}{position}"
        return dotted(self.path) or "pipeline"

    def __str__(self) -> str:
        return str(MaestroError(self.message, code=self.code, where=self.where, allowed=self.allowed, fix=self.fix))

    def to_dict(self) -> dict[str, object]:
        return {
            "code": self.code,
            "message": self.message,
            "path": dotted(self.path),
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "allowed": self.allowed,
            "fix": self.fix,
        }


class ConfigError(MaestroError):
    """One or more mistakes in a configuration; nothing was read or written."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        super().__init__(first.message, code=first.code, where=first.where, allowed=first.allowed, fix=first.fix)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.problems)

    def to_dict(self) -> dict[str, object]:
        return {**super().to_dict(), "problems": [p.to_dict() for p in self.problems]}


class UsageError(MaestroError):
    """A library or command-line call with arguments that make no sense."""

    exit_code = 2


class MissingExtra(MaestroError):  # noqa: N818 - reads better where it is caught
    """A feature needs a package that is not installed; ``fix`` holds the install line."""

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            code="install.missing_extra",
            fix=f"pip install 'maestro-engine[{extra}]'",
        )


class SourceError(MaestroError):
    """A source could not be read, and reading it again as it is would fail again."""


class TransientSourceError(SourceError):
    """A source could not be read now; a later attempt may succeed."""


class DataError(MaestroError):
    """Data was read, but what was asked of it cannot be computed exactly."""


class SinkError(MaestroError):
    """Features could not be published, registered or loaded."""


class LedgerError(MaestroError):
    """The ledger is in use, unreadable, or written by a newer version."""


def dotted(path: Iterable[str | int]) -> str:
    """``("a", 0, "b")`` as ``a[0].b``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like ``word``, whatever its case, or None when none is close."""
    words: dict[str, str] = {}
    for name in known:
        words.setdefault(name.casefold(), name)
    matches = difflib.get_close_matches(word.casefold(), words, n=1, cutoff=0.6)
    return words[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The fix for a word that is not known: the known one most like it; ``otherwise`` where none is close."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else otherwise


def is_interrupt(error: BaseException) -> bool:
    """Whether ``error`` is a Ctrl-C; DuckDB reports one as an error of its own, Arrow the traceback of one as text."""
    text = str(error).strip()
    return (
        isinstance(error, KeyboardInterrupt)
        or ("Python exception: " in text and text.splitlines()[-1] == "KeyboardInterrupt")
        or (
            "interrupted" in text.lower()
            and (type(error) is RuntimeError or type(error).__name__ == "InterruptException")
        )
    )

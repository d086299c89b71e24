"""What a table is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import DataError
from engine.frames import scan
from engine.profile import Profile
from engine.spec import DriftBaseline

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Baseline:
    """A baseline that was found: a profile, or rows.

    Attributes:
        id: names it, for people.
    """

    id: str
    profile: Profile | None = None
    frame: pl.LazyFrame | None = None

    @property
    def columns(self) -> list[str]:
        """The names of its columns, in order."""
        if self.frame is not None:
            return self.frame.collect_schema().names()
        return list(self.profile.columns) if self.profile is not None else []


@dataclass(frozen=True)
class Nothing:
    """There is no such baseline yet, and why."""

    reason: str


# Finds the baseline that a declaration names.
Past = Callable[[DriftBaseline], Baseline | Nothing]


def from_files(declared: DriftBaseline, base: Path, source: str | None = None) -> Baseline | Nothing:
    """A baseline in a file; those that are kept by runs are not found here.

    Args:
        base: the folder that relative paths start from.
        source: whose profile to take from a file with several.

    Raises:
        DataError: the file cannot be read.
    """
    if declared.path is not None:
        path = declared.path if "://" in declared.path else base / declared.path
        return Baseline(declared.path, frame=scan(path))
    if declared.profile is not None:
        return Baseline(declared.profile, profile=read_profile(base / declared.profile, source))
    return Nothing("only runs of a pipeline keep profiles to compare with")


def read_profile(path: Path, source: str | None = None) -> Profile:
    """The profile in a file that ``maestro profile --json`` wrote; of several, that of ``source``.

    Raises:
        DataError: it holds none, or several and none of that name.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise _unreadable(path, str(text)) from None
    profiles = found.get("profiles") if isinstance(found, dict) else None
    if isinstance(profiles, dict):
        name = source if source in profiles else next(iter(profiles)) if len(profiles) == 1 else None
        if name is None:
            raise _unreadable(
                path, f"it holds profiles of {', '.join(profiles)}, of which one has to be named {source!r}"
            )
        found = profiles[name]
    if not isinstance(found, dict):
        raise _unreadable(path, "it holds no profile")
    return Profile.from_dict(found)


def is_profile(path: Path) -> bool:
    """Whether a JSON file begins as one does that ``maestro profile --json`` wrote; records are JSON too."""
    try:
        with path.open(encoding="utf-8") as file:
            head = "".join(file.read(200).split())
    except (OSError, ValueError):
        return False
    return head.startswith(('{"version":1,"profiles":', '{"version":1,"rows":'))


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(
        f"the profile cannot be read: {why}",
        code="profile.unreadable",
        where=str(path),
        fix="write it with maestro profile … --json",
    )

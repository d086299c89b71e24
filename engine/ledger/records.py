"""What the ledger tells of reads: their pieces while they go on, their files once they have landed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class File:
    """A Parquet file below the workdir.

    Attributes:
        path: relative to the workdir.
        rows: how many it holds.
        bytes: its size on disk.
        sha256: of its content, in hexadecimal; None where an earlier version of the ledger did not keep it.
    """

    path: str
    rows: int
    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class Piece:
    """A piece of a source, landed.

    Attributes:
        number: in reading order.
        mark: by which the source can tell whether it still holds.
        read: rows read of it.
        failed: rows left out for a null in a critical column, and how many per column.
        files: its rows that go on, in order.
        seconds: from the piece before it until it was written.
        retries: attempts of its run that had failed before the one that landed it.
        quarantined: its rows that do not.
    """

    number: int
    mark: Mapping[str, Any] | None
    read: int
    failed: int
    failed_by_column: Mapping[str, int]
    files: tuple[File, ...]
    seconds: float = 0.0
    retries: int = 0
    quarantined: tuple[File, ...] = ()


@dataclass(frozen=True)
class Read:
    """One read of a source by a run, and the table it led to.

    Attributes:
        state: ``reading``, ``landed``, ``accepted``, ``blocked``, or ``abandoned`` (it never landed).
        mode: ``full``, ``append`` or ``merge``.
        base: the read whose table this one extends; None for a full read.
        position: where the next read goes on, JSON-ready; None without a cursor.
        trace: what the source left for its next read.
        promise: what the reading vouched for.
        schema: column: dtype of the landed table.
        files: the table; empty unless it is still kept.
    """

    read_id: str
    pipeline: str
    source: str
    run_id: str
    location: str
    mode: str
    state: str
    fingerprint: str
    started_at: str
    landed_at: str | None = None
    base: str | None = None
    position: Mapping[str, Any] | None = None
    seal: Mapping[str, Any] | None = None
    trace: Mapping[str, Any] | None = None
    promise: Mapping[str, Any] | None = None
    schema: Mapping[str, str] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class KeptProfile:
    """The profile of the rows that a run judged of a source.

    Attributes:
        created_at: the run's created_timestamp.
        state: ``accepted`` or ``blocked``: what that run made of the table.
        profile: JSON-ready, as `engine.profile.Profile.to_dict` gives it.
    """

    pipeline: str
    source: str
    run_id: str
    read_id: str
    created_at: str
    state: str
    rows: int
    profile: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What a view's published as-ofs rest on, and what later runs go on from.

    Attributes:
        definition: a fingerprint of what the view's raw values rest on.
        tables: source of events: the files of its table that has been taken in.
        state: JSON-ready, with ``files``, by name; None: there is none, the tables are read again.
    """

    definition: str
    tables: Mapping[str, tuple[File, ...]]
    state: Mapping[str, Any] | None = None

    @property
    def files(self) -> dict[str, File]:
        """Those of the state, by name."""
        return {name: File(**file) for name, file in (self.state or {}).get("files", {}).items()}


@dataclass(frozen=True)
class Quarantined:
    """A file of rows that were set aside.

    Attributes:
        read_id: the read that set them aside.
        state: ``held``; or how that ended: ``superseded`` (all rows of the source were read anew), ``replayed``,
            ``mended`` (replayed with other values) or ``dropped``.
        ended_by: the run that superseded or replayed them.
    """

    file: File
    source: str
    read_id: str
    run_id: str
    created_at: str
    state: str = "held"
    ended_by: str | None = None
    ended_at: str | None = None

"""Keeping house: landed files that nothing names are dropped; those that are named are compared with the record."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from engine.ledger import Ledger, Quarantined, Read
from engine.steps import reached
from engine.types import Duration, parse_moment


@dataclass(frozen=True)
class Collected:
    """What was dropped: tables that later ones supersede, files that nothing names, profiles that no check asks for."""

    tables: int
    files: int
    bytes: int
    profiles: int

    def to_dict(self) -> dict[str, int]:
        return {"tables": self.tables, "files": self.files, "bytes": self.bytes, "profiles": self.profiles}


@dataclass(frozen=True)
class Remembered:
    """Which profiles the checks of a pipeline may ask for, of each source.

    Attributes:
        newest: so many of those that were accepted last.
        days: all that are no older.
        runs: those that are named.
    """

    newest: int
    days: int = 0
    runs: frozenset[str] = frozenset()


def collect(
    ledger: Ledger,
    pipeline: str,
    landing: Path,
    quarantine: Path,
    checkpoints: Path,
    *,
    sources: Collection[str] | None = None,
    views: Collection[str] | None = None,
    retention: Duration | None = None,
    remote: Kept | None = None,
    remember: Remembered | None = None,
) -> Collected:
    """Drops what no later run needs; the caller holds the pipeline's lease.

    Kept are the checkpoints of views, with the tables that they rest on; of each source, the newest table, the newest
    accepted one, those that were superseded within ``retention``, and the pieces of reads that a run may go on from;
    and all rows in quarantine, until ``retention`` after they were replayed or superseded; those that were mended or
    dropped stay until they are superseded, since by them rows are recognised that are read again.

    Args:
        landing: the pipeline's landing folder.
        quarantine: the pipeline's quarantine folder.
        checkpoints: its folder of saved state.
        remember: profiles that stay whatever their age; others go ``retention`` after their run. None: all stay.
        remote: the store that landed files are kept in; None: there is none.
        sources, views: those that the pipeline declares; what belongs to others is dropped. None: all.
    """
    there = [
        *_files(landing),
        *_files(quarantine),
        *_files(checkpoints),
    ]  # before the names: what another holder of the lease lands meanwhile is not touched
    listed = remote.listed() if remote else set()
    tables = ledger.tables(pipeline)
    since = datetime.now(UTC) - retention.delta if retention else None
    kept = _kept(tables, sources, since)
    superseded = [table.read_id for table in tables if table.read_id not in kept]
    if superseded:
        ledger.forget_tables(superseded)
    if sources is not None:
        ledger.forget_pieces(pipeline, keep=sources)
    if views is not None:
        ledger.forget_checkpoints(pipeline, keep=views)
    named = {file.path for table in tables if table.read_id in kept for file in table.files}
    pieces = ledger.unfinished_pieces(pipeline)
    named |= {file.path for piece in pieces for file in (*piece.files, *piece.quarantined)}
    named |= {entry.file.path for entry in ledger.quarantined(pipeline) if _is_kept(entry, since)}
    for checkpoint in ledger.checkpoints(pipeline).values():
        named |= {file.path for table in checkpoint.tables.values() for file in table}
        named |= {file.path for file in checkpoint.files.values()}
    profiles = 0
    if remember:
        since = min(since or datetime.now(UTC), datetime.now(UTC) - timedelta(days=remember.days))
        profiles = ledger.forget_profiles(
            pipeline, sources=sources, newest=remember.newest, since=since, runs=remember.runs
        )
    ledger.hold()
    count = size = 0
    for path in there:
        if path.relative_to(ledger.workdir).as_posix() not in named:
            size += path.stat().st_size
            path.unlink()
            count += 1
    folders = [path for root in (landing, quarantine, checkpoints) for path in root.rglob("*") if path.is_dir()]
    for folder in sorted(folders, reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    if remote:
        remote.drop_unnamed(named, listed)
    reached("landing.collected")
    return Collected(len(superseded), count, size, profiles)


class Kept(Protocol):
    """Landed files in a store; see `engine.landing.remote.Remote`."""

    def listed(self) -> set[str]: ...

    def drop_unnamed(self, named: set[str], listed: set[str]) -> None: ...


def _kept(tables: Sequence[Read], sources: Collection[str] | None, since: datetime | None) -> set[str]:
    """The tables that stay, of all whose files are on record, oldest first."""
    kept: set[str] = set()
    for source in {table.source for table in tables}:
        if sources is not None and source not in sources:
            continue
        of_source = [table for table in tables if table.source == source]
        accepted = [table for table in of_source if table.state == "accepted"]
        kept |= {table.read_id for table in (*of_source[-1:], *accepted[-1:])}
        if since is not None:  # a table is superseded when the next one lands
            kept |= {t.read_id for t, then in pairwise(of_source) if parse_moment(then.landed_at or "now") >= since}
    return kept


def _is_kept(entry: Quarantined, since: datetime | None) -> bool:
    if entry.state in ("held", "mended", "dropped"):
        return True
    return since is not None and parse_moment(entry.ended_at or "now") >= since


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


@dataclass(frozen=True)
class Damage:
    """A file that is not as the ledger has it."""

    path: str
    belongs_to: str
    what: str

    def to_dict(self) -> dict[str, str]:
        return {"path": self.path, "belongs_to": self.belongs_to, "what": self.what}


@dataclass
class Verified:
    """What was looked at, and what was found wrong."""

    landed: int = 0
    published: int = 0
    quarantined: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.damage

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "landed_files": self.landed,
            "published_files": self.published,
            "quarantined_files": self.quarantined,
            "bytes": self.bytes,
            "damage": [d.to_dict() for d in self.damage],
        }


class Place(Protocol):
    """A folder in a store; see `engine.objects.Objects`."""

    def get(self, name: str, path: Path) -> bool: ...


def verify(ledger: Ledger, pipeline: str, output: Path | Place, store: Place | None = None) -> Verified:
    """Reads every landed, quarantined and published file and compares rows, checksum and schema with the ledger.

    Args:
        output: the folder of published files.
        store: where landed files are kept, if that is not the workdir.
    """
    landed = ledger.workdir if store is None else store
    found = Verified()
    seen: set[str] = set()
    for table in ledger.tables(pipeline):
        for file in table.files:
            if file.path in seen:
                continue
            seen.add(file.path)
            found.landed += 1
            owner = f"sources.{table.source}"
            _look(found, landed, file.path, owner, file.rows, file.sha256, table.schema)
    for piece in ledger.unfinished_pieces(pipeline):
        for file in (*piece.files, *piece.quarantined):
            if file.path not in seen:
                seen.add(file.path)
                found.landed += 1
                _look(found, landed, file.path, "an unfinished read", file.rows, file.sha256, None)
    for entry in ledger.quarantined(pipeline):
        if entry.state == "held" and entry.file.path not in seen:
            found.quarantined += 1
            file, owner = entry.file, f"the quarantine of sources.{entry.source}"
            _look(found, landed, file.path, owner, file.rows, file.sha256, None)
    for row in ledger.published(pipeline):
        found.published += 1
        note = "; a run ended before it had published it: run again" if row["state"] == "publishing" else ""
        _look(found, output, row["path"], f"features.{row['view']}", row["rows"], row["sha256"], None, note)
    return found


def _look(
    found: Verified,
    place: Path | Place,
    name: str,
    owner: str,
    rows: int,
    sha256: str | None,
    schema: Any,
    note: str = "",
) -> None:
    with tempfile.TemporaryDirectory(prefix="maestro-verify-") as folder:
        path = place / name if isinstance(place, Path) else Path(folder) / "copy"
        if not isinstance(place, Path):
            place.get(name, path)
        for what in _amiss(found, path, rows, sha256, schema):
            found.damage.append(Damage(f"{place}/{name}", owner, what + note))


def _amiss(found: Verified, path: Path, rows: int, sha256: str | None, schema: Any) -> Iterator[str]:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            found.bytes += handle.tell()
            if sha256 is not None and digest != sha256:
                yield "its checksum is another"
                return
            handle.seek(0)
            have = pq.read_metadata(handle).num_rows
            if have != rows:
                yield f"it holds {have} rows instead of {rows}"
            handle.seek(0)
            columns = {name: str(dtype) for name, dtype in pl.read_parquet_schema(handle).items()}
            if schema is not None and columns != dict(schema):
                yield "its columns are others"
    except FileNotFoundError:
        yield "it is missing"
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        yield f"it cannot be read: {' '.join(str(error).split())[:200]}"

"""What the ledger knows of rows set aside: their files, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from engine.ledger.records import File, Quarantined, Read
from engine.ledger.tables import quarantine

_KNOWN = ("held", "mended", "dropped")  # states of rows that are recognised when they are read again


def hold(connection: sa.Connection, read: Read, run_id: str, found: Sequence[File], at: str) -> None:
    """Records files of a read; one that an interrupted read had recorded is of this read now."""
    known = {"pipeline": read.pipeline, "source": read.source, "read_id": read.read_id, "run_id": run_id}
    connection.execute(quarantine.delete().where(quarantine.c.path.in_([file.path for file in found])))
    for file in found:
        connection.execute(quarantine.insert().values(**asdict(file), **known, created_at=at, state="held"))


def supersede(connection: sa.Connection, read: Read, run_id: str, at: str) -> None:
    """Ends what earlier reads of the source set aside: this one has read everything anew."""
    others = [quarantine.c.pipeline == read.pipeline, quarantine.c.source == read.source]
    _end(connection, [*others, quarantine.c.read_id != read.read_id], "superseded", run_id, at, of=_KNOWN)


def replay(
    connection: sa.Connection, left: Mapping[str, File | None], run_id: str, at: str, *, mended: bool = False
) -> None:
    """Ends files whose rows a run has taken; those that it left stand in another file, of the same read."""
    for path, file in left.items():
        entry = dict(connection.execute(sa.select(quarantine).where(quarantine.c.path == path)).mappings().one())
        _end(connection, [quarantine.c.path == path], "mended" if mended else "replayed", run_id, at)
        if file is not None:
            connection.execute(quarantine.insert().values({**entry, **asdict(file)}))


def drop(connection: sa.Connection, paths: Iterable[str], at: str) -> None:
    """Ends files whose rows nobody wants."""
    _end(connection, [quarantine.c.path.in_(list(paths))], "dropped", None, at)


def _end(
    connection: sa.Connection,
    where: Sequence[Any],
    state: str,
    run_id: str | None,
    at: str,
    *,
    of: Sequence[str] = ("held",),
) -> None:
    facts = {"state": state, "ended_by": run_id, "ended_at": at}
    connection.execute(quarantine.update().where(*where, quarantine.c.state.in_(of)).values(**facts))


def entries(connection: sa.Connection, pipeline: str) -> list[Quarantined]:
    """All of a pipeline, oldest first."""
    query = (
        sa.select(quarantine)
        .where(quarantine.c.pipeline == pipeline)
        .order_by(quarantine.c.created_at, quarantine.c.path)
    )
    found = []
    for row in connection.execute(query).mappings():
        file = File(row["path"], row["rows"], row["bytes"], row["sha256"])
        names = ("source", "read_id", "run_id", "created_at", "state", "ended_by", "ended_at")
        found.append(Quarantined(file, **{name: row[name] for name in names}))
    return found

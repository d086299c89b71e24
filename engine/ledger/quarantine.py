"""What the ledger knows of rows set aside: their files, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from engine.ledger.records import File, Quarantined
from engine.ledger.tables import quarantine, reads


def hold(connection: sa.Connection, read_id: str, found: Sequence[File], at: str) -> None:
    """Records files of a read; one that an interrupted read had recorded is of this read now."""
    if not found:
        return
    read = connection.execute(sa.select(reads).where(reads.c.read_id == read_id)).mappings().one()
    known = {name: read[name] for name in ("pipeline", "source", "read_id", "run_id")}
    connection.execute(quarantine.delete().where(quarantine.c.path.in_([file.path for file in found])))
    rows = [{**asdict(file), **known, "created_at": at, "state": "held"} for file in found]
    connection.execute(quarantine.insert(), rows)


def supersede(connection: sa.Connection, read_id: str, at: str) -> None:
    """Ends what earlier reads of the source set aside, where this one read everything anew."""
    read = connection.execute(sa.select(reads).where(reads.c.read_id == read_id)).mappings().one()
    if read["base"] is None:
        mine = [quarantine.c.pipeline == read["pipeline"], quarantine.c.source == read["source"]]
        _end(connection, [*mine, quarantine.c.read_id != read_id], "superseded", read["run_id"], at)


def replay(connection: sa.Connection, left: Mapping[str, File | None], run_id: str, at: str) -> None:
    """Ends files whose rows a run has taken; those that it left stand in another file, of the same read."""
    for path, file in left.items():
        entry = dict(connection.execute(sa.select(quarantine).where(quarantine.c.path == path)).mappings().one())
        _end(connection, [quarantine.c.path == path], "replayed", run_id, at)
        if file is not None:
            connection.execute(quarantine.insert().values({**entry, **asdict(file)}))


def drop(connection: sa.Connection, paths: Iterable[str], at: str) -> None:
    """Ends files whose rows nobody wants."""
    _end(connection, [quarantine.c.path.in_(list(paths))], "dropped", None, at)


def _end(connection: sa.Connection, where: Sequence[Any], state: str, run_id: str | None, at: str) -> None:
    facts = {"state": state, "ended_by": run_id, "ended_at": at}
    connection.execute(quarantine.update().where(*where, quarantine.c.state == "held").values(**facts))


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

"""The profiles that the ledger keeps: what each table that a run judged looked like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from engine.ledger.records import KeptProfile, Read
from engine.ledger.tables import profiles, runs


def keep(connection: sa.Connection, read: Read, run_id: str, profile: Mapping[str, Any]) -> None:
    """Records the profile of a table that a run has judged; one that it recorded before it was interrupted goes."""
    mine = {"pipeline": read.pipeline, "source": read.source, "run_id": run_id}
    connection.execute(profiles.delete().where(*(profiles.c[name] == value for name, value in mine.items())))
    created = connection.execute(sa.select(runs.c.created_timestamp).where(runs.c.run_id == run_id)).scalar_one()
    about = {"read_id": read.read_id, "created_at": created, "state": read.state, "rows": profile["rows"]}
    connection.execute(profiles.insert().values(**mine, **about, profile=dict(profile)))


def kept(
    connection: sa.Connection,
    pipeline: str,
    source: str | None,
    *,
    run_id: str | None,
    accepted: bool,
    newest: int | None,
) -> list[KeptProfile]:
    """Profiles, oldest first."""
    query = (
        sa.select(profiles)
        .join(runs, runs.c.run_id == profiles.c.run_id)
        .where(profiles.c.pipeline == pipeline)
        .order_by(runs.c.epoch.desc(), profiles.c.created_at.desc(), profiles.c.source)
        .limit(newest)
    )
    for column, value in ((profiles.c.source, source), (profiles.c.run_id, run_id)):
        query = query if value is None else query.where(column == value)
    if accepted:
        query = query.where(profiles.c.state == "accepted")
    return [KeptProfile(**row) for row in connection.execute(query).mappings()][::-1]

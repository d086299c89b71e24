"""The profiles that the ledger keeps: what each table that a run judged looked like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from engine.ledger.records import KeptProfile, Read
from engine.ledger.tables import profiles, runs
from engine.types import parse_moment


def keep(connection: sa.Connection, read: Read, run_id: str, profile: Mapping[str, Any]) -> None:
    """Records the profile of a table that a run has judged; one that it recorded before it was interrupted goes."""
    mine = {"pipeline": read.pipeline, "source": read.source, "run_id": run_id}
    connection.execute(profiles.delete().where(*(profiles.c[name] == value for name, value in mine.items())))
    created = connection.execute(sa.select(runs.c.created_timestamp).where(runs.c.run_id == run_id)).scalar_one()
    about = {"read_id": read.read_id, "created_at": created, "state": read.state, "rows": profile["rows"]}
    connection.execute(profiles.insert().values(**mine, **about, profile=dict(profile)))


def forget(
    connection: sa.Connection,
    pipeline: str,
    *,
    sources: Collection[str] | None,
    newest: int,
    since: datetime,
    runs_kept: Collection[str],
) -> int:
    """Drops profiles but, of each of the ``sources``, so many of the newest accepted ones and what is newer than the
    last of those, what was made ``since``, and those of ``runs_kept``; gives how many it dropped."""
    of = profiles.c
    query = (
        sa.select(of.source, of.run_id, of.created_at, of.state)
        .join(runs, runs.c.run_id == of.run_id)
        .where(of.pipeline == pipeline)
        .order_by(runs.c.epoch.desc(), of.created_at.desc())
    )
    counts: Counter[str] = Counter()
    gone = 0
    for source, run_id, created, state in connection.execute(query).all():
        declared = sources is None or source in sources
        wanted = declared and counts[source] < newest
        counts[source] += state == "accepted"
        if not (wanted or parse_moment(created) >= since or run_id in runs_kept):
            mine = (of.pipeline == pipeline, of.source == source, of.run_id == run_id)
            connection.execute(profiles.delete().where(*mine))
            gone += 1
    return gone


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

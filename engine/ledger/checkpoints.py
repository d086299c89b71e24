"""The checkpoints of views: which tables their published as-ofs rest on, and the state to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from engine.ledger.records import Checkpoint, File
from engine.ledger.tables import checkpoints


def keep(
    connection: sa.Connection, pipeline: str, run_id: str, kept: Mapping[str, Checkpoint], *, first: bool = False
) -> None:
    """Records the checkpoints of views; with ``first`` only of those that have none of the same definition."""
    for view, checkpoint in kept.items():
        mine = [checkpoints.c.pipeline == pipeline, checkpoints.c.view == view]
        known = connection.execute(sa.select(checkpoints.c.definition).where(*mine)).scalar()
        if first and known == checkpoint.definition:
            continue
        connection.execute(checkpoints.delete().where(*mine))
        tables = {source: [asdict(file) for file in files] for source, files in checkpoint.tables.items()}
        facts = {"run_id": run_id, "definition": checkpoint.definition, "tables": tables}
        state = dict(checkpoint.state) if checkpoint.state is not None else sa.null()
        connection.execute(checkpoints.insert().values(pipeline=pipeline, view=view, state=state, **facts))


def kept(connection: sa.Connection, pipeline: str) -> dict[str, Checkpoint]:
    """The checkpoints of a pipeline's views."""
    rows = connection.execute(sa.select(checkpoints).where(checkpoints.c.pipeline == pipeline)).mappings()
    return {row["view"]: _checkpoint(dict(row)) for row in rows}


def _checkpoint(row: Mapping[str, Any]) -> Checkpoint:
    tables = {source: tuple(File(**file) for file in files) for source, files in row["tables"].items()}
    return Checkpoint(row["definition"], tables, row["state"])

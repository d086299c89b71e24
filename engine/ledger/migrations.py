"""From an earlier version of the ledger to this one, step by step, in one transaction."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from engine.ledger.tables import (
    checkpoints,
    files,
    leases,
    loads,
    metadata,
    pieces,
    profiles,
    quarantine,
    reads,
    schema_version,
)

VERSION = 7


def migrate(connection: sa.Connection) -> int:
    """Makes or brings up to date all tables; gives the version found, which may be newer than this engine."""
    if not sa.inspect(connection).has_table(schema_version.name):
        metadata.create_all(connection)
        connection.execute(schema_version.insert().values(version=VERSION))
        return VERSION
    found: int = connection.execute(sa.select(schema_version.c.version)).scalar_one()
    for version in range(found, VERSION):
        _STEPS[version](connection)
    if found < VERSION:
        connection.execute(schema_version.update().values(version=VERSION))
    return max(found, VERSION)


def _from_1(connection: sa.Connection) -> None:
    """Reads get an identity of their own, pieces and files; files get checksums; leases come."""
    connection.execute(sa.text("ALTER TABLE reads RENAME TO reads_1"))
    for table in (leases, reads, pieces, files):
        table.create(connection)
    connection.execute(
        sa.text(
            "INSERT INTO reads (read_id, pipeline, source, run_id, location, mode, state, fingerprint, started_at, "
            "landed_at, metrics, report) "
            "SELECT old.run_id || '-' || old.source, runs.pipeline, old.source, old.run_id, old.location, 'full', "
            "old.state, '', runs.created_timestamp, runs.created_timestamp, old.metrics, old.report "
            "FROM reads_1 AS old JOIN runs ON runs.run_id = old.run_id"
        )
    )
    # What the chunks hold is read anew by the next run, as it was then: they are forgotten, and their files collected.
    connection.execute(sa.text("DROP TABLE chunks"))
    connection.execute(sa.text("DROP TABLE reads_1"))
    connection.execute(sa.text("ALTER TABLE published ADD COLUMN sha256 VARCHAR"))
    connection.execute(sa.text("ALTER TABLE runs ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0"))


def _from_2(connection: sa.Connection) -> None:
    """Pieces tell how many attempts had failed before them; what comes from version 1 has them made with it."""
    if "retries" not in {column["name"] for column in sa.inspect(connection).get_columns(pieces.name)}:
        connection.execute(sa.text("ALTER TABLE pieces ADD COLUMN retries INTEGER NOT NULL DEFAULT 0"))


def _from_3(connection: sa.Connection) -> None:
    """Rows are set aside; what comes from version 1 has its pieces made with it."""
    quarantine.create(connection)
    if "quarantined" not in {column["name"] for column in sa.inspect(connection).get_columns(pieces.name)}:
        connection.execute(sa.text("ALTER TABLE pieces ADD COLUMN quarantined JSON"))


def _from_4(connection: sa.Connection) -> None:
    """It is known which online store was loaded, and how far; what was loaded before is loaded once more."""
    loads.create(connection)


def _from_5(connection: sa.Connection) -> None:
    """Runs keep profiles."""
    profiles.create(connection)


def _from_6(connection: sa.Connection) -> None:
    """Views have checkpoints."""
    checkpoints.create(connection)


_STEPS: dict[int, Callable[[sa.Connection], None]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
}

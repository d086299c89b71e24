"""The ledger: the one durable record of runs, landed chunks, verdicts, fits and published files.

SQLite in the workdir, through SQLAlchemy Core. Times are ISO 8601 texts in UTC; structured values are JSON. The
schema has a version; a newer one than this engine knows is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from engine.errors import LedgerError
from engine.types import iso, parse_moment

VERSION = 1

_metadata = sa.MetaData()
_schema_version = sa.Table("schema_version", _metadata, sa.Column("version", sa.Integer, nullable=False))
_runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("pipeline", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),  # running | done | blocked | failed | interrupted
    sa.Column("as_of", sa.JSON, nullable=False),
    sa.Column("created_timestamp", sa.String, nullable=False),
    sa.Column("finished_at", sa.String),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("error", sa.JSON),
)
_reads = sa.Table(
    "reads",
    _metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("location", sa.String, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # landed | accepted | blocked
    sa.Column("report", sa.JSON),
)
_chunks = sa.Table(
    "chunks",
    _metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("path", sa.String, nullable=False),  # relative to the workdir
)
_fits = sa.Table(
    "fits",
    _metadata,
    sa.Column("pipeline", sa.String, primary_key=True),
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), nullable=False),
    sa.Column("as_of", sa.String, nullable=False),
    sa.Column("fit", sa.JSON, nullable=False),
)
_published = sa.Table(
    "published",
    _metadata,
    sa.Column("pipeline", sa.String, primary_key=True),
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("as_of", sa.String, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), nullable=False),
    sa.Column("path", sa.String, nullable=False),  # relative to the output folder
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("definition", sa.String, nullable=False),  # fingerprint of what the values rest on
    sa.Column("created_timestamp", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # publishing | published | loaded (into the online store)
)


class Ledger:
    """A pipeline's ledger, open for one run at a time.

    Raises:
        LedgerError: another run holds it, it cannot be read, or a newer version wrote it.
    """

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.path = workdir / "ledger.db"
        make_workdir(workdir)
        self._engine = sa.create_engine(sa.URL.create("sqlite", database=str(self.path)))
        sa.event.listen(self._engine, "connect", _durable)
        self._migrate()

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction."""
        with self._worded(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._worded(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            text = str(error.orig)
            fix = "check that its folder can be written, has room, and that nothing else holds the file"
            if "not a database" in text or "malformed" in text:
                fix = (
                    "restore the file from a backup; without one, move it away: fits are then made anew, and files "
                    "published before are no longer known"
                )
            raise LedgerError(
                f"the ledger cannot be used: {text}", code="ledger.unreadable", where=str(self.path), fix=fix
            ) from None

    def _migrate(self) -> None:
        with (self.workdir / "ledger.lock").open("a") as handle, self._write() as connection:
            fcntl.flock(handle, fcntl.LOCK_EX)  # two first runs at once
            version = None
            if sa.inspect(connection).has_table("schema_version"):
                version = connection.execute(sa.select(_schema_version.c.version)).scalar()
            if version is None:
                _metadata.create_all(connection)
                connection.execute(_schema_version.insert().values(version=VERSION))
            elif version > VERSION:
                raise LedgerError(
                    f"the ledger has version {version}, this engine knows up to {VERSION}",
                    code="ledger.newer",
                    where=str(self.path),
                    fix="upgrade maestro-engine",
                )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the workdir for one run; the operating system frees it when the process ends, however it ends.

        Raises:
            LedgerError: another run holds it.
        """
        with (self.workdir / "lock").open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise LedgerError(
                    f"another run is at work here (process {handle.read().strip() or 'unknown'})",
                    code="ledger.locked",
                    where=str(self.workdir),
                    fix="wait for it to end, or give this pipeline a workdir of its own",
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def begin(
        self,
        run_id: str,
        pipeline: str,
        as_of: Sequence[datetime],
        created: datetime,
        plan: Mapping[str, Any],
    ) -> None:
        """Records a run; runs that never ended are marked ``interrupted``, since the caller holds the lock."""
        with self._write() as connection:
            connection.execute(
                _runs.update().where(_runs.c.status == "running").values(status="interrupted", finished_at=_now())
            )
            connection.execute(
                _runs.insert().values(
                    run_id=run_id,
                    pipeline=pipeline,
                    status="running",
                    as_of=[iso(t) for t in as_of],
                    created_timestamp=iso(created),
                    plan=dict(plan),
                )
            )

    def finish(self, run_id: str, status: str, error: Mapping[str, Any] | None = None) -> None:
        with self._write() as connection:
            connection.execute(
                _runs.update()
                .where(_runs.c.run_id == run_id)
                .values(status=status, finished_at=_now(), error=dict(error) if error else None)
            )

    def landed(
        self, run_id: str, source: str, location: str, metrics: Mapping[str, Any], files: Sequence[Path]
    ) -> None:
        """Commits a source's chunks: from here on they exist."""
        with self._write() as connection:
            connection.execute(
                _reads.insert().values(
                    run_id=run_id, source=source, location=location, metrics=dict(metrics), state="landed"
                )
            )
            connection.execute(
                _chunks.insert(),
                [
                    {
                        "run_id": run_id,
                        "source": source,
                        "number": i,
                        "path": str(p.relative_to(self.workdir)),
                    }
                    for i, p in enumerate(files)
                ],
            )

    def judged(self, run_id: str, source: str, *, accepted: bool, report: Mapping[str, Any] | None) -> None:
        """Records the verdict of the checks on a landed source."""
        with self._write() as connection:
            connection.execute(
                _reads.update()
                .where(_reads.c.run_id == run_id, _reads.c.source == source)
                .values(state="accepted" if accepted else "blocked", report=dict(report) if report else None)
            )

    def forget_chunks(self, pipeline: str, *, keep: str) -> None:
        """Drops the chunks of all runs but one: what they held has been read anew."""
        others = sa.select(_runs.c.run_id).where(_runs.c.pipeline == pipeline, _runs.c.run_id != keep)
        with self._write() as connection:
            connection.execute(_chunks.delete().where(_chunks.c.run_id.in_(others)))

    def fit(self, pipeline: str, view: str) -> tuple[int, dict[str, Any]] | None:
        """The newest pinned fit of a view, with its version; None before the first."""
        query = (
            sa.select(_fits.c.version, _fits.c.fit)
            .where(_fits.c.pipeline == pipeline, _fits.c.view == view)
            .order_by(_fits.c.version.desc())
            .limit(1)
        )
        with self._read() as connection:
            row = connection.execute(query).first()
        return (row.version, row.fit) if row else None

    def publishing(
        self,
        run_id: str,
        pipeline: str,
        fits: Mapping[str, tuple[datetime, Mapping[str, Any]]],
        files: Sequence[Mapping[str, Any]],
    ) -> dict[str, int]:
        """Records, in one transaction, the fits of a run and the files that are about to get their places.

        From here on the ledger never knows less than a reader may see: a run killed between two files leaves them
        all on record.

        Args:
            fits: view: the moment it was fitted on, and the fit. An equal fit keeps the version it has.
            files: ``view``, ``as_of``, ``path``, ``rows``, ``definition`` and ``created_timestamp`` of each.

        Returns:
            view: version of its fit.
        """
        known = {view: self.fit(pipeline, view) for view in fits}
        versions: dict[str, int] = {}
        with self._write() as connection:
            for view, (as_of, fit) in fits.items():
                version, pinned = known[view] or (0, None)
                if pinned is None or _canonical(pinned) != _canonical(fit):
                    version += 1
                    connection.execute(
                        _fits.insert().values(
                            pipeline=pipeline,
                            view=view,
                            version=version,
                            run_id=run_id,
                            as_of=iso(as_of),
                            fit=dict(fit),
                        )
                    )
                versions[view] = version
            for file in files:
                row = {**file, "pipeline": pipeline, "run_id": run_id, "as_of": iso(file["as_of"])}
                row["created_timestamp"] = iso(file["created_timestamp"])
                same = [_published.c[name] == row[name] for name in ("pipeline", "view", "as_of")]
                connection.execute(_published.delete().where(*same))
                connection.execute(_published.insert().values(state="publishing", **row))
        return versions

    def published_all(self, run_id: str) -> None:
        """Records that every file of a run has its place."""
        with self._write() as connection:
            connection.execute(_published.update().where(_published.c.run_id == run_id).values(state="published"))

    def loaded(self, pipeline: str, views: Iterable[str]) -> None:
        """Records that the online store has been loaded from all published files of the views."""
        with self._write() as connection:
            connection.execute(
                _published.update()
                .where(
                    _published.c.pipeline == pipeline,
                    _published.c.view.in_(list(views)),
                    _published.c.state == "published",
                )
                .values(state="loaded")
            )

    def published(self, pipeline: str, view: str) -> list[dict[str, Any]]:
        """The files of a view that are published, or that a killed run was about to publish; by as-of."""
        query = sa.select(_published).where(_published.c.pipeline == pipeline, _published.c.view == view)
        with self._read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return sorted(rows, key=lambda row: parse_moment(row["as_of"]))

    def runs(self) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        with self._read() as connection:
            rows = connection.execute(sa.select(_runs).order_by(_runs.c.created_timestamp, _runs.c.run_id))
            return [dict(row) for row in rows.mappings()]

    def reads(self, run_id: str) -> list[dict[str, Any]]:
        """What a run read, by source."""
        with self._read() as connection:
            rows = connection.execute(sa.select(_reads).where(_reads.c.run_id == run_id).order_by(_reads.c.source))
            return [dict(row) for row in rows.mappings()]

    def chunks(self, run_id: str, source: str) -> list[Path]:
        """The files of a source as a run landed them."""
        query = (
            sa.select(_chunks.c.path)
            .where(_chunks.c.run_id == run_id, _chunks.c.source == source)
            .order_by(_chunks.c.number)
        )
        with self._read() as connection:
            return [self.workdir / path for path in connection.execute(query).scalars()]


def make_workdir(workdir: Path) -> None:
    """Makes the folder that a pipeline works in.

    Raises:
        LedgerError: it cannot be made or written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "lock").touch()
    except OSError as error:
        raise LedgerError(
            f"the workdir cannot be used: {error.strerror}",
            code="workdir.unwritable",
            where=str(workdir),
            fix="set workdir to a folder that can be written",
        ) from None


def _durable(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 10000")


def _canonical(fit: Mapping[str, Any]) -> str:
    return json.dumps(fit, sort_keys=True)


def _now() -> str:
    return iso(datetime.now(UTC))

"""The ledger's calls: runs, reads, fits, published files.

SQLAlchemy Core. Times are ISO 8601 texts in UTC; structured values are JSON. The schema has a version; a newer one
than this engine knows is refused, an older one is brought up to date.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from engine.ledger import checkpoints as checkpointing
from engine.ledger import profiles as profiling
from engine.ledger import quarantine as aside
from engine.ledger.database import Database, after, now, text
from engine.ledger.records import Checkpoint, File, KeptProfile, Piece, Quarantined, Read
from engine.ledger.tables import checkpoints, files, fits, loads, pieces, published, reads, runs
from engine.types import iso, parse_moment

COMPLETE = ("done", "blocked")  # the states of runs that came to their end
LANDED = ("landed", "accepted", "blocked")  # the states in which a read has a table


class Ledger(Database):
    """A ledger; what it writes about a pipeline needs the pipeline's lease."""

    # --- runs -------------------------------------------------------------------------------------------------------

    def begin(
        self, run_id: str, pipeline: str, as_of: Sequence[datetime], created: datetime, plan: Mapping[str, Any]
    ) -> None:
        """Records a run, or that it goes on; others that never ended are ``interrupted``, since we hold the lease."""
        with self._write() as connection:
            connection.execute(
                runs.update()
                .where(runs.c.pipeline == pipeline, runs.c.status == "running", runs.c.run_id != run_id)
                .values(status="interrupted", finished_at=now())
            )
            epoch = self._lease.epoch if self._lease else 0
            facts = {"status": "running", "epoch": epoch, "plan": dict(plan), "finished_at": None, "error": None}
            if connection.execute(sa.select(runs.c.run_id).where(runs.c.run_id == run_id)).first():
                connection.execute(runs.update().where(runs.c.run_id == run_id).values(**facts))
                return
            moments = {"as_of": [iso(t) for t in as_of], "created_timestamp": iso(created)}
            connection.execute(runs.insert().values(run_id=run_id, pipeline=pipeline, **moments, **facts))

    def finish(self, run_id: str, status: str, error: Mapping[str, Any] | None = None) -> None:
        """Records how a run ended; of one that came to its end nobody goes on from the pieces, which are dropped."""
        with self._write() as connection:
            if status in COMPLETE:
                mine = sa.select(reads.c.read_id).where(reads.c.run_id == run_id)
                connection.execute(pieces.delete().where(pieces.c.read_id.in_(mine)))
            connection.execute(
                runs.update()
                .where(runs.c.run_id == run_id)
                .values(status=status, finished_at=now(), error=dict(error) if error else None)
            )

    def unfinished(self, pipeline: str) -> dict[str, Any] | None:
        """The pipeline's last run, if it did not come to its end."""
        last = next(iter(self.runs(pipeline, newest=1)), None)
        return last if last and last["status"] not in COMPLETE else None

    def runs(self, pipeline: str | None = None, newest: int | None = None) -> list[dict[str, Any]]:
        """Runs, oldest first; of ``pipeline`` only, and the ``newest`` only, where given."""
        query = sa.select(runs).order_by(runs.c.epoch.desc(), runs.c.created_timestamp.desc(), runs.c.run_id.desc())
        if pipeline is not None:
            query = query.where(runs.c.pipeline == pipeline)
        if newest is not None:
            query = query.limit(newest)
        with self._read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()][::-1]

    # --- reads ------------------------------------------------------------------------------------------------------

    def begin_read(self, read: Read) -> tuple[Read, list[Piece]]:
        """Records a read that begins.

        Returns:
            The read and the pieces it starts with: those that an earlier read of the same fingerprint and base left,
            whose run did not come to its end; it has their seal then.
        """
        same = [reads.c.pipeline == read.pipeline, reads.c.source == read.source]
        query = sa.select(reads).where(*same).order_by(reads.c.started_at.desc(), reads.c.read_id.desc()).limit(1)
        with self._write() as connection:
            last = connection.execute(query).mappings().first()
            usable = last and last["fingerprint"] == read.fingerprint and last["base"] == read.base and last["seal"]
            if last and usable:  # a run that came to its end has left no pieces
                left = sa.select(pieces.c.number).where(pieces.c.read_id == last["read_id"])
                usable = connection.execute(left.limit(1)).first()
            started = text(parse_moment(read.started_at))
            read = replace(read, started_at=max(started, after(last["started_at"])) if last else started)
            if last and usable:
                read = replace(read, seal=last["seal"])
            connection.execute(reads.update().where(*same, reads.c.state == "reading").values(state="abandoned"))
            facts = asdict(read)
            del facts["files"]
            connection.execute(reads.insert().values(**facts))
            others = sa.select(reads.c.read_id).where(*same, reads.c.read_id != read.read_id)
            if last and usable:
                moved = pieces.update().where(pieces.c.read_id == last["read_id"]).values(read_id=read.read_id)
                connection.execute(moved)
            connection.execute(pieces.delete().where(pieces.c.read_id.in_(others)))
        return read, self.pieces(read.read_id)

    def reading(self, read_id: str, seal: Mapping[str, Any] | None, kept: Container[int]) -> None:
        """Records what the source sealed the reading with, and forgets the pieces that no longer hold."""
        gone = [piece.number for piece in self.pieces(read_id) if piece.number not in kept]
        with self._write() as connection:
            connection.execute(reads.update().where(reads.c.read_id == read_id).values(seal=seal))
            mine = pieces.c.read_id == read_id
            connection.execute(pieces.delete().where(mine, pieces.c.number.in_(gone)))

    def add_piece(self, read_id: str, piece: Piece) -> None:
        """Commits a landed piece: from here on no later run has to read it, as long as it holds."""
        with self._write() as connection:
            connection.execute(pieces.insert().values(read_id=read_id, **asdict(piece)))

    def pieces(self, read_id: str) -> list[Piece]:
        """The landed pieces of a read that its run has not come to the end of, in order."""
        query = sa.select(pieces).where(pieces.c.read_id == read_id).order_by(pieces.c.number)
        with self._read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return [_piece(row) for row in rows]

    def landed(
        self,
        read: Read,
        *,
        quarantined: Sequence[File] = (),
        replayed: Mapping[str, File | None] | None = None,
        mended: bool = False,
    ) -> None:
        """Commits a landed table, with the cursor's position: from here on the source has been read up to there.

        Args:
            quarantined: files of rows that were set aside while it landed.
            replayed: the files in quarantine that rows of it came from, each with what is left there.
            mended: whether those rows have other values now.
        """
        facts = asdict(read)
        del facts["files"]
        same = [reads.c.pipeline == read.pipeline, reads.c.source == read.source]
        with self._write() as connection:
            last = connection.execute(sa.select(sa.func.max(reads.c.landed_at)).where(*same)).scalar()
            facts["landed_at"] = max(now(), after(last)) if last else now()  # clocks go back, and differ
            connection.execute(reads.update().where(reads.c.read_id == read.read_id).values(**facts))
            self._add_files(connection, read.read_id, read.files)
            aside.hold(connection, read, read.run_id, quarantined, now())
            aside.replay(connection, replayed or {}, read.run_id, now(), mended=mended)

    def judged(
        self,
        read: Read,
        run_id: str,
        *,
        quarantined: Sequence[File] = (),
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Commits the verdict of the checks on a landed table, and the table without the rows that they set aside.

        Args:
            read: with its state, report, metrics and files as they are now.
            run_id: of the run that judged.
            quarantined: files of the rows set aside.
            profile: of the rows that were judged.
        """
        facts = {"state": read.state, "report": read.report, "metrics": read.metrics}
        with self._write() as connection:
            connection.execute(reads.update().where(reads.c.read_id == read.read_id).values(**facts))
            connection.execute(files.delete().where(files.c.read_id == read.read_id))
            self._add_files(connection, read.read_id, read.files)
            aside.hold(connection, read, run_id, quarantined, now())
            if read.base is None:
                aside.supersede(connection, read, run_id, now())
            if profile is not None:
                profiling.keep(connection, read, run_id, profile)

    @staticmethod
    def _add_files(connection: sa.Connection, read_id: str, found: Sequence[File]) -> None:
        rows = [{**asdict(file), "read_id": read_id, "position": i} for i, file in enumerate(found)]
        if rows:
            connection.execute(files.insert(), rows)

    def table(self, pipeline: str, source: str, *, accepted: bool = False) -> Read | None:
        """The newest landed table of a source; the newest that was accepted, where asked."""
        states = ("accepted",) if accepted else LANDED
        query = (
            sa.select(reads)
            .where(reads.c.pipeline == pipeline, reads.c.source == source, reads.c.state.in_(states))
            .order_by(reads.c.landed_at.desc(), reads.c.read_id.desc())
            .limit(1)
        )
        with self._read() as connection:
            row = connection.execute(query).mappings().first()
            return self._with_files(connection, dict(row)) if row else None

    def reads(self, run_id: str) -> list[Read]:
        """What a run read, by source; of each source the last read."""
        query = sa.select(reads).where(reads.c.run_id == run_id).order_by(reads.c.source, reads.c.started_at)
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
            last = {row["source"]: row for row in rows}
            return [self._with_files(connection, dict(row)) for row in last.values()]

    def tables(self, pipeline: str) -> list[Read]:
        """All tables of a pipeline whose files are kept, oldest first."""
        kept = sa.select(files.c.read_id).distinct()
        query = (
            sa.select(reads)
            .where(reads.c.pipeline == pipeline, reads.c.read_id.in_(kept))
            .order_by(reads.c.landed_at, reads.c.read_id)
        )
        with self._read() as connection:
            return [self._with_files(connection, dict(row)) for row in connection.execute(query).mappings().all()]

    def unfinished_pieces(self, pipeline: str) -> list[Piece]:
        """The pieces of all reads of a pipeline that a later run may go on from."""
        mine = sa.select(reads.c.read_id).where(reads.c.pipeline == pipeline)
        with self._read() as connection:
            rows = connection.execute(sa.select(pieces).where(pieces.c.read_id.in_(mine))).mappings()
            return [_piece(dict(row)) for row in rows]

    def forget_pieces(self, pipeline: str, *, keep: Collection[str]) -> None:
        """Drops the pieces of all sources but those to ``keep``: the pipeline declares them no more."""
        others = sa.select(reads.c.read_id).where(reads.c.pipeline == pipeline, reads.c.source.not_in(list(keep)))
        with self._write() as connection:
            connection.execute(pieces.delete().where(pieces.c.read_id.in_(others)))

    def forget_tables(self, read_ids: Iterable[str]) -> None:
        """Drops the files of tables from the record; the reads stay."""
        with self._write() as connection:
            connection.execute(files.delete().where(files.c.read_id.in_(list(read_ids))))

    def later(self, read: Read) -> list[Read]:
        """The reads of a source that began after ``read``, in order; those that did not land among them."""
        query = (
            sa.select(reads)
            .where(reads.c.pipeline == read.pipeline, reads.c.source == read.source)
            .where(reads.c.started_at > read.started_at)
            .order_by(reads.c.started_at)
        )
        with self._read() as connection:
            return [Read(**row) for row in connection.execute(query).mappings()]

    def _with_files(self, connection: sa.Connection, row: Mapping[str, Any]) -> Read:
        query = sa.select(files).where(files.c.read_id == row["read_id"]).order_by(files.c.position)
        found = tuple(File(f.path, f.rows, f.bytes, f.sha256) for f in connection.execute(query))
        return Read(**{**row, "files": found})

    # --- quarantine -------------------------------------------------------------------------------------------------

    def quarantined(self, pipeline: str) -> list[Quarantined]:
        """The files of rows that were set aside, oldest first, whatever became of them."""
        with self._read() as connection:
            return aside.entries(connection, pipeline)

    def drop_quarantined(self, paths: Iterable[str]) -> None:
        """Gives up the rows in files of the quarantine."""
        with self._write() as connection:
            aside.drop(connection, paths, now())

    # --- profiles ---------------------------------------------------------------------------------------------------

    def keep_profile(self, read: Read, run_id: str, profile: Mapping[str, Any]) -> None:
        """Records the profile of a table that a run has judged, as `judged` does."""
        with self._write() as connection:
            profiling.keep(connection, read, run_id, profile)

    def profiles(
        self,
        pipeline: str,
        source: str | None = None,
        *,
        run_id: str | None = None,
        accepted: bool = False,
        newest: int | None = None,
    ) -> list[KeptProfile]:
        """The profiles that runs kept, oldest first: of a source, of a run, of accepted tables, the newest only."""
        with self._read() as connection:
            return profiling.kept(connection, pipeline, source, run_id=run_id, accepted=accepted, newest=newest)

    def forget_profiles(
        self,
        pipeline: str,
        *,
        sources: Collection[str] | None,
        newest: int,
        since: datetime,
        runs: Collection[str],
    ) -> int:
        """Drops old profiles, see `engine.ledger.profiles.forget`; gives how many."""
        with self._write() as connection:
            return profiling.forget(connection, pipeline, sources=sources, newest=newest, since=since, runs_kept=runs)

    # --- fits and published files -----------------------------------------------------------------------------------

    def fit(self, pipeline: str, view: str, version: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """The newest pinned fit of a view, or that of a version, with its version; None where there is none."""
        query = sa.select(fits.c.version, fits.c.fit).where(fits.c.pipeline == pipeline, fits.c.view == view)
        if version is not None:
            query = query.where(fits.c.version == version)
        query = query.order_by(fits.c.version.desc()).limit(1)
        with self._read() as connection:
            row = connection.execute(query).first()
        return (row.version, row.fit) if row else None

    def publishing(
        self,
        run_id: str,
        pipeline: str,
        fitted: Mapping[str, tuple[datetime, Mapping[str, Any]]],
        parts: Sequence[Mapping[str, Any]],
        tables: Mapping[str, Checkpoint] | None = None,
    ) -> dict[str, int]:
        """Records, in one transaction, the fits of a run and the files that are about to get their places.

        From here on the ledger never knows less than a reader may see: a run killed between two files leaves them
        all on record.

        Args:
            fitted: view: the moment it was fitted on, and the fit. An equal fit keeps the version it has.
            parts: ``view``, ``as_of``, ``path``, ``rows``, ``definition``, ``created_timestamp`` and ``sha256`` of each
                file.
            tables: checkpoints, of views that may have none of this definition yet: the tables that the files rest on.

        Returns:
            view: version of its fit.
        """
        known = {view: self.fit(pipeline, view) for view in fitted}
        versions: dict[str, int] = {}
        with self._write() as connection:
            for view, (as_of, fit) in fitted.items():
                version, pinned = known[view] or (0, None)
                if pinned is None or _canonical(pinned) != _canonical(fit):
                    version += 1
                    row = {"pipeline": pipeline, "view": view, "version": version, "run_id": run_id}
                    connection.execute(fits.insert().values(**row, as_of=iso(as_of), fit=dict(fit)))
                versions[view] = version
            for part in parts:
                row = {**part, "pipeline": pipeline, "run_id": run_id, "as_of": iso(part["as_of"])}
                row["created_timestamp"] = iso(part["created_timestamp"])
                same = [published.c[name] == row[name] for name in ("pipeline", "view", "as_of")]
                connection.execute(published.delete().where(*same))
                connection.execute(published.insert().values(state="publishing", **row))
            checkpointing.keep(connection, pipeline, run_id, tables or {}, first=True)
        return versions

    def published_all(self, run_id: str) -> None:
        """Records that every file of a run has its place."""
        mine = [published.c.run_id == run_id, published.c.state == "publishing"]
        with self._write() as connection:
            connection.execute(published.update().where(*mine).values(state="published"))

    def checkpoints(self, pipeline: str) -> dict[str, Checkpoint]:
        """The checkpoint of each view that has one."""
        with self._read() as connection:
            return checkpointing.kept(connection, pipeline)

    def keep_checkpoints(self, run_id: str, pipeline: str, kept: Mapping[str, Checkpoint]) -> None:
        """Records that what a run has published of views rests on these tables, and the state to go on from."""
        with self._write() as connection:
            checkpointing.keep(connection, pipeline, run_id, kept)

    def forget_checkpoints(self, pipeline: str, *, keep: Collection[str]) -> None:
        """Drops the checkpoints of all views but those to ``keep``."""
        mine = [checkpoints.c.pipeline == pipeline, checkpoints.c.view.not_in(list(keep))]
        with self._write() as connection:
            connection.execute(checkpoints.delete().where(*mine))

    def load(self, pipeline: str, view: str) -> dict[str, Any] | None:
        """The ``store`` that a view was loaded into last, and of a load that has not come to its end its ``files``
        and ``position``; of one that has, what is ``held`` of it as ``files``; None before the first."""
        query = sa.select(loads).where(loads.c.pipeline == pipeline, loads.c.view == view)
        with self._read() as connection:
            row = connection.execute(query).mappings().first()
        return dict(row) if row else None

    def loading(
        self, pipeline: str, view: str, store: str, files: Mapping[str, str | None], position: Any = None
    ) -> None:
        """Records that a view is being loaded from ``files`` (path: sha256), up to the key ``position``; into
        another store than before, nothing counts as loaded any more."""
        with self._write() as connection:
            mine = [loads.c.pipeline == pipeline, loads.c.view == view]
            known = connection.execute(sa.select(loads.c.store).where(*mine)).scalar()
            if known != store:
                self._unload(connection, pipeline, view)
                connection.execute(loads.insert().values(pipeline=pipeline, view=view, store=store, files={}))
            connection.execute(loads.update().where(*mine).values(files=dict(files), position=position))

    def loaded(
        self, pipeline: str, view: str, paths: Collection[str], held: Mapping[str, str | None] | None = None
    ) -> None:
        """Records that the online store holds the newest rows of these published files; and just the entities of those
        that are ``held`` (path: sha256), which `load` gives as ``files`` then."""
        mine = [published.c.pipeline == pipeline, published.c.view == view, published.c.state == "published"]
        with self._write() as connection:
            connection.execute(
                published.update().where(*mine, published.c.path.in_(list(paths))).values(state="loaded")
            )
            done = [loads.c.pipeline == pipeline, loads.c.view == view]
            connection.execute(loads.update().where(*done).values(files=dict(held or {}), position=None))

    def unload(self, pipeline: str, view: str) -> None:
        """Forgets that a view has been loaded."""
        with self._write() as connection:
            self._unload(connection, pipeline, view)

    def _unload(self, connection: sa.Connection, pipeline: str, view: str) -> None:
        connection.execute(loads.delete().where(loads.c.pipeline == pipeline, loads.c.view == view))
        mine = [published.c.pipeline == pipeline, published.c.view == view, published.c.state == "loaded"]
        connection.execute(published.update().where(*mine).values(state="published"))

    def published(self, pipeline: str, view: str | None = None) -> list[dict[str, Any]]:
        """The files of a view (or of all) that are published, or that a killed run was about to publish; by as-of."""
        query = sa.select(published).where(published.c.pipeline == pipeline)
        if view is not None:
            query = query.where(published.c.view == view)
        with self._read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return sorted(rows, key=lambda row: (row["view"], parse_moment(row["as_of"])))


def _piece(row: dict[str, Any]) -> Piece:
    del row["read_id"]
    found = {name: tuple(File(**f) for f in row[name] or ()) for name in ("files", "quarantined")}
    return Piece(**{**row, **found})


def _canonical(fit: Mapping[str, Any]) -> str:
    return json.dumps(fit, sort_keys=True)

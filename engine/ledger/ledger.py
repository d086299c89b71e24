"""The ledger's calls: leases, runs, reads, fits, published files.

SQLAlchemy Core. Times are ISO 8601 texts in UTC; structured values are JSON. The schema has a version; a newer one
than this engine knows is refused, an older one is brought up to date.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from engine.errors import LedgerError, MissingExtra
from engine.ledger import lease as leasing
from engine.ledger import profiles as profiling
from engine.ledger import quarantine as aside
from engine.ledger.lease import Lease
from engine.ledger.migrations import VERSION, migrate
from engine.ledger.records import File, KeptProfile, Piece, Quarantined, Read
from engine.ledger.tables import files, fits, leases, loads, pieces, published, reads, runs
from engine.types import iso, parse_moment, redact

COMPLETE = ("done", "blocked")  # the states of runs that came to their end
LANDED = ("landed", "accepted", "blocked")  # the states in which a read has a table
_SETUP_KEY = 7_310_211_905  # of PostgreSQL's advisory lock while tables are made


class Ledger:
    """A ledger; what it writes about a pipeline needs the pipeline's lease.

    Args:
        workdir: the folder that a SQLite ledger lies in, and that paths of landed files start from.
        url: of a PostgreSQL database; None: SQLite in ``workdir``.

    Raises:
        LedgerError: it cannot be reached or read, or a newer version wrote it.
    """

    def __init__(self, workdir: Path, url: str | None = None) -> None:
        self.workdir = workdir
        make_workdir(workdir)
        self._embedded = url is None
        self._lease: Lease | None = None
        if url is None:
            self.location = str(workdir / "ledger.db")
            self._secrets: set[str] = set()
            self._engine = sa.create_engine(sa.URL.create("sqlite", database=self.location))
            sa.event.listen(self._engine, "connect", _durable)
        else:
            self._engine, self.location, self._secrets = _postgres(url)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def exists(workdir: Path, url: str | None = None) -> bool:
        """Whether a ledger may be there; one in a database may, always."""
        return url is not None or (workdir / "ledger.db").exists()

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- transactions -----------------------------------------------------------------------------------------------

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction of whoever holds the lease."""
        with self._worded(), self._begin() as connection:
            if self._lease is not None:
                self._hold(connection, self._lease)
            yield connection

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """A transaction from its first statement; SQLite's driver begins one at the first row written, after DDL."""
        with self._engine.begin() as connection:
            if self._embedded:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
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
            text = redact(str(error.orig).strip().partition("\n")[0], self._secrets)
            fix = "check that its folder can be written, has room, and that nothing else holds the file"
            if not self._embedded:
                fix = "check the address, user and password in ledger, and that the server is up"
            elif "not a database" in text or "malformed" in text:
                fix = (
                    "restore the file from a backup; without one, move it away: fits are then made anew, files "
                    "published before are no longer known, and sources are read anew"
                )
            raise LedgerError(
                f"the ledger cannot be used: {text}", code="ledger.unreadable", where=self.location, fix=fix
            ) from None

    def _migrate(self) -> None:
        with self._worded(), self._setup() as connection:
            found = migrate(connection)
        if found > VERSION:
            raise LedgerError(
                f"the ledger has version {found}, this engine knows up to {VERSION}",
                code="ledger.newer",
                where=self.location,
                fix="upgrade maestro-engine",
            )

    @contextmanager
    def _setup(self) -> Iterator[sa.Connection]:
        """A transaction that no other process is in: two first runs may come at once."""
        if self._embedded:
            with (self.workdir / "ledger.lock").open("a") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                with self._begin() as connection:
                    yield connection
        else:
            with self._begin() as connection:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SETUP_KEY)))
                yield connection

    # --- leases -----------------------------------------------------------------------------------------------------

    @contextmanager
    def lease(self, pipeline: str) -> Iterator[Lease]:
        """Holds ``pipeline``; everything this ledger writes from here on is checked against the lease's epoch.

        Raises:
            LedgerError: another run holds it.
        """
        held = (
            leasing.file_lock(self.workdir, pipeline)
            if self._embedded
            else leasing.advisory_lock(self._engine, pipeline, self.location)
        )
        with self._worded(), held:
            with self._begin() as connection:
                last = connection.execute(sa.select(leases.c.epoch).where(leases.c.pipeline == pipeline)).scalar()
                epoch = (last or 0) + 1
                connection.execute(leases.delete().where(leases.c.pipeline == pipeline))
                connection.execute(
                    leases.insert().values(pipeline=pipeline, epoch=epoch, holder=leasing.holder(), acquired_at=_now())
                )
            self._lease = Lease(pipeline, epoch)
            try:
                yield self._lease
            finally:
                self._lease = None

    def hold(self) -> None:
        """Makes sure that the lease is still ours; called before each file is published.

        Raises:
            LedgerError: another run has taken over.
        """
        if self._lease is not None:
            with self._read() as connection:
                self._hold(connection, self._lease)

    def _hold(self, connection: sa.Connection, lease: Lease) -> None:
        # FOR SHARE: whoever takes over waits for this transaction, or this one sees the new epoch.
        query = sa.select(leases.c.epoch).where(leases.c.pipeline == lease.pipeline).with_for_update(read=True)
        if connection.execute(query).scalar() != lease.epoch:
            raise leasing.lost(lease.pipeline, self.location)

    # --- runs -------------------------------------------------------------------------------------------------------

    def begin(
        self, run_id: str, pipeline: str, as_of: Sequence[datetime], created: datetime, plan: Mapping[str, Any]
    ) -> None:
        """Records a run, or that it goes on; others that never ended are ``interrupted``, since we hold the lease."""
        with self._write() as connection:
            connection.execute(
                runs.update()
                .where(runs.c.pipeline == pipeline, runs.c.status == "running", runs.c.run_id != run_id)
                .values(status="interrupted", finished_at=_now())
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
                .values(status=status, finished_at=_now(), error=dict(error) if error else None)
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
            started = _text(parse_moment(read.started_at))
            read = replace(read, started_at=max(started, _after(last["started_at"])) if last else started)
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
            facts["landed_at"] = max(_now(), _after(last)) if last else _now()  # clocks go back, and differ
            connection.execute(reads.update().where(reads.c.read_id == read.read_id).values(**facts))
            self._add_files(connection, read.read_id, read.files)
            aside.hold(connection, read, read.run_id, quarantined, _now())
            aside.replay(connection, replayed or {}, read.run_id, _now(), mended=mended)

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
            aside.hold(connection, read, run_id, quarantined, _now())
            if read.base is None:
                aside.supersede(connection, read, run_id, _now())
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
            aside.drop(connection, paths, _now())

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
    ) -> dict[str, int]:
        """Records, in one transaction, the fits of a run and the files that are about to get their places.

        From here on the ledger never knows less than a reader may see: a run killed between two files leaves them
        all on record.

        Args:
            fitted: view: the moment it was fitted on, and the fit. An equal fit keeps the version it has.
            parts: ``view``, ``as_of``, ``path``, ``rows``, ``definition``, ``created_timestamp`` and ``sha256`` of each
                file.

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
        return versions

    def published_all(self, run_id: str) -> None:
        """Records that every file of a run has its place."""
        mine = [published.c.run_id == run_id, published.c.state == "publishing"]
        with self._write() as connection:
            connection.execute(published.update().where(*mine).values(state="published"))

    def load(self, pipeline: str, view: str) -> dict[str, Any] | None:
        """The ``store`` that a view was loaded into last, and of a load that has not come to its end its ``files``
        and ``position``; None before the first."""
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

    def loaded(self, pipeline: str, view: str, paths: Collection[str]) -> None:
        """Records that the online store holds the newest rows of these published files."""
        mine = [published.c.pipeline == pipeline, published.c.view == view, published.c.state == "published"]
        with self._write() as connection:
            connection.execute(
                published.update().where(*mine, published.c.path.in_(list(paths))).values(state="loaded")
            )
            done = [loads.c.pipeline == pipeline, loads.c.view == view]
            connection.execute(loads.update().where(*done).values(files={}, position=None))

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


def make_workdir(workdir: Path) -> None:
    """Makes the folder that a pipeline works in, and sees that it can be written.

    Raises:
        LedgerError: it cannot.
    """
    make_folder(workdir)
    with _usable(workdir):
        (workdir / "ledger.lock").touch()


def make_folder(folder: Path) -> Path:
    """Makes a folder in or below the workdir, and gives it.

    Raises:
        LedgerError: there is no room, or no right to.
    """
    with _usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"the workdir cannot be used: {error.strerror}",
            code="workdir.unwritable",
            where=str(folder),
            fix="make room where workdir is, or set workdir to a folder that can be written",
        ) from None


def _postgres(url: str) -> tuple[sa.Engine, str, set[str]]:
    """The engine of a shared ledger, where it is (for people), and what must not be shown of it."""
    try:
        parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
        made = sa.create_engine(parsed, pool_pre_ping=True, connect_args=_SHARED)
    except ImportError:
        raise MissingExtra("psycopg", "postgres", "a ledger in PostgreSQL") from None
    except (sa.exc.ArgumentError, ValueError):  # the latter of a port that is no number
        raise LedgerError(
            "the ledger's address cannot be read",
            code="ledger.unreadable",
            where="ledger",
            fix="write postgresql://user:password@host:port/database; percent-encode special characters",
        ) from None
    secrets = {url, parsed.password or "", *(str(v) for v in parsed.query.values())}
    return made, f"postgresql://{parsed.host}:{parsed.port or 5432}/{parsed.database}", secrets


# No call hangs on a connection that has died; and the server frees the lease of a holder that has.
_SHARED = {
    "connect_timeout": 15,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "options": "-c statement_timeout=60s -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 "
    "-c tcp_keepalives_count=3",
}


def _durable(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 10000")


def _piece(row: dict[str, Any]) -> Piece:
    del row["read_id"]
    found = {name: tuple(File(**f) for f in row[name] or ()) for name in ("files", "quarantined")}
    return Piece(**{**row, **found})


def _canonical(fit: Mapping[str, Any]) -> str:
    return json.dumps(fit, sort_keys=True)


def _now() -> str:
    return _text(datetime.now(UTC))


def _after(moment: str) -> str:
    return _text(parse_moment(moment) + timedelta(microseconds=1))


def _text(moment: datetime) -> str:
    """Texts of equal length, so that they sort as the moments do."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

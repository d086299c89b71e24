"""The database that a ledger lies in: transactions, the schema's version, leases; SQLite or PostgreSQL."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from engine.errors import LedgerError, MissingExtra
from engine.ledger import lease as leasing
from engine.ledger.lease import Lease
from engine.ledger.migrations import VERSION, migrate
from engine.ledger.tables import leases
from engine.types import parse_moment, redact

_SETUP_KEY = 7_310_211_905  # of PostgreSQL's advisory lock while tables are made


class Database:
    """Where a ledger lies; what is written there about a pipeline needs the pipeline's lease.

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

    def __enter__(self) -> Self:
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
                    leases.insert().values(pipeline=pipeline, epoch=epoch, holder=leasing.holder(), acquired_at=now())
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


def now() -> str:
    return text(datetime.now(UTC))


def after(moment: str) -> str:
    return text(parse_moment(moment) + timedelta(microseconds=1))


def text(moment: datetime) -> str:
    """Texts of equal length, so that they sort as the moments do."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

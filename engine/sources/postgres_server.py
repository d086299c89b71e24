"""A PostgreSQL server: the snapshot that a run's readings share, sessions in it, and how errors are worded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pyarrow as pa

from engine.duck import literal
from engine.errors import MissingExtra, SourceError
from engine.sources import Shared
from engine.sources.adbc import FAILURES, Session, wording
from engine.sources.relation import Relation
from engine.sources.threads import JOIN_SECONDS, Stalled, begin, result
from engine.types import EPOCH

CONNECT_SECONDS = 15
GRACE_SECONDS = 2  # for the server's own time-out to arrive before ours
XIDS = 2**32  # rows know the lower half of their transaction's id
PLAIN = {"adbc.postgresql.use_copy": "false"}  # for what is no query: EXPLAIN

T = TypeVar("T")

# The same in every session, so that a value has one text and a table one order; what an older server lacks is left out.
SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "synchronize_seqscans": "off",
    "jit": "off",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}

# Since when transactions are open: what is committed later began no earlier. A second less than the present, as a
# transaction is shown a little after it has begun. As a wall clock, it is the least that clocks will show from then on:
# they may be set back in the next hours. Which clocks, as sessions choose their own: those of UTC, of our own default,
# of the time zones that roles and databases are given, and of the server's log, which is where the server itself is.
HORIZON = """
WITH activity AS (
    SELECT min(xact_start) FILTER (WHERE backend_type NOT IN ('autovacuum worker', 'walsender', 'parallel worker'))
            AS began,
        count(*) FILTER (WHERE query = '<insufficient privilege>' OR state = 'disabled') AS hidden
    FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
), prepared AS (
    SELECT min(prepared) AS began, count(*) AS n FROM pg_prepared_xacts WHERE database = current_database()
), horizon AS (
    SELECT least(clock_timestamp() - interval '1 second', activity.began, prepared.began) AS moment, hidden, n
    FROM activity, prepared
), zones AS (
    SELECT reset_val AS name FROM pg_settings WHERE name IN ('TimeZone', 'log_timezone') UNION SELECT 'UTC'
    UNION SELECT substring(setting FROM '=(.*)') FROM pg_db_role_setting, unnest(setconfig) setting
    WHERE setting ILIKE 'timezone=%'
), moments AS (
    SELECT moment AS at FROM horizon UNION ALL
    SELECT to_timestamp((floor(extract(epoch FROM moment) / 900) + i) * 900) FROM horizon, generate_series(1, 16) i
), walls AS (
    SELECT min(CASE
        WHEN name ~ '^[-+]?[0-9.]+$' THEN at AT TIME ZONE (name || ' hours')::interval
        WHEN name ~* '^interval' THEN at AT TIME ZONE substring(name FROM '''(.*)''')::interval
        ELSE at AT TIME ZONE name END) AS wall
    FROM moments, zones
)
SELECT (extract(epoch FROM moment) * 1000000)::int8 AS moment, (extract(epoch FROM wall) * 1000000)::int8 AS wall,
    hidden, n AS prepared, pg_is_in_recovery() AS standby, current_setting('server_version_num')::int8 AS version
FROM horizon, walls
"""


@dataclass
class Snapshot:
    """One moment of a database, held by a session; others can read it too.

    Attributes:
        session: holds it.
        exported: by what other sessions find it; None: they cannot, and this one does everything.
        name: no other moment has it.
        xmin: all transactions below it had ended.
        xmax: no transaction from it on had ended.
        horizon: what `HORIZON` gave before.
        alone: why there is only one session.
        used: whether a source was read at this moment.
    """

    session: Session
    exported: str | None
    name: str
    xmin: int
    xmax: int
    horizon: dict[str, Any]
    alone: str = ""
    used: bool = False

    @property
    def version(self) -> int:
        return int(self.horizon["version"])

    def bound(self, *, wall: bool) -> datetime:
        """What is committed later began no earlier; by the wall clock, as if that were UTC."""
        return EPOCH + timedelta(microseconds=self.horizon["wall" if wall else "moment"])

    @property
    def xid(self) -> str:
        """SQL for the whole id of the transaction that wrote a row. Of rows older than 2^32 transactions, too large."""
        base = self.xmax - self.xmax % XIDS
        id_ = "xmin::text::int8"
        return (
            f"CASE WHEN {id_} < 3 THEN 0 WHEN {id_} > {self.xmax - base} THEN {id_} + ({base - XIDS}) "
            f"ELSE {id_} + {base} END"
        )

    def join(self, relation: Relation, instead: Session | None = None) -> AbstractContextManager[Session]:
        """A session of this moment; ``instead``, if given, where the server has no more connections for us."""
        if self.exported is None:
            _set(self.session, relation)
            return nullcontext(self.session)
        try:
            session = connect(relation, self.session)
        except SourceError as error:
            if instead is None or not any(mark in error.message for mark in FULL):
                raise
            return nullcontext(instead)
        try:
            _begin(session)
            session.execute(f"SET TRANSACTION SNAPSHOT {literal(self.exported)}")
            _set(session, relation)
        except FAILURES as error:
            session.close()
            text = f"{relation.location} does not give its snapshot: {wording(error)}"
            raise relation.error(text, fix="run again", transient=True) from None
        return session


def take(relation: Relation) -> Snapshot:
    """A new snapshot of the relation's database."""
    session = connect(relation)
    try:
        horizon = session.rows(HORIZON)[0]
        exported, alone = None, ""
        session.begin()
        try:
            _begin(session)
            exported = session.rows("SELECT pg_export_snapshot()::text AS id")[0]["id"]
        except FAILURES as error:
            alone = wording(error)
            session.rollback()
            _begin(session)
        now = session.rows("SELECT txid_current_snapshot()::text AS ids, now()::text AS at, pg_backend_pid() AS pid")[0]
        _set(session, relation)
    except FAILURES as error:
        session.close()
        raise failure(relation, error) from None
    xmin, xmax, _ = now["ids"].split(":")
    name = f"{relation.location} {now['at']} {now['pid']} {exported or now['ids']}"
    return Snapshot(session, exported, name, int(xmin), int(xmax), horizon, alone)


class Inquiry:
    """A session of the run's snapshot for what is asked beside the rows. Each answer has its deadline.

    Attributes:
        later: whether sources of the run were read at another moment before.
    """

    def __init__(
        self, relation: Relation, snapshot: Snapshot, held: AbstractContextManager[Session], *, later: bool = False
    ) -> None:
        self.relation, self.snapshot, self.later = relation, snapshot, later
        self._held, self._session = held, held.__enter__()
        self._pending: Future[dict[str, Any]] | None = None
        self._lent = False

    def join(self) -> AbstractContextManager[Session]:
        """Another session of the snapshot; this one, where there is none to be had: its calls wait for one another."""
        joined = self.snapshot.join(self.relation, self._session)
        self._lent = self._lent or (isinstance(joined, nullcontext) and self.snapshot.exported is not None)
        return joined

    def rows(self, sql: str, **options: str) -> list[dict[str, Any]]:
        return within(self.relation, lambda: self._session.rows(sql, **options), self._session)

    def row(self, sql: str) -> dict[str, Any]:
        return self.rows(sql)[0]

    def schema(self, sql: str) -> pa.Schema:
        return within(self.relation, lambda: self._session.schema(sql), self._session)

    def beside(self, sql: str) -> Callable[[], dict[str, Any]]:
        """The row of ``sql``: asked for now, awaited when called; where there is one session only, asked for then."""
        if self.snapshot.exported is None:
            return lambda: self.row(sql)
        self._pending = future = begin(lambda: self._session.rows(sql)[0])
        return lambda: awaited(self.relation, future, self._session)

    def close(self) -> None:
        """Also in the middle of a call, and of a connection that has died."""
        if self._lent or (self._pending is not None and not self._pending.done()):
            begin(self._session.give_up)
        with suppress(Stalled):
            result(begin(lambda: self._held.__exit__(None, None, None)), JOIN_SECONDS)


@contextmanager
def inquiry(relation: Relation, shared: Shared) -> Iterator[Inquiry]:
    """A session of the run's snapshot; of a new one, where the old one is lost."""
    key = f"postgresql {relation.url}"
    while True:
        fresh = not shared.holds(key)
        snapshot = shared.get(key, lambda: _held(relation))
        try:
            held = within(relation, lambda: snapshot.join(relation))  # noqa: B023 - called at once
            break
        except SourceError as error:
            if _lives(snapshot) and snapshot.exported is not None:
                snapshot.exported, snapshot.alone = None, error.message
                continue
            shared.forget(key, used=snapshot.used)
            if fresh:
                raise
    asked = Inquiry(relation, snapshot, held, later=shared.lost(key))
    try:
        yield asked
    finally:
        asked.close()


@contextmanager
def _held(relation: Relation) -> Iterator[Snapshot]:
    begun = begin(lambda: take(relation))
    import pyarrow.compute  # noqa: F401 - the first rows need it; it loads while the server answers

    snapshot = awaited(relation, begun)
    try:
        yield snapshot
    finally:
        with suppress(Stalled):
            result(begin(snapshot.session.close), JOIN_SECONDS)


def _lives(snapshot: Snapshot) -> bool:
    try:
        result(begin(lambda: snapshot.session.rows("SELECT 1 AS one")), JOIN_SECONDS)
    except (*FAILURES, Stalled):
        return False
    return True


def within(relation: Relation, function: Callable[[], T], session: Session | None = None) -> T:
    """What ``function`` gives; its thread is given up after the deadline, or when the caller is interrupted."""
    return awaited(relation, begin(function), session)


def awaited(relation: Relation, future: Future[T], session: Session | None = None) -> T:
    """What was begun gives, else its error in our words; the session's call is cancelled when it is given up."""
    try:
        return result(future, deadline(relation))
    except FAILURES as error:
        raise failure(relation, error) from None
    except BaseException as error:
        if session is not None:
            begin(session.give_up)
        if isinstance(error, Stalled):
            raise stalled(relation) from None
        raise


def deadline(relation: Relation) -> float:
    """Seconds to wait for anything."""
    return relation.spec.timeout_seconds + GRACE_SECONDS


def stalled(relation: Relation) -> SourceError:
    """Nothing came within the deadline."""
    return relation.error(
        f"{relation.location} gave nothing for {relation.spec.timeout_seconds:g} s",
        code="source.stalled",
        fix="check the network and the server's load, or raise timeout_seconds",
        transient=True,
    )


def connect(relation: Relation, beside: Session | None = None) -> Session:
    """A session in autocommit; ``beside`` is an open one of the same database."""
    try:
        return Session(_driver(), _uri(relation), beside)
    except FAILURES as error:
        raise _no_connection(relation, error) from None
    except ValueError:  # what cannot be handed to the driver
        raise relation.invalid_url() from None


def _driver() -> str:
    try:
        import adbc_driver_postgresql
    except ImportError:
        raise MissingExtra("adbc-driver-postgresql", "postgres", "reading PostgreSQL") from None
    return str(adbc_driver_postgresql._driver_path())


def _uri(relation: Relation) -> str:
    """The connection string, with time-outs where it has none: no read hangs on a connection that has died."""
    seconds = relation.spec.timeout_seconds
    defaults = {
        "connect_timeout": max(2, min(CONNECT_SECONDS, int(seconds))),
        "tcp_user_timeout": int(seconds * 1000),
        "keepalives_idle": 30,
        "application_name": "maestro",
        "client_encoding": "UTF8",  # whatever the database or the role has
    }
    url = relation.url
    for option, value in defaults.items():
        if f"{option}=" not in url:
            url += f"{'&' if '?' in url else '?'}{option}={value}"
    return url


def _begin(session: Session) -> None:
    session.begin()
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _set(session: Session, relation: Relation) -> None:
    settings = {**SETTINGS, "statement_timeout": str(max(1, int(relation.spec.timeout_seconds * 1000)))}
    values = ", ".join(f"({literal(name)}, {literal(value)})" for name, value in settings.items())
    session.rows(
        "SELECT count(set_config(s.name, v.value, true)) AS n "
        f"FROM (VALUES {values}) v(name, value) JOIN pg_settings s ON lower(s.name) = lower(v.name)"
    )


# At connecting, only the text tells.
FULL = ("too many", "remaining connection slots")
FINAL = (
    "does not exist",
    "authentication failed",
    "translate host name",
    "no password",
    "pg_hba",
    "invalid",
    "permission denied",
    "not permitted",
    "not currently accepting connections",
    "SSL was required",
    "certificate",
)


def _no_connection(relation: Relation, error: BaseException) -> SourceError:
    text = wording(error)
    return relation.error(
        f"cannot connect to {relation.location}: {text}",
        code="source.no_connection",
        fix="check host, port, database, user and password in connection_string, and that the server is up",
        transient=not any(mark in text for mark in FINAL),
    )


# SQLSTATEs: connection, rollback, resources, the operator's intervention; texts, as a stream gives no state.
PASSING = ("08", "40", "53", "57", "58")
PASSING_TEXTS = (
    "connection",
    "terminating",
    "no COPY in progress",
    "SSL",
    "conflict with recovery",
    "deadlock detected",
    "could not serialize",
    "too many",
    "starting up",
    "shutting down",
    "recovery mode",
    "user request",
    "invalid snapshot identifier",
)


def failure(relation: Relation, error: BaseException) -> SourceError:
    """What a statement failed by."""
    text = wording(error)
    if "statement timeout" in str(error):
        return relation.error(
            f"the read took longer than {relation.spec.timeout_seconds:g} s and was stopped",
            code="source.timeout",
            fix="raise timeout_seconds, or read less with query",
        )
    state = getattr(error, "sqlstate", None)
    if state == "42501":
        return relation.error(
            f"{relation.location}: {text}",
            code="source.permission_denied",
            fix=f"GRANT SELECT ON {relation.spec.table or '…'} TO the user of connection_string",
        )
    passing = state.startswith(PASSING) if state else any(mark in str(error) for mark in PASSING_TEXTS)
    return relation.error(
        f"{relation.location} cannot be read: {text}", fix="check the table or query with psql", transient=passing
    )

"""Talking to MySQL and MariaDB: small queries through PyMySQL, whole results through connectorx.

connectorx takes 30 s to say that a password is wrong, and can be neither stopped nor given a deadline; so each use
of it follows a login by PyMySQL, runs in a thread that can be left behind, and is stopped on the server by a mark in
its SQL.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pyarrow as pa

from engine.errors import MissingExtra, SourceError
from engine.sources import is_panic
from engine.sources.relation import Relation
from engine.sources.threads import Stalled, begin, within
from engine.stopwatch import waiting

T = TypeVar("T")
CONNECT_SECONDS = 10
GRACE_SECONDS = 5  # for a server to stop a statement by itself
ALL_ROWS = 2**64 - 1
# Nothing that a server, a role or an init_connect sets may change a value or the number of rows.
SETTINGS = (
    "SET NAMES utf8mb4",
    "SET time_zone = '+00:00'",
    f"SET sql_select_limit = {ALL_ROWS}",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET sql_mode = REPLACE(@@sql_mode, 'PAD_CHAR_TO_FULL_LENGTH', '')",
)
LOGIN = frozenset({1044, 1045, 1049, 1130, 1251, 1698, 2059, 2061, 3118, 3159, 4151})
DENIED = frozenset({1142, 1143, 1227, 1356, 1370})
TOO_LONG = frozenset({1969, 3024})
OUT_OF_RANGE = 1690
TRANSIENT = frozenset(
    {
        1040,
        1053,
        1129,
        1152,
        1158,
        1159,
        1160,
        1161,
        1203,
        1205,
        1213,
        1226,
        1317,
        1927,
        2002,
        2003,
        2006,
        2013,
        2055,
        4031,
    }
)


class Unreadable(Exception):  # noqa: N818 - what happened, for the caller to word
    """There is a value that connectorx cannot read."""


@dataclass(frozen=True)
class Field:
    """A column of a result as the server describes it; ``computed``: it stems from no table's column."""

    name: str
    type: int
    flags: int
    charset: int
    length: int
    scale: int
    computed: bool


class Session:
    """One login.

    Attributes:
        version: of the server, as it prints it.
        zone: the time zone that sessions have here by default; ``SYSTEM`` means ``system_zone``.
    """

    def __init__(self, relation: Relation) -> None:
        try:
            import pymysql
        except ImportError:
            raise MissingExtra("PyMySQL", "mysql", "reading MySQL") from None
        self._relation, self._failure = relation, pymysql.MySQLError
        seconds = relation.spec.timeout_seconds
        self._wait = wait = seconds + GRACE_SECONDS
        waits = {"connect_timeout": min(CONNECT_SECONDS, seconds), "read_timeout": wait, "write_timeout": wait}
        try:
            arguments = _arguments(relation)
            connected: Any = self._guarded(
                lambda: pymysql.connect(**arguments, **waits, charset="utf8mb4", autocommit=True),
                min(CONNECT_SECONDS, seconds) + 1,
            )
        except (ValueError, UnicodeError):  # a port that is none, an IPv6 address with one bracket, an odd host name
            raise relation.invalid_url() from None
        except RuntimeError as error:  # the login needs a package for the server's way to check passwords
            raise relation.error(
                f"cannot log in to {relation.location}: {error}",
                code="source.no_connection",
                fix="pip install 'PyMySQL[rsa]', or use TLS, or let the user log in with mysql_native_password",
            ) from None
        self._connection = connected
        said = self.rows("SELECT version(), @@session.time_zone, @@system_time_zone")
        self.version, self.zone, self.system_zone = map(str, said[0])
        self.settings = [*SETTINGS, f"SET SESSION {self._limit(seconds)}"]
        for setting in self.settings:
            self.rows(setting)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Logs out."""
        with suppress(self._failure, OSError):
            self._connection.close()

    @property
    def mariadb(self) -> bool:
        """Whether it is MariaDB."""
        return "MariaDB" in self.version

    def _limit(self, seconds: float) -> str:
        return f"max_statement_time = {seconds}" if self.mariadb else f"max_execution_time = {int(seconds * 1000)}"

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a small result; ``values`` fill its ``%s``."""
        return self._run(sql, values)[0]

    def fields(self, sql: str) -> list[Field]:
        """The columns of a result."""
        return self._run(sql, ())[1]

    def _run(self, sql: str, values: Sequence[object]) -> tuple[list[tuple[Any, ...]], list[Field]]:
        def run() -> tuple[list[tuple[Any, ...]], list[Field]]:
            cursor = self._connection.cursor()
            cursor.execute(sql, values or None)
            described = cursor._result.fields if cursor.description else ()
            fields = [
                Field(f.name, f.type_code, f.flags, f.charsetnr, f.length, f.scale, not f.org_table) for f in described
            ]
            return list(cursor.fetchall()), fields

        return self._guarded(run, self._wait)

    def _guarded(self, call: Callable[[], T], seconds: float) -> T:
        try:
            return within(seconds, call)
        except Stalled:
            raise stalled(self._relation, seconds) from None
        except self._failure as error:
            code, text = (*error.args, "", "")[:2]
            number = code if isinstance(code, int) else 0
            raise failure(self._relation, number, str(text or code)) from None


class Beside:
    """A small result of the moment it is asked for, worked out on the server while others are read.

    Args:
        relation: for its address, and the wording of errors.
        sql: gives the rows.
    """

    def __init__(self, relation: Relation, sql: str) -> None:
        self._relation, self._session = relation, Session(relation)
        try:
            self._session.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            ((self._number,),) = self._session.rows("SELECT connection_id()")
        except BaseException:
            self._session.close()
            raise
        self._rows = begin(lambda: self._ask(sql))

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self._session:
            return self._session.rows(sql)

    def check(self) -> None:
        """Raises the error that it ended by, if it did by now."""
        if self._rows.done():
            self._rows.result()

    def rows(self) -> list[tuple[Any, ...]]:
        """The result, once it is there; the session's deadline holds."""
        with waiting("source"):
            return self._rows.result()

    def close(self) -> None:
        """Ends it on the server, if it still runs; does not wait for that."""
        if not self._rows.done():
            begin(self._kill)

    def _kill(self) -> None:
        with suppress(SourceError), Session(self._relation) as session:
            session.rows(f"KILL {int(self._number)}")


class Bulk:
    """Whole results; one at a time. What runs can be stopped from another thread.

    Args:
        relation: what is read.
        settings: of the `Session` that has logged in before.
    """

    def __init__(self, relation: Relation, settings: Sequence[str]) -> None:
        self._relation, self._settings = relation, list(settings)
        self._mark = f"/* maestro {secrets.token_hex(8)} */"

    def table(self, sql: str) -> pa.Table:
        """The whole result of ``sql``.

        Raises:
            Unreadable: it has a value that connectorx cannot read.
            SourceError: any other failure.
        """
        try:
            import connectorx
        except ImportError:
            raise MissingExtra("connectorx", "mysql", "reading MySQL") from None
        try:
            return connectorx.read_sql(
                _bulk_url(self._relation),
                f"{self._mark} {sql}",
                return_type="arrow",
                protocol="binary",  # the text protocol rounds FLOAT to six digits
                pre_execution_query=self._settings,
            )
        except BaseException as error:
            if is_panic(error):
                raise Unreadable(" ".join(str(error).split())[:200]) from None
            if not isinstance(error, RuntimeError):
                raise
            text = " ".join(str(error).split())
            found = re.search(r"ERROR (\d+)", text)
            number = int(found[1]) if found else 0
            sentence = text.partition("ERROR ")[2].rstrip(" }") or text
            if number == OUT_OF_RANGE:
                raise Unreadable(sentence[:200]) from None
            lost = any(mark in text for mark in ("IoError", "DriverError", "CodecError", "waiting for connection"))
            raise failure(self._relation, number or (2013 if lost else 0), sentence) from None

    def stop(self) -> None:
        """Ends what runs, on the server."""
        with suppress(SourceError), Session(self._relation) as session:
            running = session.rows(
                "SELECT id FROM information_schema.processlist WHERE info LIKE %s AND id <> connection_id()",
                f"{self._mark}%",
            )
            for (number,) in running:
                session.rows(f"KILL {int(number)}")


def failure(relation: Relation, number: int, text: str) -> SourceError:
    """The server's (or driver's) error of this number, in our words and its own."""
    text = " ".join(text.split())
    if number == 2013 and "timed out" in text:
        return stalled(relation, relation.spec.timeout_seconds)
    if number in TOO_LONG:
        return relation.error(
            f"the read took longer than {relation.spec.timeout_seconds:g} s and was stopped",
            code="source.timeout",
            fix="raise timeout_seconds, or read less with filter or query",
        )
    if number in LOGIN:
        return relation.error(
            f"cannot connect to {relation.location}: {text}",
            code="source.no_connection",
            fix="check user, password and database in connection_string, and what the user may do: SHOW GRANTS",
        )
    if number in (2002, 2003) or number in (1040, 1129, 1203, 1226):
        unknown = "Name or service not known" in text or "nodename nor servname" in text or "Errno -2" in text
        reason = re.sub(r"^Can't connect to MySQL server on .*? \((?:\[Errno -?\d+\] )?(.*)\)$", r"\1", text)
        return relation.error(
            f"cannot connect to {relation.location}: {reason}",
            code="source.no_connection",
            fix="check host and port in connection_string, and that the server is up and has connections left",
            transient=not unknown,
        )
    if number in DENIED:
        return relation.error(
            f"{relation.location} refuses: {text}",
            code="source.access_denied",
            fix="let a database administrator GRANT SELECT on it to this user",
        )
    if "URL parameter" in text:
        return relation.error(
            f"{relation.location} cannot be asked for: {text}",
            code="source.invalid_request",
            allowed="socket, compress, tcp_keepalive_time_ms, tcp_connect_timeout_ms and the like after the ?",
            fix="remove it from connection_string; text is utf8mb4 always",
        )
    if number == 1060:
        repeated = re.search(r"Duplicate column name '(.*)'", text)
        return relation.repeated_column(repeated[1] if repeated else "?")
    return relation.error(
        f"{relation.location} cannot be read: {text}",
        code="source.lost_connection" if number in TRANSIENT else "source.unreadable",
        fix="try again; see the server's log"
        if number in TRANSIENT
        else "check the table or query with the mysql shell",
        transient=number in TRANSIENT,
    )


def stalled(relation: Relation, seconds: float) -> SourceError:
    """Nothing came."""
    return relation.error(
        f"{relation.location} sent nothing for {seconds:g} s",
        code="source.stalled",
        fix="check the network and the server; raise timeout_seconds if it needs longer",
        transient=True,
    )


def _arguments(relation: Relation) -> dict[str, Any]:
    parts = urlsplit(relation.url)
    options = dict(parse_qsl(parts.query))
    return {
        "host": parts.hostname or "localhost",
        "port": parts.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.lstrip("/")) or None,
        "unix_socket": options.get("socket"),
    }


def _bulk_url(relation: Relation) -> str:
    """Over TCP to the very server that was asked for: by itself the driver prefers a local server's socket."""
    base, _, query = relation.url.partition("://")[2].partition("?")
    options = {"tcp_keepalive_time_ms": "30000", **dict(parse_qsl(query))}
    if "socket" not in options:
        options.setdefault("prefer_socket", "false")
    return f"mysql://{base}?{urlencode(options)}"

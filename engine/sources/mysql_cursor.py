"""How far a cursor of moments can be trusted: what is committed later, though written earlier.

A transaction writes NOW() into a row long before it commits; a reading that takes the largest moment it has seen for
granted misses such rows for good. So a reading states a bound: the start of the oldest transaction or statement under
way, on the server's clock. Where that cannot be learnt, it is the server's present time, and only ``lateness``
covers late rows; but a moment in the future never carries the position beyond what is written from now on.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from engine.errors import SourceError
from engine.sources.mysql_columns import DATES
from engine.sources.mysql_session import Field, Session

# A statement takes its NOW(), cut to the column's precision, before its transaction is listed.
MARGIN = timedelta(seconds=1)
FIXED = re.compile(r"[+-]\d\d:\d\d|UTC|GMT|Etc/.*")  # zones without summer time
LISTED_SECONDS = 0.11  # INNODB_TRX is a copy that is not renewed for 0.1 s after somebody has read it
ATTEMPTS = 30
WESTMOST = timedelta(hours=12)  # no zone is further behind UTC


@dataclass(frozen=True)
class Bound:
    """How far the next reading may count on this one.

    Attributes:
        at: what rows written from now on have at least in the cursor's column, as if it were UTC; None: no moments.
        proven: whether that holds for all rows that are committed from now on, too.
        note: what there is to say.
    """

    at: datetime | None = None
    proven: bool = False
    note: str | None = None


def bound_of(session: Session, field: Field) -> Bound:
    """The bound of a cursor of moments.

    A DATETIME or DATE is taken to be written in the server's own time zone, as NOW() is by default.
    """
    kind = DATES.get(field.type)
    if kind is None:
        return Bound(note=f"rows committed late with a smaller {field.name} are found within lateness only")
    ((now,),) = session.rows("SELECT UTC_TIMESTAMP(6)")
    moment = (now - MARGIN).replace(microsecond=0)
    notes = []
    try:
        oldest = _oldest(session)
    except SourceError as error:
        if error.code != "source.access_denied":
            raise
        notes.append(
            "without the PROCESS privilege transactions under way cannot be seen; rows committed late are found within "
            "lateness only: GRANT PROCESS ON *.* TO this user"
        )
    else:
        if isinstance(oldest, str):
            notes.append(f"{oldest}: rows committed late are found within lateness only")
        else:
            moment = oldest
    if kind == "timestamp":
        return Bound(moment.replace(tzinfo=UTC), not notes, "; ".join(notes) or None)
    proven = not notes
    ((local,),) = session.rows("SELECT CONVERT_TZ(%s, '+00:00', %s)", moment, session.zone)
    if local is None:
        proven, local = False, moment - WESTMOST
        notes.append(f"the server does not know its time zone {session.zone}; late rows are found within lateness only")
    elif not FIXED.fullmatch(zone := session.system_zone if session.zone == "SYSTEM" else session.zone):
        notes.append(
            f"{field.name} is in the server's zone {zone}: when its clocks are put back, lateness has to cover that"
        )
    at = datetime.fromisoformat(str(local)).replace(tzinfo=UTC, microsecond=0)
    return Bound(at.replace(hour=0, minute=0, second=0) if kind == "date" else at, proven, "; ".join(notes) or None)


def _oldest(session: Session) -> datetime | str:
    """The start of the oldest work under way, naive UTC; or why that does not say enough.

    In this order: a statement that ends before it is looked for is committed, or has left a transaction.
    """
    elapsed = "time_ms / 1000" if session.mariadb else "time + 1"
    ((now, longest, replicas),) = session.rows(
        f"SELECT UTC_TIMESTAMP(6), MAX(IF(user <> 'system user' AND command NOT IN ('Sleep', 'Daemon', 'Binlog Dump', "
        f"'Binlog Dump GTID') AND id <> connection_id(), {elapsed}, 0)), "
        "SUM(user = 'system user' AND command <> 'Daemon') FROM information_schema.processlist"
    )
    started = _oldest_transaction(session)
    if replicas:
        return "the server applies changes of another one, with that one's moments"
    if started is None:
        return "the list of transactions is not renewed"
    oldest: datetime = min(now - timedelta(seconds=float(longest or 0)), started)
    return (oldest - MARGIN).replace(microsecond=0)


def _oldest_transaction(session: Session) -> datetime | None:
    """None: the list is older than our question; a transaction of our own tells."""
    session.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    try:
        for _ in range(ATTEMPTS):
            ((started, own),) = session.rows(
                "SELECT MIN(CONVERT_TZ(trx_started, 'SYSTEM', '+00:00')), SUM(trx_mysql_thread_id = connection_id()) "
                "FROM information_schema.innodb_trx"
            )
            if own:
                found: datetime = started
                return found
            time.sleep(LISTED_SECONDS)
    finally:
        session.rows("ROLLBACK")
    return None

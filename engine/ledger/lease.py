"""One holder per pipeline at a time, and a number that tells a holder from those before it.

A lease lives as long as its process: the operating system frees a file's lock, the PostgreSQL server a connection's,
however the process ends. A holder that is cut off and does not notice is kept from writing by the epoch.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from engine.errors import LedgerError
from engine.ledger.tables import leases


@dataclass(frozen=True)
class Lease:
    """The right to write a pipeline's record, until a later epoch."""

    pipeline: str
    epoch: int


def holder() -> str:
    """Who this is, for people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def taken(pipeline: str, by: str, where: str) -> LedgerError:
    """Another run holds the pipeline."""
    return LedgerError(
        f"another run of {pipeline} is at work ({by or 'unknown process'})",
        code="ledger.locked",
        where=where,
        fix="wait for it to end; to run two at once, give them different names and outputs",
    )


def lost(pipeline: str, where: str) -> LedgerError:
    """Another run has taken the pipeline over meanwhile."""
    return LedgerError(
        f"another run has taken {pipeline} over; this one may write nothing any more",
        code="ledger.lease_lost",
        where=where,
        fix="let the other run finish; what this one had landed is not lost",
    )


@contextmanager
def file_lock(folder: Path, pipeline: str) -> Iterator[None]:
    """Holds a pipeline on this machine.

    Raises:
        LedgerError: another process holds it.
    """
    with (folder / f"{pipeline}.lease").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise taken(pipeline, handle.read().strip(), str(folder)) from None
        handle.truncate(0)
        handle.write(holder())
        handle.flush()
        yield


@contextmanager
def advisory_lock(engine: sa.Engine, pipeline: str, where: str) -> Iterator[None]:
    """Holds a pipeline among all who share a PostgreSQL ledger, by a connection kept open.

    Raises:
        LedgerError: another connection holds it.
    """
    key = int.from_bytes(hashlib.sha256(f"maestro {pipeline}".encode()).digest()[:8], signed=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar():
            by = connection.execute(sa.select(leases.c.holder).where(leases.c.pipeline == pipeline)).scalar()
            raise taken(pipeline, by or "", where)
        try:
            yield
        finally:
            with suppress(sa.exc.DBAPIError):  # the connection is gone, and the lock with it
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))

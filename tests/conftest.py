"""Fixtures that every test may use: real servers, started at first use, once per test process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import wraps

import pytest
from hypothesis import settings

from tests.servers import ceph, mariadb, postgres, redis

settings.register_profile("suite", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _feast_is_imported_once() -> None:
    """Not anew, in a process beside each run."""
    from engine.sinks.feast.aside import Aside

    begin = Aside.begin

    @wraps(begin)
    def begin_here(self: Aside) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import feast  # noqa: F401
        begin(self)

    Aside.begin = begin_here  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """A PostgreSQL server with an empty database."""
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[mariadb.MariaDB]:
    """A MariaDB server with an empty database."""
    with mariadb.running() as server:
        yield server


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[ceph.Ceph]:
    """An S3 gateway with one empty bucket."""
    with ceph.running() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[redis.Redis]:
    """A Redis server with a password, empty."""
    with redis.running() as server:
        yield server


@pytest.fixture(scope="session")
def redis_with_tls() -> Iterator[redis.Redis]:
    """A Redis server that speaks TLS only."""
    with redis.running_with_tls() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[redis.Redis]:
    """A Redis cluster of three nodes."""
    with redis.running_cluster() as server:
        yield server

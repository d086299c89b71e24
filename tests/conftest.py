"""Fixtures that every test may use: real servers, started at first use, once per test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import ceph, mariadb, postgres


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

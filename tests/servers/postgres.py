"""A PostgreSQL server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import folder, free_ports, program, run

USER, PASSWORD, DATABASE = "maestro", "p@ss:w/rd-pg", "shop"


@dataclass(frozen=True)
class Postgres:
    """A running server; ``url`` has its password percent-encoded."""

    port: int
    psql: str

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:p%40ss%3Aw%2Frd-pg@127.0.0.1:{self.port}/{DATABASE}"

    def execute(self, sql: str) -> None:
        subprocess.run(
            [self.psql, "-q", "-v", "ON_ERROR_STOP=1", self.url], input=sql, text=True, check=True, capture_output=True
        )


@contextmanager
def running() -> Iterator[Postgres]:
    """A server with one user and one database; durability is off."""
    homes = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    initdb, pg_ctl, psql = (program(name, *reversed(homes)) for name in ("initdb", "pg_ctl", "psql"))
    with folder("postgres") as (home, user):
        (port,) = free_ports(1)
        secret = home / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = str(home / "data")
        init = ("-D", data, "-U", USER, "-A", "scram-sha-256", "--pwfile", str(secret), "-E", "UTF8", "--no-sync")
        run(initdb, *init, "--locale=C.UTF-8", user=user)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
        run(pg_ctl, "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start", user=user)
        try:
            server = Postgres(port, psql)
            admin = server.url.replace(f"/{DATABASE}", "/postgres")
            run(psql, "-q", admin, "-c", f"CREATE DATABASE {DATABASE}")
            yield server
        finally:
            run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop", user=user)

"""A MariaDB server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import folder, free_ports, listens, program, run, wait_until

USER, PASSWORD, DATABASE = "maestro", "p@ss-maria", "shop"


@dataclass(frozen=True)
class MariaDB:
    """A running server; its own time zone is not UTC."""

    port: int
    socket: Path
    client: str

    @property
    def url(self) -> str:
        return f"mysql://{USER}:p%40ss-maria@127.0.0.1:{self.port}/{DATABASE}"

    def execute(self, sql: str, database: str = DATABASE) -> None:
        run(self.client, "--no-defaults", f"--socket={self.socket}", "-u", "root", database, text=sql)


@contextmanager
def running() -> Iterator[MariaDB]:
    """A server with one user and one database; durability is off."""
    install, daemon, client = (program(name) for name in ("mariadb-install-db", "mariadbd", "mariadb"))
    with folder("mysql") as (home, user):
        (port,) = free_ports(1)
        data, socket = home / "data", home / "socket"
        own = ("--no-defaults", f"--datadir={data}", f"--user={user}", f"--tmpdir={home}")
        run(install, *own, "--auth-root-authentication-method=normal", "--skip-test-db")
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [daemon, *own, "--bind-address=127.0.0.1", f"--port={port}", f"--socket={socket}",
                 "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--default-time-zone=+09:00"],
                stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        try:
            wait_until(lambda: listens(port) and socket.exists(), "MariaDB")
            server = MariaDB(port, socket, client)
            server.execute(
                f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4;"
                f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO {USER}@'%';"
                f"CREATE USER {USER}@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO {USER}@localhost",
                database="mysql",
            )
            yield server
        finally:
            process.terminate()
            process.wait(30)

"""Redis servers: one with a password, one with TLS, a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.process import folder, free_ports, listens, program, run, wait_until

PASSWORD = "r3dis=p@ss:word"
QUIET = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "yes")


@dataclass(frozen=True)
class Redis:
    """Running servers, and how Feast's ``feature_store.yaml`` names them."""

    connection_string: str
    redis_type: str = "redis"
    authority: Path | None = None
    ports: tuple[int, ...] = ()

    @property
    def online_store(self) -> dict[str, Any]:
        return {"type": "redis", "redis_type": self.redis_type, "connection_string": self.connection_string}

    def clients(self) -> list[Any]:
        """One for each server."""
        import redis

        tls = {"ssl": True, "ssl_ca_certs": str(self.authority)} if self.authority else {}
        return [redis.Redis("127.0.0.1", port, password=PASSWORD, **tls) for port in self.ports]

    def flush(self) -> None:
        for client in self.clients():
            client.flushall()

    def dump(self) -> dict[bytes, dict[bytes, bytes]]:
        """Every key with all its fields."""
        return {key: client.hgetall(key) for client in self.clients() for key in client.scan_iter(count=1000)}

    def expiries(self) -> list[int]:
        """The seconds that every key still has; -1: it stays."""
        return [client.ttl(key) for client in self.clients() for key in client.scan_iter(count=1000)]


@contextmanager
def running() -> Iterator[Redis]:
    """One server with a password."""
    with folder("redis") as (home, user):
        (port,) = free_ports(1)
        with _server(home, user, port, "--port", str(port)):
            yield Redis(f"127.0.0.1:{port},password={PASSWORD}", ports=(port,))


@contextmanager
def running_with_tls() -> Iterator[Redis]:
    """One server that speaks TLS only, with a certificate of its own authority."""
    with folder("redis") as (home, user):
        (port,) = free_ports(1)
        key, certificate = str(home / "key.pem"), str(home / "certificate.pem")
        subject = ("-subj", "/CN=maestro-test", "-addext", "subjectAltName=IP:127.0.0.1")
        new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
        run(program("openssl"), *new, "-keyout", key, "-out", certificate, *subject, user=user)
        tls = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate)
        with _server(home, user, port, "--port", "0", "--tls-port", str(port), *tls, "--tls-auth-clients", "no"):
            yield Redis(
                f"127.0.0.1:{port},password={PASSWORD},ssl=true,ssl_ca_certs={certificate}",
                authority=Path(certificate),
                ports=(port,),
            )


@contextmanager
def running_cluster() -> Iterator[Redis]:
    """Three nodes that share the keys among them."""
    with folder("redis") as (home, user), ExitStack() as servers:
        ports = [port for port in free_ports(12) if port < 55_000][:3]  # the bus is at port + 10,000
        assert len(ports) == 3
        for port in ports:
            (home / str(port)).mkdir()
            run("chown", user, str(home / str(port)))
            options = ("--port", str(port), "--cluster-enabled", "yes", "--masterauth", PASSWORD)
            servers.enter_context(_server(home / str(port), user, port, *options))
        cli = (program("redis-cli"), "--no-auth-warning", "-a", PASSWORD)
        run(*cli, "--cluster", "create", *(f"127.0.0.1:{p}" for p in ports), "--cluster-yes")
        check = (*cli, "--cluster", "check", f"127.0.0.1:{ports[0]}")
        wait_until(lambda: "All nodes agree" in _said(*check), "the Redis cluster")
        for port in ports:
            info = (*cli, "-p", str(port), "cluster", "info")
            wait_until(lambda info=info: "cluster_state:ok" in _said(*info), "the Redis cluster")  # type: ignore[misc]
        yield Redis(f"127.0.0.1:{ports[0]},password={PASSWORD}", "redis_cluster", ports=tuple(ports))


@contextmanager
def _server(home: Path, user: str, port: int, *options: str) -> Iterator[None]:
    files = ("--dir", str(home), "--pidfile", str(home / "pid"), "--logfile", str(home / "log"))
    run(program("redis-server"), *QUIET, *files, "--requirepass", PASSWORD, *options, user=user)
    wait_until(lambda: listens(port), "Redis")
    try:
        yield
    finally:
        run("kill", (home / "pid").read_text().strip(), user=user)


def _said(*command: str) -> str:
    try:
        return run(*command)
    except AssertionError:
        return ""

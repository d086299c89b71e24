"""What starting any server takes: programs, free ports, an unprivileged owner, waiting."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDERS = ("/usr/sbin", "/sbin")


class ServerMissing(AssertionError):  # noqa: N818 - reads better in a report
    """A server's program is not installed: a failed test, never a skipped one."""


def program(name: str, *folders: str) -> str:
    """The path of a program; ``folders`` are looked into first."""
    path = os.pathsep.join((*folders, os.environ.get("PATH", os.defpath), *FOLDERS))
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerMissing(f"{name} is not installed; run scripts/install-servers")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def folder(owner: str) -> Iterator[tuple[Path, str]]:
    """A temporary folder and the user to run as: ``owner`` where we are root, else ourselves.

    Not pytest's: its parents are closed to other users.
    """
    with tempfile.TemporaryDirectory(prefix="maestro-test-", ignore_cleanup_errors=True) as name:
        if os.getuid() == 0:
            try:
                shutil.chown(name, owner, owner)
            except LookupError:
                raise ServerMissing(f"there is no user {owner}; run scripts/install-servers") from None
            yield Path(name), owner
        else:
            yield Path(name), pwd.getpwuid(os.getuid()).pw_name


def run(*command: str, user: str | None = None, text: str | None = None, seconds: float = 60) -> str:
    """The output of a command; a failure shows what it said."""
    done = subprocess.run(
        command,
        input=text,
        text=True,
        capture_output=True,
        timeout=seconds,
        cwd="/",
        check=False,
        user=user if os.getuid() == 0 else None,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


def wait_until(ready: Callable[[], bool], what: str, *, seconds: float = 30) -> None:
    """Return when ``ready`` says so."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come up within {seconds:g} s")
        time.sleep(0.1)


def listens(port: int) -> bool:
    """Whether something accepts connections at a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""Ceph's S3 gateway over a cluster of one monitor and one disk, all on loopback."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers.process import folder, free_ports, listens, program, run, wait_until

ACCESS_KEY, SECRET_KEY = "maestro-access", "maestro-secret-key"
BUCKET = "lake"

CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
paxos propose interval = 0.01
paxos min wait = 0.01
mon tick interval = 1
auth allow insecure global id reclaim = false
keyring = {home}/keyring
run dir = {home}
admin socket = {home}/$name.asok
pid file = {home}/$name.pid
log file = {home}/$name.log
mon cluster log file = {home}/cluster.log
[mon]
mon data = {home}/mon
mon data avail warn = 2
mon data avail crit = 1
[osd]
osd data = {home}/osd
osd objectstore = {store}
bluestore block size = 10737418240
bluestore block create = true
osd memory target = 939524096
osd class load list = *
osd class default list = *
[client.rgw]
rgw data = {home}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw dns name = localhost
"""


@dataclass(frozen=True)
class Ceph:
    """A running gateway."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def store(self) -> Any:
        """A file system of the gateway, for putting objects there: another than the engine's own."""
        return _store(self.url)


@cache
def _store(url: str) -> Any:
    import s3fs

    return s3fs.S3FileSystem(
        key=ACCESS_KEY,
        secret=SECRET_KEY,
        endpoint_url=url,
        client_kwargs={"region_name": "us-east-1"},
        skip_instance_cache=True,
        use_listings_cache=False,
    )


@contextmanager
def running(*, on_disk: bool = False) -> Iterator[Ceph]:
    """A gateway with one user and one bucket; its objects are in memory, 1 GB of them at most, unless asked otherwise.

    The monitor is told not to gather changes for a second each: 2 s to come up (6 s on disk) instead of 19.
    """
    names = ("ceph", "ceph-authtool", "monmaptool", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
    ceph, authtool, monmaptool, mon, osd, gateway, admin = (program(name) for name in names)
    with folder("root") as (home, _), ExitStack() as started:
        port, mon_port = free_ports(2)
        store = "bluestore" if on_disk else "memstore"
        fsid, config = str(uuid.uuid4()), home / "ceph.conf"
        config.write_text(CONFIG.format(fsid=fsid, mon_port=mon_port, port=port, home=home, store=store))
        for name in ("mon", "osd", "rgw"):
            (home / name).mkdir()
        keyring = str(home / "keyring")
        run(authtool, "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        every = [part for cap in ("mon", "osd", "mgr") for part in ("--cap", cap, "allow *")]
        for name in ("client.admin", "client.rgw", "osd.0"):
            run(authtool, keyring, "--gen-key", "-n", name, *every)
        monmap = str(home / "monmap")
        run(monmaptool, "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", monmap)
        conf = ("-c", str(config))
        run(mon, *conf, "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
        _daemon(started, home, mon, *conf, "-i", "a", "-f")
        disk = str(uuid.uuid4())
        run(ceph, *conf, "osd", "new", disk, "0")
        run(osd, *conf, "-i", "0", "--mkfs", "--osd-uuid", disk)
        _daemon(started, home, osd, *conf, "-i", "0", "-f")
        wait_until(lambda: "1 up" in run(ceph, *conf, "osd", "stat"), "Ceph's disk")
        user = ("--uid=maestro", "--display-name=maestro", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
        run(admin, *conf, "-n", "client.rgw", "user", "create", *user, seconds=120)
        _daemon(started, home, gateway, *conf, "-n", "client.rgw", "-f")
        wait_until(lambda: listens(port), "Ceph's gateway")
        server = Ceph(port)
        server.store().call_s3("create_bucket", Bucket=BUCKET)
        yield server


def _daemon(started: ExitStack, home: Path, *command: str) -> None:
    """Start a process of the cluster; those started last are stopped first."""
    with (home / "daemons.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")

    def stop() -> None:
        process.kill()  # all of it is temporary, and an orderly end takes seconds
        process.wait(30)

    started.callback(stop)

"""The client of S3, against Ceph: what s3fs put it reads, what it puts s3fs reads; and what it signs with."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr

from engine.s3 import Client, Refused, client, open_client
from engine.s3.keys import Keys, keys_of
from engine.spec import StoreSpec
from tests.servers import proxy as proxies
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph

BODY = random.Random(4).randbytes(700_000)
ODD = ["plain", "with space", "a+b&c=d", "100%", "naïve/☃", "deep/er/x", "q?y#z", "<&>\"'"]


def access(url: str, **keys: Any) -> StoreSpec:
    own = {"access_key": SecretStr(ACCESS_KEY), "secret_key": SecretStr(SECRET_KEY)}
    return StoreSpec(path=f"s3://{BUCKET}", **{"endpoint_url": url, **own, **keys})


def opened(url: str, **keys: Any) -> Client:
    return open_client(access(url, **keys), seconds=10, attempts=3)


@pytest.fixture
def there(ceph_server: Ceph, request: pytest.FixtureRequest) -> Iterator[tuple[Client, Any, str]]:
    """The client, another one, and a folder."""
    files = opened(ceph_server.url)
    yield files, ceph_server.store(), f"{BUCKET}/client/{abs(hash(request.node.name))}"
    files.close()


def test_keys_of_any_characters(there: tuple[Client, Any, str], tmp_path: Path) -> None:
    files, other, root = there
    for number, name in enumerate(ODD):
        (tmp_path / "in").write_bytes(f"{number}".encode())
        files.put_file(str(tmp_path / "in"), f"{root}/{name}")
    assert sorted(files.find(root)) == sorted(f"{root}/{name}" for name in ODD)
    for number, name in enumerate(ODD):
        assert files.cat_file(f"{root}/{name}") == f"{number}".encode() == other.cat_file(f"{root}/{name}")
    listed = files.glob(f"{root}/*")
    assert sorted(listed) == sorted(f"{root}/{name}" for name in ODD if "/" not in name)
    for path, facts in listed.items():
        known = files.info(path)
        assert (facts["size"], facts["ETag"].strip('"')) == (known["size"], known["ETag"].strip('"'))
    files.rm([f"{root}/{name}" for name in ODD] + [f"{root}/none"])
    assert files.find(root) == []


def test_large_files_go_in_parts(
    there: tuple[Client, Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, other, root = there
    body = BODY * 16  # of a part 5 MiB at least, but for the last
    monkeypatch.setattr(client, "_WHOLE_BYTES", 2**20)
    monkeypatch.setattr(client, "_PART_BYTES", 5 * 2**20)
    monkeypatch.setattr(client, "_RANGE_BYTES", 3 * 2**20)
    (tmp_path / "in").write_bytes(body)
    files.put_file(str(tmp_path / "in"), f"{root}/large")
    assert hashlib.sha256(other.cat_file(f"{root}/large")).digest() == hashlib.sha256(body).digest()
    assert files.info(f"{root}/large")["ETag"].strip('"').endswith("-3")
    files.get_file(f"{root}/large", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == body
    assert files.cat_file(f"{root}/large", 5, 9) == body[5:9]


def test_long_listings_come_in_pages(there: tuple[Client, Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    files, other, root = there
    names = [f"{root}/{'ab'[i % 2]}/{i}" for i in range(7)]
    for name in names:
        other.pipe(name, b"x")
    monkeypatch.setattr(client, "_LISTED", 2)
    assert sorted(files.find(root)) == sorted(names)
    assert sorted(files.glob(f"{root}/a/*")) == sorted(names[::2])
    assert sorted(files.glob(f"{root}/**/[0-3]")) == sorted(names[:4])


def test_a_kept_connection_that_has_ended(there: tuple[Client, Any, str], ceph_server: Ceph) -> None:
    _, other, root = there
    other.pipe(f"{root}/x", BODY)
    with proxies.running(ceph_server.port) as proxy:
        files = opened(f"http://127.0.0.1:{proxy.port}")
        for _ in range(3):
            assert files.cat_file(f"{root}/x") == BODY
            assert proxy.connections == 1, "one serves them all"
        [[kept]] = files._idle.values()
        kept.sock.shutdown(2)
        assert files.cat_file(f"{root}/x") == BODY
        assert proxy.connections == 2
        files.close()
        with pytest.raises(ConnectionError):
            files.cat_file(f"{root}/x")


def test_what_the_store_refuses(ceph_server: Ceph) -> None:
    for keys, path, kind, text in (
        ({}, f"{BUCKET}/none", FileNotFoundError, "NoSuchKey"),
        ({}, "no-such-bucket/x", FileNotFoundError, "no such bucket"),
        ({"secret_key": SecretStr("another-one")}, f"{BUCKET}/x", PermissionError, "SignatureDoesNotMatch"),
        ({"endpoint_url": "http://127.0.0.1:1"}, f"{BUCKET}/x", ConnectionError, "127.0.0.1:1: Connection refused"),
        ({"endpoint_url": "http://no-such-host.invalid"}, f"{BUCKET}/x", OSError, "no-such-host.invalid: "),
        ({"endpoint_url": "http://h:99999"}, f"{BUCKET}/x", ValueError, "Port"),
    ):
        files = open_client(access(ceph_server.url, **keys), seconds=10, attempts=1)
        with pytest.raises(kind, match=text) as caught:
            files.cat_file(path)
        for secret in (SECRET_KEY, "another-one"):
            assert secret not in str(caught.value)
        files.close()


def test_where_keys_come_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    profile = tmp_path / "credentials"
    profile.write_text("[default]\naws_access_key_id = of-a-profile\naws_secret_access_key = its-secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    none = StoreSpec(path="s3://b")
    assert keys_of(none)() == Keys("of-a-profile", "its-secret")
    profile.unlink()
    assert keys_of(none)() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert keys_of(none)() == Keys("of-the-environment", "secret", "token")
    assert keys_of(access("http://h"))() == Keys(ACCESS_KEY, SECRET_KEY)


def test_a_bucket_of_another_region() -> None:
    """The store names it, and is asked again with a signature for it; a token of a role goes along."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            scope = self.headers["Authorization"].split("Credential=")[1].split(",")[0]
            asked.append((scope.split("/")[2], self.headers["x-amz-security-token"]))
            body = b"<Error><Code>PermanentRedirect</Code></Error>" if len(asked) == 1 else b"there"
            self.send_response(301 if len(asked) == 1 else 200)
            self.send_header("x-amz-bucket-region", "eu-west-3")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        files = opened(f"http://127.0.0.1:{server.server_address[1]}")
        files._keys = lambda: Keys("a", "b", "t0ken")
        assert files.cat_file("lake/x") == b"there"
        assert asked == [("us-east-1", "t0ken"), ("eu-west-3", "t0ken")]
        files.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_hosts_of_amazon() -> None:
    amazon = open_client(StoreSpec(path="s3://b", region="eu-west-3"), seconds=1, attempts=1)
    assert amazon._target("lake/a b") == ("https", "lake.s3.eu-west-3.amazonaws.com", "/a%20b")
    assert amazon._target("my.lake/x") == ("https", "s3.eu-west-3.amazonaws.com", "/my.lake/x")
    china = open_client(StoreSpec(path="s3://b", region="cn-north-1"), seconds=1, attempts=1)
    assert china._target("lake/x")[1] == "lake.s3.cn-north-1.amazonaws.com.cn"
    assert issubclass(Refused, OSError)

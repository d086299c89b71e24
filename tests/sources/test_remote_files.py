"""Files behind S3, HTTP and other fsspec drivers: ranges, what the way there does to them, and which origin gets what."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from engine import Pipeline, run_pipeline
from engine.errors import ConfigError, MissingExtra, SourceError, TransientSourceError
from engine.sources import store
from engine.spec import FileSpec, S3Spec
from tests.run.world import T
from tests.servers import proxy as proxies
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph
from tests.servers.proxy import Proxy
from tests.sources.reads import read

ROWS = 60_000
FRAME = pl.DataFrame({"n": range(ROWS), "name": [f"{i * 7919 % 104729:x}-{i}" for i in range(ROWS)]})


# --- S3 -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(ceph_server: Ceph) -> Ceph:
    files = ceph_server.store()
    for name, write in {"big.parquet": FRAME.write_parquet, "big.csv": FRAME.write_csv}.items():
        buffer = io.BytesIO()
        write(buffer)
        files.pipe(f"{BUCKET}/faults/{name}", buffer.getvalue())
    return ceph_server


@pytest.fixture
def proxy(bucket: Ceph) -> Iterator[Proxy]:
    with proxies.running(bucket.port) as running:
        yield running


def objects(port: int, key: str, **keys: Any) -> S3Spec:
    known = {"bucket": BUCKET, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    settings: dict[str, Any] = {**known, "endpoint_url": f"http://127.0.0.1:{port}", "timeout_seconds": 5.0, **keys}
    return S3Spec(type="s3", key=f"faults/{key}", **settings)


@pytest.mark.parametrize("key", ["big.parquet", "big.csv"])
@pytest.mark.parametrize("fault", ["reset_after", "close_after"])
@pytest.mark.parametrize("at", [0, 100, 200_000])
def test_a_range_is_asked_for_again(
    proxy: Proxy, key: str, fault: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RANGE_BYTES", 300_000)
    monkeypatch.setattr(store, "PAUSE_SECONDS", 0.01)
    getattr(proxy, fault)(at)
    assert read(objects(proxy.port, key)).sort("n").equals(FRAME)
    assert sum(proxy.fired.values()) == 1


def test_a_connection_that_breaks_each_time(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAUSE_SECONDS", 0.01)
    proxy.reset_after(50_000, times=99)
    with pytest.raises(TransientSourceError, match="the store cannot be read") as caught:
        read(objects(proxy.port, "big.csv", max_retries=1))
    assert proxy.fired["reset"] >= 2
    assert SECRET_KEY not in str(caught.value)


def test_a_black_hole(proxy: Proxy) -> None:
    proxy.black_hole_after(100_000, times=99)
    with pytest.raises(TransientSourceError) as caught:
        read(objects(proxy.port, "big.csv", max_retries=0, timeout_seconds=1.0))
    assert proxy.fired["black_hole"] >= 1
    assert caught.value.code in ("source.timeout", "source.unreadable")


def test_a_slow_connection(proxy: Proxy) -> None:
    proxy.drip_after(1_000_000, bytes_per_second=2_000_000)
    assert read(objects(proxy.port, "big.csv")).height == ROWS
    assert proxy.fired["drip"] == 1


@contextmanager
def answering(port: int, count: int, status: int) -> Iterator[Any]:
    """A way to the store that answers the requests from number ``count`` on, for three of them, with ``status``."""
    import http.client

    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            asked.append(f"{self.command} {self.path}")
            if count <= len(asked) < count + 3:
                body = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
                self.send_response(status)
                self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(body)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else body)
                return
            there = http.client.HTTPConnection("127.0.0.1", port)
            there.request(self.command, self.path, headers=dict(self.headers))  # signed with this Host
            answer = there.getresponse()
            body = answer.read()
            there.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = _pass  # noqa: N815 - as the library names them

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as there:
        yield there, asked


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("status", [500, 503])
def test_the_store_fails_on_a_call(bucket: Ceph, count: int, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAUSE_SECONDS", 0.01)
    with answering(bucket.port, count, status) as (port, asked):
        assert read(objects(port, "big.csv")).height == ROWS
        assert len(asked) == 5  # a HEAD and a GET; three answers were errors


def test_only_new_objects_by_their_etags(bucket: Ceph, tmp_path: Path) -> None:
    files = bucket.store()
    files.pipe(f"{BUCKET}/new/a.csv", b"n\n1\n")
    keys = {"bucket": BUCKET, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "endpoint_url": bucket.url}
    declared = {"s": {"type": "s3", "key": "new/*.csv", "mode": "append", **keys}}

    def run() -> tuple[int, int]:
        metrics = run_pipeline(Pipeline(base=tmp_path, name="p", sources=declared), as_of=T).sources[0].metrics
        return metrics.records_read, metrics.rows

    assert run() == (1, 1)
    assert run() == (0, 1)
    files.pipe(f"{BUCKET}/new/a.csv", b"n\n2\n")  # as long as before, in the same second
    files.pipe(f"{BUCKET}/new/b.csv", b"n\n3\n4\n")
    assert run() == (3, 3)


# --- HTTP ---------------------------------------------------------------------------------------------------------


@contextmanager
def web(
    bodies: dict[str, bytes], *, ranges: bool = True, redirect: str | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A web server with files; ``redirect``: to another origin."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            asked.append({"method": self.command, "path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
            name = self.path.partition("?")[0]
            if redirect:
                self.send_response(302)
                self.send_header("Location", redirect + name)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if name.endswith("/"):
                listing = "".join(f'<a href="{n}">{n}</a>' for n in bodies).encode()
                data, status = listing, 200
            elif name in bodies:
                data, status = bodies[name], 200
            else:
                data, status = b"", 404
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if ranges and found and status == 200:
                data, status = data[int(found[1]) : int(found[2]) + 1], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hash(bodies.get(name))}"')
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}", asked


def files(path: str, **keys: Any) -> FileSpec:
    return FileSpec(type="file", path=path, **keys)


@pytest.mark.parametrize("ranges", [True, False])
def test_files_of_a_web_server(ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "RANGE_BYTES", 100_000)
    body = FRAME.write_csv().encode()
    sink = io.BytesIO()
    FRAME.write_parquet(sink)
    with web({"/d/a.csv": body, "/d/b.csv": b"n,name\n-1,x\n", "/d/c.parquet": sink.getvalue()}, ranges=ranges) as (
        url,
        asked,
    ):
        assert read(files(f"{url}/d/a.csv")).equals(FRAME)
        assert read(files(f"{url}/d/c.parquet")).equals(FRAME)
        assert read(files(f"{url}/d/*.csv"))["n"].to_list() == [*range(ROWS), -1]
        assert any("range" in request for request in asked)


def test_headers_stay_with_their_origin() -> None:
    with web({"/a.csv": b"n\n1\n"}) as (there, asked), web({}, redirect=there) as (here, _):
        assert read(files(f"{here}/a.csv"))["n"].to_list() == [1]
        asked.clear()
        with pytest.raises(SourceError) as caught:
            read(files(f"{here}/a.csv", headers={"X-Api-Key": "hunter2-hunter2"}))
        assert caught.value.code == "source.redirect"
        assert asked == []
        assert "hunter2" not in str(caught.value)
        assert read(files(f"{there}/a.csv", headers={"X-Api-Key": "hunter2-hunter2"})).height == 1
        assert {request.get("x-api-key") for request in asked} == {"hunter2-hunter2"}


def test_a_token_in_a_query_is_not_shown() -> None:
    with web({"/a.csv": b"n,m\n1\n"}) as (url, _), pytest.raises(SourceError) as caught:
        read(files(f"{url}/a.csv?token=hunter2-hunter2"))
    assert "line 2" in caught.value.message
    assert "hunter2" not in str(caught.value)
    with web({}) as (url, _), pytest.raises(SourceError) as caught:
        read(files(f"{url}/a.csv?token=hunter2-hunter2"))
    assert caught.value.code == "source.no_match"
    assert "hunter2" not in str(caught.value)


# --- other drivers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("gs", {"token": "hunter2-hunter2"}),
        ("abfs", {"account_name": "shop", "account_key": "hunter2-hunter2"}),
    ],
)
def test_any_fsspec_driver(scheme: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Bucket(MemoryFileSystem):
        protocol = scheme
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def __init__(self, **given: Any) -> None:
            assert {key: given[key] for key in options} == options
            super().__init__()

    monkeypatch.setattr(fsspec, "filesystem", lambda asked, **given: {scheme: Bucket}[asked](**given))
    lake = Bucket(**options)
    lake.pipe("/lake/2.csv", b"n\n2\n")
    lake.pipe("/lake/1.csv", b"n\n1\n")
    spec = files(f"{scheme}://lake/*.csv", storage_options=options)
    assert read(spec)["n"].to_list() == [1, 2]
    assert "hunter2" not in repr(spec)


def test_a_driver_that_is_not_installed() -> None:
    with pytest.raises(MissingExtra, match="adlfs") as caught:
        read(files("abfs://lake/a.csv", storage_options={"account_name": "x"}))
    assert caught.value.fix == "pip install 'maestro-engine[azure]'"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"path": "s3://lake/a.csv"}, "use type: s3"),
        ({"path": "ftp://x/a.csv"}, "nothing here reads ftp://"),
        ({"path": "https://me:secret@x/a.csv"}, "put credentials in headers"),
        ({"path": "a.csv", "headers": {"A": "b"}}, "headers has no use for local files"),
        ({"path": "a.csv", "storage_options": {"A": "b"}}, "storage_options has no use for local files"),
        ({"path": "a.csv", "csv": {"encoding": "utf8x"}}, "unknown encoding 'utf8x'"),
        ({"path": "a.csv", "csv": {"encoding": "base64"}}, "unknown encoding 'base64'"),
        ({"path": "a.csv", "csv": {"delimiter": ";;"}}, "delimiter"),
        ({"path": "a.csv", "csv": {"delimiter": '"'}}, "are the same character"),
        ({"path": "a.parquet", "csv": {"delimiter": ";"}}, "csv has no use for parquet files"),
        ({"path": "a.parquet", "compression": "gzip"}, "compressed inside"),
        ({"path": "a.txt"}, "cannot be told from its suffix"),
        ({"path": "a.csv", "mode": "merge"}, "mode"),
        ({"path": "a.csv", "limits": {"row": 1}}, "did you mean 'rows'"),
    ],
)
def test_mistakes(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        Pipeline(name="p", sources={"s": {"type": "file", **keys}})

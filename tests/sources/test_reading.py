"""The border between native readers and the engine's errors."""

from __future__ import annotations

import errno
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pydantic import SecretStr

from engine.errors import DataError, SourceError, TransientSourceError
from engine.sources import open_source, reading
from engine.sources.relation import Relation
from engine.spec import AnySource, ApiSpec, DatabaseSpec, FileSpec, S3Spec, location_of
from tests.sources.reads import chunks_of


class PanicException(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        pl.exceptions.ComputeError("bad page"),
        pa.ArrowInvalid("bad page"),
        OSError("bad page"),
        PanicException("bad page"),
    ],
)
def test_native_failures_name_the_origin(error: BaseException) -> None:
    with pytest.raises(SourceError) as caught, reading("a.parquet", "users", {"bad"}):
        raise error
    assert caught.value.message == "a.parquet cannot be read: *** page"
    assert (caught.value.code, caught.value.where) == ("source.unreadable", "sources.users")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "x"), pl.exceptions.ComputeError("No space left on device")])
def test_a_full_disk_is_no_fault_of_the_source(error: Exception) -> None:
    with pytest.raises(SourceError, match="the disk is full") as caught, reading("a.parquet", "users"):
        raise error
    assert caught.value.code == "source.disk_full"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), DataError("x", code="x"), TypeError("x")])
def test_everything_else_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reading("a.parquet", "users"):
        raise error
    assert caught.value is error


def test_what_arrow_makes_of_an_interrupt_is_one() -> None:
    with pytest.raises(KeyboardInterrupt), reading("a.parquet", "users"):
        raise pa.ArrowCancelled("Operation cancelled. Detail: received signal 2")


INTERRUPTED: list[tuple[AnySource, str]] = [
    (FileSpec(type="file", path="x.csv"), "pyarrow.csv.open_csv"),
    (FileSpec(type="file", path="x.parquet"), "pyarrow.parquet.ParquetFile"),
    (FileSpec(type="file", path="x.json"), "pydantic_core.from_json"),
    (FileSpec(type="file", path="*.ndjson"), "fsspec.implementations.local.LocalFileSystem.glob"),
    (ApiSpec(type="api", url="http://127.0.0.1:1"), "httpx.Client.send"),
    (S3Spec(type="s3", bucket="lake", key="x.csv"), "engine.s3.Bucket.info"),
    (DatabaseSpec(type="database", connection_string="sqlite:///x.db", table="t"), "engine.sources.adbc.Session.rows"),
    (
        DatabaseSpec(type="database", connection_string="postgresql://h/d", table="t"),
        "adbc_driver_manager.AdbcDatabase",
    ),
    (DatabaseSpec(type="database", connection_string="mysql://h/d", table="t"), "socket.create_connection"),
]


@pytest.mark.parametrize(("spec", "target"), INTERRUPTED)
def test_an_interrupt_passes_unchanged(
    spec: AnySource, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt = KeyboardInterrupt()

    def interrupted(*_: Any, **__: Any) -> None:
        raise interrupt

    for name, content in {"x.csv": "a\n1\n", "x.parquet": "", "x.json": "[1]", "x.db": ""}.items():
        (tmp_path / name).write_text(content)
    pkgutil.resolve_name(target)  # imports what is to be replaced
    monkeypatch.setattr(target, interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        list(chunks_of(open_source("s", spec, tmp_path)))
    assert caught.value is interrupt


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:secret@h:abc/d",
        "mysql://u:secret@h:99999/d",
        "mysql://u:secret@[::1/d",
        "mysql://u:secret@a..b/d",
        "mysql://u:secret@\ud800/d",
        "postgresql://u:secret@\ud800/d",
        "postgresql://u:secret@127.0.0.1:abc/d",
        "postgresql://u:secret@127.0.0.1:99999/d",
        "postgresql://u:se@cr:et@[::1/d",
        "postgresql://u:%00@h/d",
    ],
)
def test_an_odd_connection_string_is_an_error_without_secrets(url: str) -> None:
    spec = DatabaseSpec(type="database", connection_string=SecretStr(url), table="t", timeout_seconds=2.0)
    with pytest.raises(SourceError) as caught:
        list(chunks_of(open_source("s", spec, Path())))
    scheme = url.partition(":")[0]
    codes = {"mysql": {"source.invalid_request"}, "postgresql": {"source.invalid_request", "source.no_connection"}}
    assert caught.value.code in codes[scheme]
    for hidden in ("secret", "se@cr:et", "se%40cr%3Aet"):
        assert hidden not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("declared", "url", "place"),
    [
        ("u:p@h/d?options=a@b", "u:p@h/d?options=a@b", "h/d"),
        ("u:p@h:1/d?a=b@c/d?e=f", "u:p@h:1/d?a=b@c/d?e=f", "h:1/d"),
        ("h/d?user=u@x&password=p@y", "h/d?user=u@x&password=p@y", "h/d"),
        ("h:1,g:2/d?user=u@x", "h:1,g:2/d?user=u@x", "h:1,g:2/d"),
        ("u@[::1]:5/d?x=a@b", "u@[::1]:5/d?x=a@b", "[::1]:5/d"),
        ("[::1]:5/d?x=a@b", "[::1]:5/d?x=a@b", "[::1]:5/d"),
        ("u:p@q@h/d?x=1", "u:p%40q@h/d?x=1", "h/d"),
        ("u:p@q@h/d?x=a@b", "u:p%40q@h/d?x=a@b", "h/d"),
        ("u:p?x=q@h/d", "u:p%3Fx%3Dq@h/d", "h/d"),
        ("u:p/q?x=r@h/d", "u:p%2Fq%3Fx%3Dr@h/d", "h/d"),
        ("u:p%40@h?x=1", "u:p%40@h?x=1", "h"),
        ("@h/d", "h/d", "h/d"),
        ("h/d", "h/d", "h/d"),
    ],
)
def test_a_connection_string_is_split_where_its_parts_end(declared: str, url: str, place: str) -> None:
    spec = DatabaseSpec(type="database", connection_string=SecretStr(f"postgresql://{declared}"), table="t")
    relation = Relation("s", spec, Path())
    assert relation.url.removeprefix("postgresql://").removeprefix("@") == url
    assert relation.location == f"postgresql://{place}"
    assert location_of(spec, Path()) == f"postgresql://{place} t"


@pytest.mark.parametrize("url", ["http://[bad", "http://h:99999", "http://a..b"])
def test_an_odd_endpoint_is_an_error(url: str) -> None:
    spec = S3Spec(type="s3", bucket="lake", key="x.csv", endpoint_url=url, access_key="aaaa", secret_key="bbbb")
    with pytest.raises(SourceError) as caught:
        list(chunks_of(open_source("s", spec, Path())))
    assert caught.value.code == "source.invalid_request"
    assert not isinstance(caught.value, TransientSourceError)


def test_opening_a_source_loads_no_heavy_package() -> None:
    script = """
import sys
from pathlib import Path
from engine.sources import Request, open_source
from engine.spec import ApiSpec, DatabaseSpec, FileSpec, S3Spec
open_source("s", FileSpec(type="file", path="x.csv"), Path())
open_source("s", S3Spec(type="s3", bucket="lake", key="x.csv"), Path())
open_source("s", DatabaseSpec(type="database", connection_string="sqlite:///x", table="t"), Path())
heavy = ("polars", "pyarrow", "pandas", "obstore", "boto3", "fsspec", "connectorx", "adbc_driver_manager")
print([m for m in heavy if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_reading_sqlite_does_not_load_pandas() -> None:
    script = """
import sqlite3, sys, tempfile
from pathlib import Path
from engine.sources import Request, open_source
from engine.spec import DatabaseSpec
folder = Path(tempfile.mkdtemp())
with sqlite3.connect(folder / "x.db") as c:
    c.execute("CREATE TABLE t AS SELECT 1 AS a, 'x' AS b")
c.close()
spec = DatabaseSpec(type="database", connection_string="sqlite:///x.db", table="t")
with open_source("s", spec, folder).open(Request()) as opened:
    print([chunk.frame.collect().rows() for chunk in opened.chunks()], "pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[(1, 'x')]] False\n"

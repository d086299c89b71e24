"""The border between native readers and the engine's errors."""

from __future__ import annotations

import errno
import subprocess
import sys

import polars as pl
import pyarrow as pa
import pytest

from engine.errors import DataError, SourceError
from engine.sources import reading


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


def test_opening_a_source_loads_no_heavy_package() -> None:
    script = """
import sys
from pathlib import Path
from engine.sources import open_source
from engine.spec import ApiSpec, DatabaseSpec, FileSpec, S3Spec
open_source("s", FileSpec(type="file", path="x.csv"), Path())
open_source("s", S3Spec(type="s3", bucket="lake", key="x.csv"), Path())
open_source("s", DatabaseSpec(type="database", connection_string="sqlite:///x", table="t"), Path())
heavy = ("polars", "pyarrow", "pandas", "s3fs", "fsspec", "connectorx", "adbc_driver_manager")
print([m for m in heavy if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_reading_sqlite_does_not_load_pandas() -> None:
    script = """
import sqlite3, sys, tempfile
from pathlib import Path
from engine.sources import open_source
from engine.spec import DatabaseSpec
folder = Path(tempfile.mkdtemp())
with sqlite3.connect(folder / "x.db") as c:
    c.execute("CREATE TABLE t AS SELECT 1 AS a, 'x' AS b")
c.close()
spec = DatabaseSpec(type="database", connection_string="sqlite:///x.db", table="t")
print([chunk.frame.collect().rows() for chunk in open_source("s", spec, folder).chunks()], "pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[(1, 'x')]] False\n"

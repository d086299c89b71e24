"""Damaged and crafted files: an error that names the file, or just what another reader gives; never anything else."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import signal
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from engine.errors import SourceError
from engine.sources import formats
from engine.sources.child import Child
from engine.sources.formats import Job
from engine.spec import Csv, FileSpec, Limits
from tests.sources.reads import read

INSERTS = [
    b"\0",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\xff",
    b"\xef\xbb\xbf",
    b"[",
    b"{",
    b"}",
    b"1e999",
    b"-",
    b"9" * 20,
    b"\\",
]
MUTATIONS = 250  # of each seed; thousands were run by hand


def table() -> pa.Table:
    return pa.table(
        {
            "i": pa.array([1, None, 3] * 40),
            "s": pa.array(["x", "yy", None] * 40),
            "f": pa.array([1.5, 2.5, None] * 40),
            "l": pa.array([[1, 2], None, []] * 40),
            "st": pa.array([{"x": 1, "y": "q"}, None, {"x": 2, "y": None}] * 40),
            "t": pa.array([datetime(2020, 1, 1), None, datetime(2021, 1, 1)] * 40),
            "b": pa.array([True, False, None] * 40),
            "d": pa.array([Decimal("1.23"), None, Decimal("4.56")] * 40),
            "m": pa.array([[("k", 1)], None, []] * 40, pa.map_(pa.string(), pa.int64())),
            "raw": pa.array([b"\0\1", None, b""] * 40),
        }
    )


def parquet(**options: Any) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(table(), sink, **options)
    return sink.getvalue()


def arrow(compression: str | None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table().schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table())
    return sink.getvalue()


DELTA = {"i": "DELTA_BINARY_PACKED", "s": "DELTA_BYTE_ARRAY", "f": "BYTE_STREAM_SPLIT"}
SEEDS: dict[str, tuple[str, bytes]] = {
    "plain": ("parquet", parquet(compression="none", use_dictionary=False)),
    "snappy": ("parquet", parquet(row_group_size=50)),
    "zstd v2": ("parquet", parquet(compression="zstd", data_page_version="2.0")),
    "delta": ("parquet", parquet(compression="none", column_encoding=DELTA, use_dictionary=False)),
    "int96": ("parquet", parquet(use_deprecated_int96_timestamps=True)),
    "ipc": ("arrow", arrow(None)),
    "ipc lz4": ("arrow", arrow("lz4")),
    "csv": ("csv", b'a,b,"c d"\n1,x,"q,""z"" 1"\n2,,\n-3,"multi\nline",1.5e3\n007,\xe2\x98\x83,true\n' * 3),
    "csv crlf": ("csv", b"n,m\r\n1,2.5\r\n3,4\r\n,-0\r\n"),
    "ndjson": ("ndjson", b'{"a": 1, "b": "x", "c": [1, 2], "d": {"e": 1.5}}\n{"a": null, "b": "\\u2603"}\n' * 4),
    "json": ("json", b'[{"a": 1, "c": [1, 2]}, {"a": -2, "c": []}, {"a": null}]'),
}


def mutated(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        if not data:
            break
        at = rng.randrange(len(data))
        match rng.randrange(7):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.choice([1, 2, 8, 64])]
            case 3:
                data[at:at] = rng.randbytes(rng.choice([1, 2, 8]))
            case 4:
                del data[at:]
            case 5:
                data[at:at] = rng.choice(INSERTS)
            case _:
                data[at : at + 8] = data[(other := rng.randrange(len(data))) : other + 8]
    return bytes(data)


def rows(job: Job) -> pl.DataFrame | None:
    """What is read; None where the file is refused, as it must be."""
    found: list[pl.DataFrame] = []
    refused: SourceError | None = None
    try:
        for part in formats.read(job):
            part.frame.write_parquet(io.BytesIO())  # it can be landed
            found.append(part.frame)
    except SourceError as error:
        refused = error
    if refused is not None:
        assert refused.message.startswith(("f ", "f:")) or "(f" in refused.message, refused.message
        assert refused.code.startswith("source.")
        return None
    return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_files(seed: str) -> None:
    form, body = SEEDS[seed]
    rng = random.Random(seed)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(MUTATIONS):
        damaged = mutated(rng, body)
        found = rows(Job(damaged, form, "f", "s"))
        outcomes["refused" if found is None else "read"] += 1
        if found is not None:
            agrees(form, damaged, found)
    assert min(outcomes.values()) > 0


def agrees(form: str, body: bytes, frame: pl.DataFrame) -> None:
    """Python's own readers give the same."""
    found = frame.to_dicts() if form in ("csv", "ndjson", "json") else []
    text = body.decode("utf-8-sig") if form in ("csv", "ndjson", "json") else ""
    if form == "csv":
        names, *lines = csv.reader(io.StringIO(text, newline=""))
        assert [list(row) for row in found] == [names] * len(found)
        assert len(found) == len(lines)
        for row, line in zip(found, lines, strict=True):
            for name, field in zip(names, line or [""] * len(names), strict=True):
                assert alike(row[name], field), (name, row[name], field)
    elif form == "ndjson":
        same(found, [json.loads(line) for line in text.split("\n") if line.strip()])
    elif form == "json":
        same(found, json.loads(text) if text.strip() else [])


def alike(value: Any, field: str) -> bool:
    match value:
        case None:
            return field == ""
        case bool():
            return str(value).lower() == field.lower()
        case int():
            return str(value) == field
        case float():
            return value == float(field) or math.isnan(value)
        case _:
            return value == field


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    names = {name for record in expected for name in record}
    assert len(found) == len(expected)
    for row, record in zip(found, expected, strict=True):
        for name in names:
            assert filled(row.get(name)) == filled(record.get(name))


def filled(value: Any) -> Any:
    """Without the fields of objects that are null, absent or hold no field."""
    if isinstance(value, dict):
        kept = {k: f for k, v in value.items() if (f := filled(v)) is not None}
        return kept or None
    return [filled(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "body",
    [
        b"PAR1",
        b"PAR1PAR1",
        b"PAR1" + b"\xff" * 8 + b"PAR1",
        b"PAR1" + b"\0" * 100 + b"\x64\0\0\0PAR1",
        b"ARROW1\0\0" + b"\xff" * 20,
        b"\x1f\x8b\x08",
        b"\0" * 1000,
    ],
)
@pytest.mark.parametrize("form", ["parquet", "arrow", "ndjson", "json"])
def test_what_is_no_file_of_any_kind(form: str, body: bytes) -> None:
    assert rows(Job(body, form, "f", "s")) is None


def test_a_footer_that_contradicts_itself() -> None:
    """A size histogram of another length: pyarrow ends the process where it is asked about that column."""
    body = (Path(__file__).parent.parent / "fixtures" / "files" / "histogram.parquet").read_bytes()
    assert rows(Job(body, "parquet", "f", "s")) is None


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'[{"a":' * 50_000, b'{"a":' * 100_000])
@pytest.mark.parametrize("form", ["ndjson", "json"])
def test_json_that_opens_and_opens(form: str, deep: bytes) -> None:
    assert rows(Job(deep, form, "f", "s")) is None


def test_objects_that_share_two_lines() -> None:
    for body in (b'{"a":1},{"b":2\n"c":3}\n', b'{"a":[1\n2]}\n', b'{"a":1}{"a":2}\n'):
        assert rows(Job(body, "ndjson", "f", "s")) is None


# --- in a child ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_child_reads_the_same(tmp_path: Path, seed: str) -> None:
    form, body = SEEDS[seed]
    (tmp_path / "f").write_bytes(body)
    job = Job(tmp_path / "f", form, "f", "s", csv=Csv(null_values=("NA",)))
    with Child() as reader:
        for _ in range(2):
            ours, theirs = list(formats.read(job)), list(reader.read(job))
            assert len(ours) == len(theirs) > 0
            for one, other in zip(ours, theirs, strict=True):
                assert one.frame.equals(other.frame)
                assert (one.first, one.place, one.open_schema, one.kinds) == (
                    (other.first, other.place, other.open_schema, other.kinds)
                )


def test_an_untrusted_source(tmp_path: Path) -> None:
    pl.DataFrame({"n": [1, 2]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"n": [3]}).write_parquet(tmp_path / "b.parquet")
    assert read(FileSpec(type="file", path="*.parquet", untrusted=True), tmp_path)["n"].to_list() == [1, 2, 3]
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"c\.parquet cannot be read") as caught:
        read(FileSpec(type="file", path="*.parquet", untrusted=True), tmp_path)
    assert caught.value.code == "source.unreadable"


def crafted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str, **limits: Any) -> SourceError:
    """What is said of a file that makes its reader do something."""
    (tmp_path / "sitecustomize.py").write_text(
        "import engine.sources.csv_file as c, os, signal, time\n"
        f"def parts(job):\n    {deed}\n    yield from ()\n"
        "c.parts = parts\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "f").write_bytes(b"a\n1\n")
    with Child() as reader, pytest.raises(SourceError) as caught:
        list(reader.read(Job(tmp_path / "f", "csv", "f", "s", limits=Limits(**limits))))
    assert reader._process is not None
    assert reader._process.poll() is not None
    return caught.value


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_file_that_breaks_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    error = crafted(tmp_path, monkeypatch, f"os.kill(os.getpid(), signal.{name})")
    assert (error.code, f"({signal.Signals[name].name})" in error.message) == ("source.crashed", True)


def test_a_file_that_takes_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crafted(tmp_path, monkeypatch, "time.sleep(600)", seconds=2).code == "source.limit_seconds"


def test_a_file_that_takes_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = crafted(tmp_path, monkeypatch, "held = [bytearray(2**26) for _ in range(99)]", memory=2**29)
    assert error.code == "source.limit_memory"


def test_the_child_has_no_secrets_and_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_PASSWORD", "hunter2-hunter2")
    (tmp_path / "sitecustomize.py").write_text(
        "import engine.sources.csv_file as c, os\n"
        "def parts(job):\n"
        "    try:\n"
        f"        open({str(tmp_path / 'out')!r}, 'wb').write(b'x' * 9999)\n"
        "        wrote = 'wrote'\n"
        "    except OSError:\n"
        "        wrote = 'refused'\n"
        "    raise ValueError(wrote + ' ' + str('APP_PASSWORD' in os.environ))\n"
        "    yield\n"
        "c.parts = parts\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "f").write_bytes(b"a\n1\n")
    with Child() as reader, pytest.raises(SourceError, match="refused False"):
        list(reader.read(Job(tmp_path / "f", "csv", "f", "s")))

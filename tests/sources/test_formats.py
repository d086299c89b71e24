"""What files may be written like: dialects, encodings, compression, Arrow IPC, partitions, odd Parquet; and the limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from engine.errors import SourceError
from engine.sources import file_reading, formats, open_source
from engine.spec import FileSpec
from tests.sources.reads import chunks_of, read

ROWS = [(1, "naïve"), (2, "é,ü"), (None, 'say "hi"')]
CSV = 'n,name\n1,naïve\n2,"é,ü"\n,"say ""hi"""\n'


def files(path: str, **keys: Any) -> FileSpec:
    return FileSpec(type="file", path=path, **keys)


def read_bytes(folder: Path, name: str, content: bytes, **keys: Any) -> pl.DataFrame:
    (folder / name).write_bytes(content)
    return read(files(name, **keys), folder)


def refused(folder: Path, name: str, content: bytes, **keys: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read_bytes(folder, name, content, **keys)
    assert name in caught.value.message
    assert caught.value.where == "sources.s"
    return caught.value


# --- CSV ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    content = CSV.encode(encoding)
    assert read_bytes(tmp_path, "a.csv", content, csv={"encoding": encoding}).rows() == ROWS


def test_an_encoding_that_is_another(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        error = refused(tmp_path, "a.csv", CSV.encode(encoding))
        assert "csv.encoding" in str(error.fix)
    error = refused(tmp_path, "a.csv", b"a,b\n1,x\n2,\xe9\n")
    assert (error.code, "row 2, column 'b'" in error.message) == ("source.encoding", True)
    error = refused(tmp_path, "a.csv", b"a\n\x81\n", csv={"encoding": "cp1252"})
    assert (error.code, "the text is not cp1252" in error.message) == ("source.encoding", True)


@pytest.mark.parametrize(
    ("content", "dialect"),
    [
        (b"n;name\n1;x\n2;'a;b'\n", {"delimiter": ";", "quote": "'"}),
        (b"n\tname\n1\tx\n2\ta;b\n", {"delimiter": "\t"}),
        (b'n|name\n1|x\n2|"a;b"\n', {"delimiter": "|"}),
        (b"n,name\n1,x\n2,a\\;b\n", {"escape": "\\"}),
        (b"made by\nhand\nn,name\n1,x\n2,a;b\n", {"skip_lines": 2}),
        (b"\xef\xbb\xbfmade\nn,name\n1,x\n2,a;b", {"skip_lines": 1}),
    ],
)
def test_dialects(tmp_path: Path, content: bytes, dialect: dict[str, Any]) -> None:
    for name, body in {"a.csv": content, "a.csv.gz": gzip.compress(content)}.items():
        frame = read_bytes(tmp_path, name, body, csv=dialect)
        assert (frame.columns, frame.rows()) == (["n", "name"], [(1, "x"), (2, "a;b")])


def test_without_column_names(tmp_path: Path) -> None:
    frame = read_bytes(tmp_path, "a.csv", b"1,x\n2,y\n", csv={"header": False})
    assert frame.to_dict(as_series=False) == {"column_1": [1, 2], "column_2": ["x", "y"]}


def test_words_for_null_and_quotes_without_meaning(tmp_path: Path) -> None:
    frame = read_bytes(tmp_path, "a.csv", b'a,b\nNA,x"\n1,"NA\n', csv={"null_values": ["NA"], "quote": None})
    assert frame.rows() == [(None, 'x"'), (1, '"NA')]
    assert read_bytes(tmp_path, "a.csv", b'a\nNA\n"NA"\n', csv={"null_values": ["NA"]}).rows() == [(None,), ("NA",)]


def test_a_quoted_line_break_among_the_column_names(tmp_path: Path) -> None:
    frame = read_bytes(tmp_path, "a.csv", b'"a\nb","c,d"\n1,2\n')
    assert frame.to_dict(as_series=False) == {"a\nb": [1], "c,d": [2]}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'a,b\n1,"open\n2,3\n', "line 2"),
        (b'a,b\n1,2\n"x"y,3\n', "line 3"),
        (b'a,b\n1,"x\ny"\n2\n', "line 4"),
        (b"a,b\n" + b"1,2\n" * 100_000 + b"1,2,3\n", "line 100002"),
        (b"a,b\n" + b'"1",2\n' * 100_000 + b'1,"\n', "line 100002"),
    ],
)
def test_the_line_of_a_row_that_is_wrong(tmp_path: Path, content: bytes, line: str) -> None:
    for name, body in {"a.csv": content, "a.csv.gz": gzip.compress(content)}.items():
        assert f"{line}" in refused(tmp_path, name, body).message


def test_a_large_file_is_read_in_parts_with_one_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.sources import csv_file

    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 4_096)
    monkeypatch.setattr(csv_file, "HELD_BYTES", 10_000)
    for module in (csv_file, formats, file_reading):
        monkeypatch.setattr(module, "PART_ROWS", 1_000)
    body = "a,b\n" + "".join(f"{i},x{i}\n" for i in range(5_000)) + "0.5,\n"
    (tmp_path / "a.csv").write_text(body)
    chunks = list(chunks_of(open_source("s", files("a.csv"), tmp_path)))
    assert len(chunks) > 3
    assert {chunk.frame.collect_schema()["a"] for chunk in chunks} == {pl.Float64}
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    frame = read(files("a.csv"), tmp_path)
    assert frame["a"].to_list() == [*map(float, range(5_000)), 0.5]


# --- compression --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_compression(tmp_path: Path, form: str, suffix: str) -> None:
    content = {"csv": b"n\n1\n2\n", "ndjson": b'{"n":1}\n{"n":2}\n', "json": b'[{"n":1},{"n":2}]'}[form]
    packed = packed_by(suffix, content)
    assert read_bytes(tmp_path, f"a.{form}{suffix}", packed)["n"].to_list() == [1, 2]
    named = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}[suffix]
    assert read_bytes(tmp_path, f"a.{form}", packed, compression=named)["n"].to_list() == [1, 2]


def packed_by(suffix: str, content: bytes) -> bytes:
    if suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix](content)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files_that_are_cut_short_or_damaged(tmp_path: Path, suffix: str) -> None:
    content = b"n,m\n" + b"".join(f"{i},{i * 7919 % 104729}\n".encode() for i in range(20_000))
    packed = packed_by(suffix, content)
    for cut in (len(packed) // 2, len(packed) - 3):
        assert "damaged or cut short" in refused(tmp_path, f"a.csv{suffix}", packed[:cut]).message
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0x55
    assert refused(tmp_path, f"a.csv{suffix}", bytes(flipped)).code in ("source.malformed", "source.encoding")


# --- Arrow IPC ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["arrow", "ipc", "feather"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_arrow_files(tmp_path: Path, suffix: str, compression: str | None) -> None:
    table = pa.table({"n": [1, None, 3], "name": ["a", "b", None], "l": [[1], None, []]})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(str(tmp_path / f"a.{suffix}"), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    assert read(files(f"a.{suffix}"), tmp_path).to_dicts() == table.to_pylist()


def test_an_arrow_stream_that_was_cut_between_two_batches(tmp_path: Path) -> None:
    table = pa.table({"n": list(range(100))})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    body = sink.getvalue()
    assert read_bytes(tmp_path, "a.arrow", body)["n"].to_list() == list(range(100))
    read_wrong = []
    for cut in range(len(body)):
        (tmp_path / "a.arrow").write_bytes(body[:cut])
        try:
            read_wrong.append((cut, read(files("a.arrow"), tmp_path).height))
        except SourceError:
            continue
    assert read_wrong == []


# --- Parquet ------------------------------------------------------------------------------------------------------


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink, **options)
    return sink.getvalue()


def test_old_moments_beyond_nanoseconds(tmp_path: Path) -> None:
    moments = [datetime(2020, 1, 1), datetime(9999, 12, 31), datetime(1, 1, 1), None]
    body = parquet(pa.table({"t": pa.array(moments, pa.timestamp("us"))}), use_deprecated_int96_timestamps=True)
    assert read_bytes(tmp_path, "a.parquet", body)["t"].to_list() == moments
    fine = pa.table({"t": pa.array([1], pa.timestamp("ns"))})
    assert read_bytes(tmp_path, "a.parquet", parquet(fine, use_deprecated_int96_timestamps=True))["t"].dtype == (
        pl.Datetime("ns")
    )


def test_kinds_of_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "dictionary": pa.array(["a", "b", None, "a"]).dictionary_encode(),
            "map": pa.array([[("k", 1), ("k", 3)], None, [], [("k", 2)]], pa.map_(pa.string(), pa.int64())),
            "nested": pa.array([{"x": [1, None]}, None, {"x": None}, {"x": []}]),
            "zoned": pa.array([datetime(2026, 1, 1, tzinfo=UTC), None, None, None], pa.timestamp("us", "UTC")),
            "nothing": pa.nulls(4),
        }
    )
    frame = read_bytes(tmp_path, "a.parquet", parquet(table, row_group_size=3))
    assert frame["dictionary"].dtype == pl.String
    assert frame.select("dictionary", "nested", "zoned", "nothing").to_dicts() == table.drop_columns("map").to_pylist()
    assert frame["map"].to_list() == [
        [{"key": "k", "value": 1}, {"key": "k", "value": 3}],
        None,
        [],
        [{"key": "k", "value": 2}],
    ]


def test_parquet_without_rows_or_columns(tmp_path: Path) -> None:
    frame = read_bytes(tmp_path, "a.parquet", parquet(pa.table({"n": pa.array([], pa.int64())})))
    assert (frame.schema, frame.height) == ({"n": pl.Int64}, 0)
    assert read_bytes(tmp_path, "a.parquet", parquet(pa.table({}))).shape == (0, 0)


def test_a_large_file_is_several_pieces_of_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reading, "SLICE_BYTES", 4_000)
    (tmp_path / "a.parquet").write_bytes(parquet(pa.table({"n": list(range(10_000))}), row_group_size=500))
    chunks = list(chunks_of(open_source("s", files("a.parquet"), tmp_path)))
    assert len({chunk.number for chunk in chunks}) > 5
    assert read(files("a.parquet"), tmp_path)["n"].to_list() == list(range(10_000))
    spans = sorted((span.first or 0, span.rows) for chunk in chunks for span in chunk.spans)
    assert [first for first, _ in spans] == [sum(rows for _, rows in spans[:i]) for i in range(len(spans))]


def test_small_files_are_read_together(tmp_path: Path) -> None:
    for i in range(40):
        pl.DataFrame({"n": [i, i]}).write_parquet(tmp_path / f"{i:02}.parquet")
        pl.DataFrame({"n": [i, i]}).write_csv(tmp_path / f"{i:02}.csv")
    for form in ("parquet", "csv"):
        (chunk,) = chunks_of(open_source("s", files(f"*.{form}"), tmp_path))
        assert chunk.frame.collect()["n"].to_list() == [i // 2 for i in range(80)]
        assert [Path(span.origin).name for span in chunk.spans] == [f"{i:02}.{form}" for i in range(40)]


# --- one table of many files --------------------------------------------------------------------------------------


def test_partitions_are_columns_where_they_are_asked_for(tmp_path: Path) -> None:
    for year, city in ((2025, "a%20b"), (2026, "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "t" / f"year={year}" / f"city={city}"
        folder.mkdir(parents=True)
        pl.DataFrame({"n": [year]}).write_parquet(folder / "x.parquet")
    frame = read(files("t/**/*.parquet", hive_partitions=True), tmp_path)
    assert frame.schema == {"n": pl.Int64, "year": pl.Int64, "city": pl.String}
    assert frame.rows() == [(2025, 2025, "a b"), (2026, 2026, None)]
    assert read(files("t/**/*.parquet"), tmp_path).columns == ["n"]


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "limits", "code"),
    [
        ("a.csv", b"a\n1\n2\n3\n", {"rows": 2}, "source.limit_rows"),
        ("a.ndjson", b'{"a":1}\n' * 3, {"rows": 2}, "source.limit_rows"),
        ("a.json", b'[{"a":1},{"a":1},{"a":1}]', {"rows": 2}, "source.limit_rows"),
        ("a.parquet", parquet(pa.table({"a": [1, 2, 3]})), {"rows": 2}, "source.limit_rows"),
        ("a.csv", b"a,b,c\n1,2,3\n", {"columns": 2}, "source.limit_columns"),
        ("a.parquet", parquet(pa.table({"a": [1], "b": [1]})), {"columns": 1}, "source.limit_columns"),
        ("a.csv", b"a\n" + b"x" * 200_000 + b"\n", {"value_bytes": 50_000}, "source.limit_value_bytes"),
        ("a.ndjson", b'{"a":"' + b"x" * 2_000 + b'"}\n', {"value_bytes": 1_000}, "source.limit_value_bytes"),
        ("a.json", b'[{"a":"' + b"x" * 2_000 + b'"}]\n', {"whole_bytes": 1_000}, "source.limit_whole_bytes"),
        ("a.csv.gz", gzip.compress(b"a\n" + b"1\n" * 9_000, mtime=0), {"bytes": 9_000}, "source.limit_bytes"),
        ("a.ndjson", b'{"a":' + b"[" * 40 + b"]" * 40 + b"}\n", {}, "source.limit_nesting"),
        ("a.json", b'[{"a":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}]", {}, "source.limit_nesting"),
    ],
)
def test_limits(tmp_path: Path, name: str, content: bytes, limits: dict[str, int], code: str) -> None:
    error = refused(tmp_path, name, content, limits=limits, batch_size=1)
    assert error.code == code
    assert code.removeprefix("source.limit_") in str(error.fix)


def test_parquet_nested_too_deep(tmp_path: Path) -> None:
    kind: pa.DataType = pa.int64()
    for _ in range(40):
        kind = pa.struct([("a", kind)])
    error = refused(tmp_path, "a.parquet", parquet(pa.table({"a": pa.array([None], kind)})))
    assert "nest" in error.message or "depth" in error.message


def test_a_text_that_is_written_once_and_stands_in_every_row(tmp_path: Path) -> None:
    """47 KB that decode to 3 GB, of which the footer says nothing."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000, pa.int32()), pa.array(["x" * 1_000_000]))
    body = parquet(pa.table({"s": text}), store_schema=False)
    assert len(body) < 100_000
    assert refused(tmp_path, "a.parquet", body).code == "source.limit_ratio"


def test_a_column_without_a_name(tmp_path: Path) -> None:
    frame = read_bytes(tmp_path, "a.csv", b",b\n1,x\n2,y\n")
    assert frame.to_dict(as_series=False) == {"": [1, 2], "b": ["x", "y"]}


def test_metadata_that_is_no_text_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Polars panics on it, and says so at length."""
    odd = {b"\xff": b"\xfe"}
    schema = pa.schema([pa.field("n", pa.int64(), metadata=odd)], metadata=odd)
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table([[1, 2]], schema=schema), sink)
    [part] = formats.read(formats.Job(sink.getvalue(), "parquet", "x", "s"))
    assert part.frame.rows() == [(1,), (2,)]
    assert capfd.readouterr() == ("", "")

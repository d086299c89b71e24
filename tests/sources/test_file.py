"""File sources: CSV, Parquet, NDJSON and JSON, with the traps of each."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SourceError
from engine.sources import open_source
from engine.spec import FileSpec
from tests.sources.reads import chunks_of, collected, read

FORMATS = ("parquet", "csv", "ndjson", "json")
TAXI = Path(__file__).parent.parent / "fixtures" / "taxi"


def files(path: Path | str, **keys: Any) -> FileSpec:
    return FileSpec(type="file", path=str(path), **keys)


def read_bytes(folder: Path, name: str, content: bytes) -> pl.DataFrame:
    (folder / name).write_bytes(content)
    return read(files(name), folder)


# --- which files -------------------------------------------------------------------------------------------------


def test_a_glob_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2.csv", "a/1.csv", ".c/3.csv", "a/.4.csv", "a/x/5.csv", "a/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"n\n{name[-5]}\n")
    (tmp_path / "a/folder.csv").mkdir()
    assert read(files("*/*.csv"), tmp_path)["n"].to_list() == [1, 2]
    assert read(files("**/*.csv"), tmp_path)["n"].to_list() == [1, 5, 2]
    assert read(files("a/[0-9].csv"), tmp_path)["n"].to_list() == [1]


def test_below_a_hidden_folder_that_the_path_names(tmp_path: Path) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/1.csv").write_text("n\n1\n")
    assert read(files(".data/*.csv"), tmp_path).height == 1


def test_a_file_named_like_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "[a]*.csv").write_text("n\n1\n")
    pl.DataFrame({"n": [1]}).write_parquet(tmp_path / "[a]*.parquet")
    assert read(files("[a]*.csv"), tmp_path).rows() == read(files("[a]*.parquet"), tmp_path).rows() == [(1,)]


def test_nothing_matches(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=rf"no file matches 'x/\*\.csv'; looked in {tmp_path}/x, which does not exist"
    ):
        read(files("x/*.csv"), tmp_path)
    with pytest.raises(SourceError, match=rf"looked in {tmp_path} \["):
        read(files("gone.csv"), tmp_path)


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(SourceError, match="is a directory") as caught:
        read(files("d/", format="parquet"), tmp_path)
    assert str(caught.value.fix).startswith("write d/*.parquet")


def test_stars_that_are_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'data/\*\*\.csv' is no pattern") as caught:
        read(files("data/**.csv"), tmp_path)
    assert caught.value.code == "source.bad_pattern"


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.csv")).write_text("n\n1\n")
    with pytest.raises(SourceError, match=r"the name of .*\\xff\.csv is not UTF-8"):
        read(files("*.csv"), tmp_path)


@pytest.mark.parametrize("name", ["br[ack]et*", "a?", "[!x]", "**", ".hidden[1]"])
def test_below_a_folder_named_like_a_pattern(tmp_path: Path, name: str) -> None:
    for folder in (tmp_path / name / "data", tmp_path / "bracketx" / "data", tmp_path / "ab" / "data"):
        folder.mkdir(parents=True, exist_ok=True)
        frame = pl.DataFrame({"n": [1 if name in str(folder) else 9]})
        frame.write_parquet(folder / "x.parquet")
        frame.write_csv(folder / "x.csv")
        frame.write_ndjson(folder / "x.ndjson")
        frame.write_json(folder / "x.json")
    (tmp_path / name / "sub").mkdir()
    base = tmp_path / name
    for form in FORMATS:
        for path in (f"data/x.{form}", f"data/*.{form}", f"**/[x].{form}", f"../{name}/data/x.{form}"):
            assert read(files(path), base).rows() == [(1,)], path
        assert read(files(f"../data/*.{form}"), base / "sub").rows() == [(1,)]
        assert read(files(base / "data" / f"x.{form}"), Path("/")).rows() == [(1,)]


# --- CSV ---------------------------------------------------------------------------------------------------------


def test_the_taxi_months_cell_by_cell() -> None:
    frame = read(files("yellow_tripdata_2020-*.csv"), TAXI)
    rows: list[dict[str, str]] = []
    for path in sorted(TAXI.glob("*.csv")):
        with path.open(newline="") as stream:
            rows += list(csv.DictReader(stream))
    assert frame.height == len(rows) == 600
    for name, dtype in frame.schema.items():
        parse = {pl.Int64: int, pl.Float64: float, pl.String: str}[type(dtype)]
        assert frame[name].to_list() == [parse(row[name]) if row[name] else None for row in rows], name


def test_types_rest_on_every_row(tmp_path: Path) -> None:
    frame = read_bytes(tmp_path, "a.csv", b"a,b,c\n" + b"1,,2026-01-01\n" * 5000 + b"x,0.5,2026-01-02\n")
    assert frame.schema == {"a": pl.String, "b": pl.Float64, "c": pl.String}
    assert frame.row(0) == ("1", None, "2026-01-01")
    assert frame.row(-1) == ("x", 0.5, "2026-01-02")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'a,b\n"x\ny","say ""hi"", you"\n"",\n', [("x\ny", 'say "hi", you'), ("", None)]),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", [(1, 2)]),
        ("a,b\nnaïve,☃\n".encode(), [("naïve", "☃")]),
        (b"a,b\n9223372036854775808,1\n1,2\n", [("9223372036854775808", 1), ("1", 2)]),
        (b"a,b\n1,2", [(1, 2)]),
        (b"a,b\n", []),
        (b"a,b", []),
    ],
)
def test_csv_values(tmp_path: Path, content: bytes, expected: list[tuple[Any, ...]]) -> None:
    frame = read_bytes(tmp_path, "a.csv", content)
    assert frame.columns == ["a", "b"]
    assert frame.rows() == expected


@pytest.mark.parametrize("odd", ["007", "-007", "00", "-0", "+5", " 5", "5 ", '"007"', '" 5"', "1_000", "0x1F"])
def test_a_column_with_an_odd_integer_stays_text_in_all_rows(tmp_path: Path, odd: str) -> None:
    rows = [("0", 0), ("-5", -5), (None, None), (odd.strip('"'), 120), ("9" * 18, -7)]
    lines = [
        ",".join(("" if text is None else odd if text == odd.strip('"') else text, str("" if n is None else n)))
        for text, n in rows
    ]
    frame = read_bytes(tmp_path, "a.csv", "\n".join(["code,n", *lines]).encode())
    assert frame.schema == {"code": pl.String, "n": pl.Int64}
    assert frame.rows() == rows


def test_an_odd_integer_far_down_counts_too(tmp_path: Path) -> None:
    """Beyond the first block of the counting pass."""
    rows = 400_000
    body = "".join(f"{i},{'x' * 40}\n" for i in range(rows))
    frame = read_bytes(tmp_path, "a.csv", f"a,b\n{body}007,y\n".encode())
    assert frame["a"].dtype == pl.String
    assert frame["a"][[0, rows - 1, rows]].to_list() == ["0", str(rows - 1), "007"]


fields = st.sampled_from(
    ["", "0", "1", "-5", "007", "-0", "+5", "12.5", "x", '""', '"7"', '"007"', '"a\nb"', "9" * 19, "9" * 40, "true"]
)


@given(st.data())
@settings(deadline=None)
def test_no_integer_column_changes_how_a_field_is_written(data: st.DataObject) -> None:
    of = [
        st.sampled_from(data.draw(st.lists(fields, min_size=1, max_size=3)))
        for _ in range(data.draw(st.integers(2, 4)))
    ]
    lines = [[data.draw(field) for field in of] for _ in range(data.draw(st.integers(0, 5)))]
    names = "abcd"[: len(of)]
    text = "\n".join(",".join(line) for line in [list(names), *lines]) + data.draw(st.sampled_from(["", "\n"]))
    with tempfile.TemporaryDirectory() as folder:
        frame = read_bytes(Path(folder), "a.csv", text.encode())
    written = list(csv.DictReader(io.StringIO(text, newline="")))
    assert frame.height == len(written)
    for name in names:
        if frame[name].dtype in (pl.Int64, pl.String):
            assert ["" if v is None else str(v) for v in frame[name]] == [row[name] for row in written]


@pytest.mark.parametrize("odd", ["007", "-0", "+5", "9007199254740993", "-9007199254740993", "9" * 30, "٣.5", "1.e5"])
def test_a_column_of_floats_with_a_field_they_would_change_stays_text(tmp_path: Path, odd: str) -> None:
    for fields in (["1.5", odd, "2"], [odd, "2", "1.5"]):
        frame = read_bytes(tmp_path, "a.csv", "\n".join(["a", *fields]).encode())
        assert frame["a"].to_list() == fields


def test_floats_with_integers_that_they_hold(tmp_path: Path) -> None:
    frame = read_bytes(tmp_path, "a.csv", b"a\n9007199254740992\n0.5\n-9007199254740992\n0\n1e3\n")
    assert frame["a"].to_list() == [2.0**53, 0.5, -(2.0**53), 0.0, 1000.0]


def test_what_an_earlier_block_held_counts(tmp_path: Path) -> None:
    filler = "x" * 40
    body = "".join(f"{'' if i else 2**53 + 1},{i},{i},true,,{filler}\n" for i in range(300_000))
    frame = read_bytes(tmp_path, "a.csv", f"a,b,c,d,e,f\n{body}0.5,0.5,{2**63},7,7,\n".encode())
    assert frame.dtypes == [pl.String, pl.Float64, pl.String, pl.String, pl.Int64, pl.String]


def test_a_row_larger_than_a_block(tmp_path: Path) -> None:
    body = "".join(f'{i},"{"x" * size}"\n' for i, size in enumerate([1, 9 * 2**20, 1]))
    assert read_bytes(tmp_path, "a.csv", f"a,b\n{body}".encode())["a"].to_list() == [0, 1, 2]


@pytest.mark.parametrize(("end", "expected"), [("", 1.5), ("\n", 1.5), ('""', "1.5"), ('""\n', "1.5")])
def test_an_empty_last_field_after_one_in_quotes(tmp_path: Path, end: str, expected: object) -> None:
    content = f'a,b\nx,1.5\n"x",{end}'.encode()
    for name, data in {"a.csv": content, "a.csv.gz": gzip.compress(content)}.items():
        assert read_bytes(tmp_path, name, data)["b"].to_list() == [expected, "" if '"' in end else None]


NUMBERS = ["0", "-5", '"7"', "1.5", "+.5", "1.", "1e5", "-2E-3", "inf", "-inf", "NaN", "9007199254740992", "1e400", ""]
OTHERS = ["true", "FALSE", "t", " 1", "1.5 ", "Inf", "nan", "1.e5", "2026-01-01", "☃", '"a\nb"', '"a""b"', '""', ""]


@given(
    st.sampled_from([NUMBERS, OTHERS, OTHERS[:2], [*NUMBERS, *OTHERS]]).flatmap(
        lambda of: st.lists(st.tuples(st.sampled_from(of), st.sampled_from(of)), max_size=6)
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
@settings(deadline=None)
def test_types_are_those_polars_infers_from_the_whole_file(lines: list[tuple[str, str]], end: str, ended: bool) -> None:
    content = (end.join(["a,b", *map(",".join, lines)]) + end * ended).encode()
    with tempfile.TemporaryDirectory() as folder:
        frame = read_bytes(Path(folder), "a.csv", content)
    assert frame.equals(pl.read_csv(content, infer_schema_length=None))
    assert frame.schema == pl.read_csv(content, infer_schema_length=None).schema


def test_csv_nan(tmp_path: Path) -> None:
    frame = read_bytes(tmp_path, "a.csv", b"a\nNaN\n1.5\n")
    assert frame["a"].is_nan().to_list() == [True, False]


def test_compressed_csv(tmp_path: Path) -> None:
    content = b"a,b\n1,x\n2,y\n"
    (tmp_path / "1.csv.gz").write_bytes(gzip.compress(content))
    with pa.CompressedOutputStream(str(tmp_path / "2.csv.zst"), "zstd") as stream:
        stream.write(content)
    assert read(files("1.csv.gz"), tmp_path).rows() == read(files("2.csv.zst"), tmp_path).rows() == [(1, "x"), (2, "y")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a,b,c\n1,2,3\n4,5\n", "a row has 2 fields where 3 are named"),
        (b"a,b,c\n1,2,3\n4,5,6,7\n", "a row has 4 fields where 3 are named"),
        (b"", "there is no line of column names"),
        (b"\n1,2\n", "there is no line of column names"),
        (b"a,a\n1,2\n", "the column 'a' is there twice"),
        (b"a,b\r1,2\r", "bare carriage return"),
        (b"a\0,b\n1,2\n", "NUL"),
        (b"\xe9,b\n1,2\n", "the column names are not UTF-8"),
        (b"a,b\n1,\xe9\n", "invalid utf-8"),
        (b'a,b\n1,"open\n', "cannot be read"),
    ],
)
def test_a_csv_that_would_be_read_wrong(tmp_path: Path, content: bytes, text: str) -> None:
    with pytest.raises(SourceError, match=text) as caught:
        read_bytes(tmp_path, "a.csv", content)
    assert "a.csv" in caught.value.message
    assert caught.value.where == "sources.s"


# --- Parquet -----------------------------------------------------------------------------------------------------


def test_parquet_is_scanned_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "day=1"
    folder.mkdir()
    frame = pl.DataFrame({"id": [1, None], "tags": [["a"], []], "at": [None, "x"]})
    frame.write_parquet(folder / "x.parquet")
    assert read(files("day=*/*.parquet"), tmp_path).equals(frame)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all, just some text"])
def test_a_broken_parquet_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError, match=r"x\.parquet cannot be read"):
        read_bytes(tmp_path, "x.parquet", content)


def test_the_footer_says_how_many_rows(tmp_path: Path) -> None:
    pl.DataFrame({"a": range(7)}).write_parquet(tmp_path / "x.parquet")
    (chunk,) = chunks_of(open_source("s", files("x.parquet"), tmp_path))
    assert chunk.rows == 7


@pytest.mark.parametrize("zone", ["-02:15", "Z", "GMT+5"])
def test_a_panic_in_native_code_is_an_error(tmp_path: Path, zone: str) -> None:
    table = pa.table({"t": pa.array([0], pa.timestamp("us", tz=zone))})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"x\.parquet cannot be read: .*unable to parse time zone"):
        read(files("x.parquet"), tmp_path)


# --- JSON --------------------------------------------------------------------------------------------------------

RECORDS = [{"id": 2**53 + 1, "tags": ["a", "b"], "at": None}, {"id": 2, "geo": {"x": 1.5}}, {"id": None, "tags": []}]


@pytest.mark.parametrize("compress", [False, True])
def test_ndjson_and_json_hold_the_same(tmp_path: Path, compress: bool) -> None:
    lines = "\n\n".join(json.dumps(record) for record in RECORDS)
    suffix = ".gz" if compress else ""
    write = gzip.compress if compress else bytes
    one = read_bytes(tmp_path, f"a.ndjson{suffix}", write(lines.encode()))
    two = read_bytes(tmp_path, f"a.json{suffix}", write(json.dumps(RECORDS).encode()))
    assert one.equals(two)
    assert one.rows() == [(2**53 + 1, ["a", "b"], None, None), (2, None, None, {"x": 1.5}), (None, [], None, None)]


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("name", ["a.ndjson", "a.json"])
def test_a_blank_file_of_records_gives_no_chunk(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(chunks_of(open_source("s", files(name), tmp_path))) == []


@pytest.mark.parametrize("content", [b"[]", b" [ ]\n"])
def test_a_json_file_without_records_gives_no_chunk(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert list(chunks_of(open_source("s", files("a.json"), tmp_path))) == []


def test_a_byte_order_mark_before_json(tmp_path: Path) -> None:
    for name, content in {"a.ndjson": b'{"n": 1}\n{"n": 2}', "a.json": b'[{"n": 1}, {"n": 2}]'}.items():
        assert read_bytes(tmp_path, name, b"\xef\xbb\xbf" + content).rows() == [(1,), (2,)]


@pytest.mark.parametrize("form", FORMATS)
def test_only_records_have_an_open_schema(tmp_path: Path, form: str) -> None:
    content = {"csv": b"n\n1\n", "ndjson": b'{"n": 1}', "json": b'[{"n": 1}]'}
    if form == "parquet":
        pl.DataFrame({"n": [1]}).write_parquet(tmp_path / "a.parquet")
    else:
        (tmp_path / f"a.{form}").write_bytes(content[form])
    (chunk,) = chunks_of(open_source("s", files(f"a.{form}"), tmp_path))
    assert chunk.open_schema is (form in ("ndjson", "json"))


def test_records_without_fields_keep_their_number(tmp_path: Path) -> None:
    for name, content in {"a.ndjson": b"{}\n{}\n{}\n", "a.json": b"[{}, {}, {}]"}.items():
        assert read_bytes(tmp_path, name, content).shape == (3, 0)


def test_ndjson_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"n": {i}}}\n' for i in range(25)))
    chunks = list(chunks_of(open_source("s", files("a.jsonl", batch_size=10), tmp_path)))
    assert [chunk.origin.rpartition("/")[2] for chunk in chunks] == [
        "a.jsonl lines 1-10", "a.jsonl lines 11-20", "a.jsonl lines 21-25"
    ]  # fmt: skip
    assert collected(chunks)["n"].to_list() == list(range(25))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.ndjson", b'{"a": 1}\n{"a":\n', "line 2 cannot be read"),
        ("a.ndjson", b'{"a": 1}\n{"a": 2} {"a": 3}\n', "line 2 cannot be read"),
        ("a.ndjson", b'{"a": 1},{"a": 2}\n', "line 1 cannot be read"),
        ("a.ndjson", b'{"a": NaN}\n', "line 1 cannot be read"),
        ("a.ndjson", b'{"a": "\xff"}\n', "line 1 cannot be read"),
        ("a.ndjson", b"[1]\n", "line 1 cannot be read: it is no JSON object"),
        ("a.json", b'{"a": 1}', "it is not a list of objects"),
        ("a.json", b"[", "it is not JSON"),
        ("a.json", b"null", "it is not a list of objects"),
        ("a.ndjson", b'{"a": 1}\n\xef\xbb\xbf{"a": 2}\n{', "line 3 cannot be read"),
        ("a.json", b'[{"a": 1}, 2]', "it is not a list of objects"),
    ],
)
def test_malformed_json(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    with pytest.raises(SourceError, match=text) as caught:
        read_bytes(tmp_path, name, content)
    assert name in caught.value.message

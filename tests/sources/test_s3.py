"""S3 sources, against a real object store (Ceph)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import SourceError, TransientSourceError
from engine.s3 import Bucket
from engine.sources import open_source
from engine.spec import S3Spec
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph
from tests.sources.reads import chunks_of, read


@pytest.fixture(scope="module")
def lake(ceph_server: Ceph) -> Ceph:
    store = ceph_server.store()
    for name, part in {"a": [1, 2], "b": [3], ".hidden": [9]}.items():
        buffer = io.BytesIO()
        pl.DataFrame({"n": part, "name": [f"☃{n}" for n in part]}).write_parquet(buffer)
        store.pipe(f"{BUCKET}/raw/day=1/{name}.parquet", buffer.getvalue())
        text = "n,name\n" + "".join(f"{n},☃{n}\n" for n in part)
        store.pipe(f"{BUCKET}/raw/{name}.csv", text.encode())
        store.pipe(f"{BUCKET}/raw/{name}.ndjson", b"\n".join(json.dumps({"n": n}).encode() for n in part))
    store.pipe(f"{BUCKET}/raw/ragged.txt", b"a,b\n1\n")
    store.pipe(f"{BUCKET}/raw/blank.ndjson", b"\n")
    for name in ("br[ack]et*", "bracketx"):
        buffer = io.BytesIO()
        pl.DataFrame({"n": [len(name)]}).write_parquet(buffer)
        store.pipe(f"{BUCKET}/odd/{name}/x.parquet", buffer.getvalue())
        store.pipe(f"{BUCKET}/odd/{name}/x.csv", f"n\n{len(name)}\n".encode())
    return ceph_server


def objects(server: Ceph, key: str, **keys: Any) -> S3Spec:
    settings = {"bucket": BUCKET, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "endpoint_url": server.url}
    return S3Spec(type="s3", key=key, **{**settings, **keys})


def test_objects_are_read_like_files(lake: Ceph) -> None:
    expected = [(1, "☃1"), (2, "☃2"), (3, "☃3")]
    assert read(objects(lake, "raw/day=1/*.parquet")).rows() == expected
    assert read(objects(lake, "raw/**/*.parquet")).rows() == expected
    assert read(objects(lake, "raw/*.csv")).rows() == expected
    assert read(objects(lake, "raw/a.csv")).rows() == expected[:2]
    assert read(objects(lake, "raw/[ab].ndjson"))["n"].to_list() == [1, 2, 3]
    frame = read(objects(lake, "raw/day=1/a.parquet"))
    assert frame.columns == ["n", "name"]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_keys_that_look_like_patterns(lake: Ceph, form: str) -> None:
    assert read(objects(lake, f"odd/*/x.{form}"))["n"].to_list() == [10, 8]
    assert read(objects(lake, f"odd/br[[]*/x.{form}"))["n"].to_list() == [10]


def test_which_objects_have_an_open_schema(lake: Ceph) -> None:
    for key, known in {"raw/a.csv": [False], "raw/a.ndjson": [True], "raw/blank.ndjson": []}.items():
        chunks = chunks_of(open_source("s", objects(lake, key), Path()))
        assert [chunk.open_schema for chunk in chunks] == known


@pytest.mark.parametrize(
    ("keys", "code", "text"),
    [
        ({"key": "raw/none.parquet"}, "source.no_match", "s3://lake/raw/none.parquet: nothing is there"),
        ({"key": "raw/*.none", "format": "csv"}, "source.no_match", "nothing is there"),
        ({"key": "raw/*.csv", "bucket": "no-such-bucket"}, "source.no_match", "s3://no-such-bucket"),
        ({"key": "raw/a.csv", "secret_key": "wrong-secret-key"}, "source.access_denied", "refused access"),
        ({"key": "raw/*.csv", "secret_key": "wrong-secret-key"}, "source.access_denied", "refused access"),
        ({"key": "raw/a.csv", "access_key": "unknown-key"}, "source.access_denied", "refused access"),
        ({"key": "raw/ragged.txt", "format": "csv"}, "source.malformed", "a row has 1 fields where 2 are named"),
        ({"key": "raw/a.csv", "format": "parquet"}, "source.unreadable", "raw/a.csv"),
    ],
)
def test_what_cannot_be_read(lake: Ceph, keys: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(SourceError, match=text) as caught:
        read(objects(lake, **{**keys, "max_retries": 0}))
    assert caught.value.code == code
    for secret in (SECRET_KEY, "wrong-secret-key"):
        assert secret not in str(caught.value)


def test_nothing_listens(lake: Ceph) -> None:
    spec = objects(lake, "raw/a.csv", endpoint_url="http://127.0.0.1:1", max_retries=0, timeout_seconds=2.0)
    with pytest.raises(SourceError, match="the store cannot be read") as caught:
        read(spec)
    assert SECRET_KEY not in str(caught.value)


def test_keys_with_odd_characters_and_folder_markers(lake: Ceph) -> None:
    store = lake.store()
    names = ["a b.csv", "a%20b.csv", "a+b.csv", "a:b#c?d.csv", "back\\slash.csv", "t~'()!.csv", "ä€.csv"]
    for n, name in enumerate(names):
        store.pipe(f"{BUCKET}/characters/{name}", f"n\n{n}\n".encode())
    store.call_s3("put_object", Bucket=BUCKET, Key="characters/folder.csv/", Body=b"")
    assert sorted(read(objects(lake, "characters/*.csv"))["n"]) == list(range(len(names)))
    assert read(objects(lake, "characters/a+b.csv"))["n"].to_list() == [2]
    store.pipe(f"{BUCKET}/characters/nothing.csv", b"")
    with pytest.raises(SourceError, match=r"nothing\.csv: there is no line of column names"):
        read(objects(lake, "characters/*.csv"))


def test_an_object_that_changes_between_two_ranges_is_not_mixed(lake: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = lake.store(), "changing/x.csv"
    store.pipe(f"{BUCKET}/{key}", b"n\n1\n2\n3\n")
    monkeypatch.setattr("engine.sources.store.RANGE_BYTES", 4)
    monkeypatch.setattr("engine.sources.store.FETCHES", 1)
    plain = Bucket.read
    asked: list[int | None] = []

    def changing(self: Bucket, key: str, start: int | None = None, stop: int | None = None) -> tuple[bytes, str | None]:
        found = plain(self, key, start, stop)
        asked.append(start)
        if len(asked) == 1:
            store.pipe(f"{BUCKET}/{key}", b"n\n7\n8\n9\n")  # of the same size
        return found

    monkeypatch.setattr(Bucket, "read", changing)
    with pytest.raises(TransientSourceError) as caught:
        read(objects(lake, key, max_retries=0))
    assert (caught.value.code, asked) == ("source.changed", [0, 4])
    assert read(objects(lake, key))["n"].to_list() == [7, 8, 9]


def test_keys_that_the_environment_offers(lake: Ceph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = objects(lake, "raw/a.csv", access_key=None, secret_key=None, max_retries=0)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceError, match="the environment offers none") as caught:
        read(spec)
    assert caught.value.code == "source.access_denied"
    keys = f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(keys)
    assert read(spec)["n"].to_list() == [1, 2]


@pytest.mark.parametrize("keys", [{"region": "eu west"}, {"access_key": "a\nb"}, {"secret_key": "schlüssel"}])
def test_what_would_be_no_request(lake: Ceph, keys: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    """Rust would panic, and say so at length."""
    with pytest.raises(SourceError) as caught:
        read(objects(lake, "raw/a.csv", **keys))
    assert caught.value.code in ("source.invalid_request", "source.access_denied")
    assert not any(value in str(caught.value) for key, value in keys.items() if key.endswith("_key"))
    assert capfd.readouterr() == ("", "")

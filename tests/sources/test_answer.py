"""Answers read by Arrow are those that are read value by value, or are not read by it at all."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SourceError
from engine.sources import answer
from engine.sources.answer import Answer, NotRecords, Shape

SAMPLE = {
    "id": 1, "x": 0.5, "ok": True, "name": "n", "tags": ["a"], "at": {"city": "c", "zip": 1, "f": 0.5}, "no": None,
}  # fmt: skip
FAST = "Table"


def read(body: bytes, shape: Shape | None, key: tuple[str, ...] = ("data",), *, texts: bool = False) -> Answer:
    return answer.read(body, key, shape, texts=texts, where="sources.s", origin="page 2")


@pytest.fixture(scope="module")
def shape() -> Shape:
    found = read(json.dumps({"data": [SAMPLE], "meta": {"next": "c", "n": 1}}).encode(), None).shape
    assert found is not None
    return found


def is_fast(found: Answer) -> bool:
    return isinstance(found.around, pa.Table)


def body(records: str, more: str = "") -> bytes:
    return f'{{"data": [{records}]{more}}}'.encode()


@pytest.mark.parametrize(
    "text",
    [
        '{"id": -9223372036854775808, "x": -0.0, "name": "\\u0000\\ud83d\\ude00", "tags": [], "at": {}}',
        '{"x": 3}, {"x": 9007199254740991}, {}',
        '{"no": null, "tags": null, "at": null}, {"tags": [null]}',
        '{"x": 0.1000000000000000055511151231257827}, {"x": 5e-324}, {"x": 1e-400}',
        '{"\\u0069d": 7}',
    ],
)
def test_what_fits_the_shape_is_read_by_arrow(shape: Shape, text: str) -> None:
    found, slow = read(body(text), shape), read(body(text), None)
    assert is_fast(found)
    assert not is_fast(slow)
    assert [plain(r) for r in found.records.to_dicts()] == [plain(r) for r in slow.records.to_dicts()]
    assert dict(found.records.schema) == dict(shape.columns)


@pytest.mark.parametrize(
    "text",
    [
        '{"id": 1.5}',
        '{"id": 9223372036854775808}',
        '{"id": 1e2}',
        '{"x": 9007199254740992}',
        '{"x": 1e300}',
        '{"at": {"f": 9007199254740993, "zip": 1}}',
        '{"new": 1}',
        '{"at": {"new": 1}}',
        '{"no": "something"}',
        '{"name": 5}',
        '{"id": "5"}',
        '{"id": true}',
        '{"at": null, "id": 1, "id": 2}',
        '{"tags": [["a"]]}',
    ],
)
def test_what_does_not_is_read_value_by_value(shape: Shape, text: str) -> None:
    found = read(body(text), shape)
    assert not is_fast(found)
    assert found.records.to_dicts() == read(body(text), None).records.to_dicts()


@pytest.mark.parametrize(
    "bad",
    [
        b'{"data": [{"x": NaN}]}',
        b'{"data": [{"x": Infinity}]}',
        b'{"data": [{"x": 1e999}]}',
        b'{"data": [{"name": "\xff"}]}',
        b'{"data": [{"name": "\\ud800"}]}',
        b'{"data": [{"id": 1}]} {"data": []}',
        b'{"data": [{"id": 1}]} x',
        b'{"data": [{"id": 01}]}',
        b'{"data": [{"id": 1},]}',
        b'{"data": [null]}',
        b'{"data": [1]}',
        b'{"data": [[1]]}',
        b'{"meta": {}}',
        b"[1]",
        b"",
        b"\xef\xbb\xbf",
    ],
)
def test_what_is_wrong_is_wrong_for_both(shape: Shape, bad: bytes) -> None:
    said = []
    for known in (shape, None):
        with pytest.raises((NotRecords, SourceError)) as caught:
            read(bad, known)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[{"id": 1}]', ()),
        ('{"a": {"b": [{"id": 1}], "n": 5}, "c": "x"}', ("a", "b")),
        ('\ufeff{"data": [{"id": 1}], "m": {"e": {}}}', ("data",)),
    ],
)
def test_where_the_records_are(text: str, key: tuple[str, ...]) -> None:
    slow = read(text.encode(), None, key)
    found = read(text.encode(), slow.shape, key)
    assert found.records.equals(slow.records)
    assert is_fast(found) is bool(key)
    for path in (("a", "n"), ("c",), ("m", "e", "x"), ("a", "q"), ("c", "x")):
        assert found.get(path) == slow.get(path)


def test_a_body_that_ends_its_list_early_is_no_list(shape: Shape) -> None:
    """The wrapping of a body that is a list cannot be broken out of."""
    known = read(b'[{"id": 1}]', None, ()).shape
    for bad in (b'[{"id": 1}], "x": 2', b'[{"id": 1}]} {"body": []', b'[{"id": 1}], "body": [{"id": 2}]'):
        with pytest.raises(NotRecords, match="is not JSON"):
            read(bad, known, ())


def test_shapes_grow() -> None:
    one = read(b'{"data": [{"a": 1}], "next": null, "m": {"n": 1}}', None).shape
    two = read(b'{"data": [{"a": 0.5, "b": "x"}], "next": "c", "m": {"n": 2, "t": "t"}, "q": 1}', None).shape
    assert one is not None
    assert two is not None
    both = one.wider(two)
    assert both is not None
    found = read(b'{"data": [{"a": 2}], "next": "d", "m": {"t": "u"}}', both)
    assert is_fast(found)
    assert (found.records.rows(), found.get(("next",)), found.get(("m", "t"))) == ([(2.0, None)], "d", "u")
    other = read(b'{"data": [{"a": "x"}]}', None).shape
    assert other is not None
    assert one.wider(other) is None


def test_lists_and_objects_as_they_were_sent() -> None:
    text = (
        '{"data": [{"a": {"x": 1.10, "y": 12345678901234567890123}, "b" : [ 1e400 ,\n"]"], "c": "{}", "a": {"z":[]}}]}'
    )
    found = read(text.encode(), None, texts=True)
    assert found.texts == {"a", "b"}
    assert found.records.to_dicts() == [{"a": '{"z":[]}', "b": '[ 1e400 ,\n"]"]', "c": "{}"}]
    with pytest.raises(SourceError, match="column 'a' mixes lists or objects and texts"):
        read(b'{"data": [{"a": [1]}, {"a": "x"}]}', None, texts=True)


leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=4,
)
records = st.lists(st.dictionaries(st.sampled_from("abcd"), values, max_size=4), max_size=4)


def plain(value: Any) -> Any:
    from engine.sources.pages import plain

    return plain(value)


@given(records, records)
@settings(deadline=None, max_examples=400)
def test_any_page_after_any_page(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    """By a shape or without one: the same records, or the same error."""

    def tried(page: list[dict[str, Any]], shape: Shape | None) -> Any:
        try:
            return read(json.dumps({"data": page}).encode(), shape)
        except SourceError as error:
            return error.message
        except NotRecords as error:
            return str(error)

    before = tried(first, None)
    found, slow = tried(second, before.shape if isinstance(before, Answer) else None), tried(second, None)
    if isinstance(slow, str):
        assert found == slow
        return
    assert plain(found.records.to_dicts()) == plain(slow.records.to_dicts())
    if not is_fast(found):
        assert isinstance(found.records, pl.DataFrame)


@given(records)
@settings(deadline=None, max_examples=200)
def test_any_nested_value_comes_back_from_its_text(page: list[dict[str, Any]]) -> None:
    try:
        found = read(json.dumps({"data": page}).encode(), None, texts=True)
    except (SourceError, NotRecords):
        return
    for record, row in zip(page, found.records.to_dicts(), strict=True):
        for name, value in record.items():
            if isinstance(value, list | dict):
                assert json.loads(row[name]) == value
            else:
                assert row[name] == value

"""The change feed: applied to the old table it gives the new one, and it holds nothing that did not change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.landing import changes, files, fresh
from engine.ledger import File

LIMIT = "64MiB"


def landed(folder: Path, *frames: pl.DataFrame) -> list[File]:
    found = []
    for frame in frames:
        path = files.new_path(folder, "t")
        frame.write_parquet(path)
        found.append(files.seal(path, folder))
    return found


def feed_of(folder: Path, before: Sequence[File], after: Sequence[File], keys: Sequence[str] = ()) -> pl.DataFrame:
    return changes(folder, before, after, folder, keys=keys, memory_limit=LIMIT).collect()


def feed(folder: Path, old: pl.DataFrame, new: pl.DataFrame, keys: Sequence[str] = ()) -> pl.DataFrame:
    return feed_of(folder, landed(folder, old), landed(folder, new), keys)


def plain(value: Any) -> Any:
    """A value that can be counted, in which NaN equals NaN."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)  # two moments of the hour that comes twice are equal in their own zone
    if isinstance(value, dict):
        return tuple((k, plain(v)) for k, v in value.items())
    if isinstance(value, list):
        return tuple(map(plain, value))
    return value


def count(rows: Any) -> Counter[Any]:
    return Counter(plain(row) for row in rows)


def sides(found: pl.DataFrame) -> tuple[Counter[Any], Counter[Any]]:
    """The old rows and the new rows of a feed, which each kind of change must have."""
    old, new = [], []
    for row in found.iter_rows(named=True):
        assert (row["old"] is None) == (row["change"] == "insert")
        assert (row["new"] is None) == (row["change"] == "delete")
        old += [row["old"]] * (row["old"] is not None)
        new += [row["new"]] * (row["new"] is not None)
    return count(old), count(new)


SCHEMA = {"id": pl.Int64, "x": pl.Float64, "v": pl.String, "tags": pl.List(pl.String), "s": pl.Struct({"a": pl.Int64})}
ROWS = st.lists(
    st.tuples(
        st.sampled_from([1, 2, None]),
        st.sampled_from([0.5, math.nan, None]),
        st.sampled_from(["a", None]),
        st.sampled_from([["p"], [], [None], None]),
        st.sampled_from([{"a": 1}, {"a": None}, None]),
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(old=ROWS, new=ROWS)
def test_without_keys_the_feed_is_the_difference(old: list[Any], new: list[Any]) -> None:
    frames = [pl.DataFrame(rows, schema=SCHEMA, orient="row") for rows in (old, new)]
    before, after = (count(frame.to_dicts()) for frame in frames)
    with TemporaryDirectory() as folder:
        found = feed(Path(folder), *frames)
        assert found["change"].is_in(["insert", "delete"]).all()
        assert sides(found) == (before - after, after - before), "exact, and minimal"


@settings(max_examples=25, deadline=None)
@given(old=ROWS, new=ROWS, keys=st.sampled_from([["id"], ["x"], ["id", "v"], ["x", "id"]]))
def test_with_keys_rows_of_one_key_are_an_update(old: list[Any], new: list[Any], keys: list[str]) -> None:
    frames = [one_per_key(pl.DataFrame(rows, schema=SCHEMA, orient="row"), keys) for rows in (old, new)]
    before, after = (count(frame.to_dicts()) for frame in frames)
    with TemporaryDirectory() as folder:
        found = feed(Path(folder), *frames, keys)
    assert sides(found) == (before - after, after - before)
    updated = set()
    for row in found.iter_rows(named=True):
        key = [(row[side] and [row[side][k] for k in keys]) for side in ("old", "new")]
        if row["change"] == "update":
            assert key[0] == key[1]
            assert is_key(key[0])
            updated.add(tuple(key[0]))
    both = keys_of(frames[0], keys) & keys_of(frames[1], keys)
    same = {tuple(dict(row)[k] for k in keys) for row in (before & after)}
    assert updated == both - same, "each key on both sides whose row is another"


def is_key(values: Sequence[Any]) -> bool:
    return all(v is not None and v == v for v in values)


def keys_of(frame: pl.DataFrame, keys: Sequence[str]) -> set[tuple[Any, ...]]:
    return {row for row in frame.select(keys).iter_rows() if is_key(row)}


def one_per_key(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """As deduplication leaves a table: rows with a null or NaN in the key stay all."""
    seen: set[Any] = set()
    kept = []
    for row in frame.iter_rows(named=True):
        key = tuple(row[k] for k in keys)
        if not is_key(key) or key not in seen:
            kept.append(row)
            seen.add(key)
    return pl.DataFrame(kept, schema=frame.schema)


def test_files_that_both_tables_have_are_not_read(tmp_path: Path) -> None:
    first, second, third = landed(tmp_path, *(pl.DataFrame({"id": [n, n + 1]}) for n in (1, 3, 5)))
    (tmp_path / first.path).unlink()
    found = feed_of(tmp_path, [first, second], [third, first], ["id"])
    assert sides(found) == (count([{"id": 3}, {"id": 4}]), count([{"id": 5}, {"id": 6}]))


def test_rows_that_moved_to_another_file_are_no_change(tmp_path: Path) -> None:
    before = landed(tmp_path, pl.DataFrame({"id": [1, 2]}), pl.DataFrame({"id": [3, 3]}))
    after = landed(tmp_path, pl.DataFrame({"id": [3, 2, 1]}), pl.DataFrame({"id": [3]}))
    for keys in ([], ["id"]):
        unique = [landed(tmp_path, pl.DataFrame({"id": [1, 2]})), landed(tmp_path, pl.DataFrame({"id": [2, 1]}))]
        old, new = (before, after) if not keys else unique
        assert feed_of(tmp_path, old, new, keys).height == 0


def test_nothing_before_is_all_inserts_and_nothing_after_all_deletes(tmp_path: Path) -> None:
    rows = pl.DataFrame({"id": [1, 2], "v": ["a", None]})
    for keys in ([], ["id"]):
        assert feed(tmp_path, rows.clear(), rows, keys)["change"].to_list() == ["insert"] * 2
        assert feed(tmp_path, rows, rows.clear(), keys)["change"].to_list() == ["delete"] * 2
        assert feed(tmp_path, rows.clear(), rows.clear(), keys).height == 0


@pytest.mark.parametrize(
    "names",
    [
        ["id", "ID", "Id"],
        ["change", "old", "new"],
        ["o0", "n0", "c0"],
        ['a"b', "a'b", "a b"],
        ["*", "^.*$", "a.b"],
        ["ü", "select", "file_row_number"],
    ],
)
@pytest.mark.parametrize("keyed", [True, False])
def test_columns_of_any_name(tmp_path: Path, names: list[str], keyed: bool) -> None:
    old = pl.DataFrame([[1, 2], [10, 20], ["a", "b"]], schema=names)
    new = pl.DataFrame([[1, 3], [11, 30], ["a", "c"]], schema=names)
    found = feed(tmp_path, old, new, names[:1] if keyed else [])
    was, now = (sorted(found[side].drop_nulls().to_list(), key=str) for side in ("old", "new"))
    assert was == old.to_dicts()
    assert now == new.to_dicts()
    assert sorted(found["change"]) == (["delete", "insert", "update"] if keyed else ["delete"] * 2 + ["insert"] * 2)
    rows = fresh(found.lazy(), names).collect()
    assert rows.columns == names
    assert sorted(rows.rows()) == new.rows()


VALUES: list[tuple[Any, Any, Any]] = [
    (pl.Int8, -128, 127),
    (pl.UInt64, 0, 2**64 - 1),
    (pl.Int64, -(2**63), 2**63 - 1),
    (pl.Float32, 0.5, math.inf),
    (pl.Decimal(38, 9), Decimal("-1.000000001"), Decimal("99999999999999999999999999999.999999999")),
    (pl.Boolean, True, False),
    (pl.Binary, b"\x00\xff", b""),
    (pl.String, "", "naïve ☃"),
    (pl.Date, date(1, 1, 1), date(9999, 12, 31)),
    (pl.Time, time(0, 0), time(23, 59, 59, 999999)),
    (pl.Datetime("us"), datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)),
    (pl.Datetime("us", "UTC"), datetime(1970, 1, 1, tzinfo=UTC), datetime(2025, 10, 4, 1, 2, 3, 4, tzinfo=UTC)),
    (
        pl.Datetime("ms", "Europe/Berlin"),
        datetime(2025, 10, 26, 0, 30, tzinfo=UTC),
        datetime(2025, 10, 26, 1, 30, tzinfo=UTC),
    ),
    (pl.Duration("us"), timedelta(microseconds=1), timedelta(days=-1)),
    (pl.Enum(["x", "y"]), "x", "y"),
    (pl.Categorical, "x", "y"),
    (pl.List(pl.Float64), [math.nan, None], []),
    (pl.Array(pl.Int64, 2), [1, 2], [1, None]),
    (pl.Struct({"a": pl.Int64, "b": pl.List(pl.String)}), {"a": None, "b": ["p"]}, {"a": 1, "b": None}),
    (pl.List(pl.Struct({"a": pl.Int64})), [{"a": 1}, None], [{"a": None}]),
    (pl.Null, None, None),
]


@pytest.mark.parametrize(("dtype", "one", "other"), VALUES, ids=lambda v: str(v)[:20])
@pytest.mark.parametrize("keys", [[], ["id"]])
def test_values_of_every_type_arrive_as_they_are(
    tmp_path: Path, dtype: Any, one: Any, other: Any, keys: list[str]
) -> None:
    schema = {"id": pl.Int64, "c": dtype}
    old = pl.DataFrame({"id": [1, 2, 3, 4], "c": [one, one, None, one]}, schema=schema)
    new = pl.DataFrame({"id": [1, 2, 3, 5], "c": [one, other, one, other]}, schema=schema)
    found = feed(tmp_path, old, new, keys)
    before, after = count(old.to_dicts()), count(new.to_dicts())
    assert sides(found) == (before - after, after - before)
    assert found.schema["new"] == pl.Struct(schema)
    assert found.schema["old"] == pl.Struct(schema)


def test_a_table_of_more_columns_and_wider_types(tmp_path: Path) -> None:
    """Files that were cast to another schema hold no changes; only what has values of its own does."""
    old = pl.DataFrame({"id": [1, 2], "n": [1, 2]})
    new = pl.DataFrame({"n": [1.0, 2.5, 3.0], "id": [1, 2, 3], "w": [None, None, "x"]})
    found = feed(tmp_path, old, new.select("id", "n", "w"), ["id"]).sort("change")
    assert found.to_dicts() == [
        {"change": "insert", "old": None, "new": {"id": 3, "n": 3.0, "w": "x"}},
        {"change": "update", "old": {"id": 2, "n": 2.0, "w": None}, "new": {"id": 2, "n": 2.5, "w": None}},
    ]


def test_fresh_rows_are_those_that_are_new_or_changed(tmp_path: Path) -> None:
    old = pl.DataFrame({"id": [1, 2, 3], "v": ["a", "b", "c"]})
    new = pl.DataFrame({"id": [1, 2, 4], "v": ["a", "B", "d"]})
    found = feed(tmp_path, old, new, ["id"])
    assert sorted(fresh(found.lazy(), ["id", "v"]).collect().rows()) == [(2, "B"), (4, "d")]
    assert fresh(found.lazy(), ["v"]).collect().columns == ["v"]


def test_a_folder_that_looks_like_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]*?'"
    folder.mkdir()
    assert feed(folder, pl.DataFrame({"id": [1]}), pl.DataFrame({"id": [2]}))["change"].len() == 2

"""What is stored is, byte for byte, what Feast stores for the same rows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import SinkError
from engine.sinks.online import keys, values
from tests.online.world import EVERYTHING, SCALARS, TYPES, T, World
from tests.servers.redis import Redis

ITEMS: dict[str, st.SearchStrategy[Any]] = {
    "whole": st.integers(-(2**63), 2**63 - 1),
    "small": st.integers(-(2**31), 2**31 - 1),
    "double": st.floats(),
    "single": st.floats(width=32),
    "yes": st.booleans(),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    "raw": st.binary(max_size=200),
    "moment": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def columns(name: str) -> st.SearchStrategy[list[Any]]:
    """Values of a type that Feast has one way to store; where it has not, see below."""
    if name in SCALARS:
        items = st.integers(-(2**53), 2**53) if name == "whole" else ITEMS[name]
        if name == "raw":
            items = st.binary(min_size=1, max_size=200)
        whole = items if name == "raw" else ITEMS[name]
        return st.one_of(st.lists(whole, max_size=12), st.lists(st.none() | items, max_size=12))
    item = ITEMS[name[:-1]]
    inner = st.lists(item if name in ("wholes", "smalls") else st.none() | item, max_size=5)
    return st.lists(st.none() | inner, max_size=6)


def by_feast(column: pl.Series, name: str) -> list[Any]:
    from feast import types
    from feast.type_map import python_values_to_proto_values

    from engine.sinks.feast.view import FEATURE_TYPES

    inner = FEATURE_TYPES[str(column.dtype)].removeprefix("Array(").removesuffix(")")
    scalar = getattr(types, inner)
    kind = (types.Array(scalar) if isinstance(column.dtype, pl.List) else scalar).to_value_type()
    held = column.to_arrow(compat_level=pl.CompatLevel.oldest()).to_numpy(zero_copy_only=False)
    return python_values_to_proto_values(held, kind)


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value(name: str, data: st.DataObject) -> None:
    from feast.infra.online_stores.helpers import extract_text_and_num

    column = pl.Series(name, data.draw(columns(name)), dtype=TYPES[name])
    start = data.draw(st.integers(0, 2))
    column = column.slice(start)  # what begins within its buffers
    if column.len():
        protos = by_feast(column, name)
        assert values.encode(column).to_pylist() == [proto.SerializeToString() for proto in protos]
        texts = values.text(column)
        expected = [extract_text_and_num(proto, False)[0] for proto in protos]
        assert (texts.to_list() if texts is not None else [None] * len(column)) == expected


@pytest.mark.parametrize("version", [2, 3])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text("abcdé_", min_size=1),
    texts=st.lists(ITEMS["text"], min_size=1),
    numbers=st.lists(ITEMS["whole"], min_size=1),
)
def test_any_key(version: int, name: str, texts: list[str], numbers: list[int]) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    for column, field in ((pl.Series(name, texts), "string_val"), (pl.Series(name, numbers), "int64_val")):
        expected = [
            serialize_entity_key(EntityKey(join_keys=[name], entity_values=[Value(**{field: key})]), version)
            for key in column.to_list()
        ]
        assert keys.encode(column.to_frame(), version).to_pylist() == expected


def test_integers_beside_nulls_are_exact_where_feast_corrupts_them() -> None:
    column = pl.Series("whole", [2**53 + 1, None])
    [proto, _] = by_feast(column, "whole")
    assert proto.int64_val == 2**53
    assert values.encode(column).to_pylist() == [b"\x20\x81\x80\x80\x80\x80\x80\x80\x10", b""]


def test_empty_bytes_are_not_null_where_feast_has_seen_no_others() -> None:
    column = pl.Series("raw", [b"", None])
    assert [proto.SerializeToString() for proto in by_feast(column, "raw")] == [b"", b""]
    assert values.encode(column).to_pylist() == [b"\n\x00", b""]
    assert [p.SerializeToString() for p in by_feast(pl.Series("raw", [b"", b"a"]), "raw")] == [b"\n\x00", b"\n\x01a"]


def test_a_list_of_integers_with_a_null_inside_is_refused_as_by_feast() -> None:
    column = pl.Series("wholes", [[1, None]], dtype=pl.List(pl.Int64))
    with pytest.raises((TypeError, ValueError)):
        by_feast(column, "wholes")
    with pytest.raises(SinkError) as caught:
        values.encode(column)
    assert (caught.value.code, caught.value.where) == ("online.list_null", "wholes")


# --- whole stores ---


def everything(world: World) -> World:
    """Three moments, of which the middle one comes last; entities come and go."""
    older = {name: list(reversed(held))[:4] for name, held in EVERYTHING.items()}
    if world.view.key_dtype == "Int64":
        numbers = [0, -1, 2**62, 7, 300, -(2**63)]
        older["user_id"], newer = numbers[:4], {**EVERYTHING, "user_id": numbers}
    else:
        newer = {**EVERYTHING}
    world.publish(newer, T)
    world.publish(older, T - timedelta(days=400))
    world.publish({name: held[:3] for name, held in newer.items()}, T - timedelta(microseconds=1))
    world.apply()
    return world


@pytest.mark.parametrize("key", [pl.String, pl.Int64])
@pytest.mark.parametrize("version", [2, 3])
def test_sqlite(tmp_path: Path, key: Any, version: int) -> None:
    world = World(tmp_path, key=key)
    if version != 3:
        world.configure({"type": "sqlite", "path": "data/mine.db"}, entity_key_serialization_version=version)
    everything(world)
    world.by_feast()
    expected = world.dump_sqlite()
    assert len(expected) == 6 * len(TYPES)
    world.empty_sqlite()
    assert world.by_ours() == 6
    assert world.dump_sqlite() == expected
    world.database.unlink()
    world.by_ours()
    assert world.dump_sqlite() == expected, "in a table that we made"


COMPOUND: dict[str, Any] = {"zone": pl.Int32, "a region": pl.String}
PLACES = {"zone": [1, -1, 0, 7, 1, 2], "a region": ["north", "süd", "", "x", "y", "z"]}


def compound(world: World) -> World:
    """Keys of three columns, which Feast sorts by name; two moments."""
    types = {name: EVERYTHING[name] for name in SCALARS}
    world.publish({"user_id": EVERYTHING["user_id"], **PLACES, **types}, T)
    again = {name: list(reversed(held)) for name, held in types.items()}
    world.publish({"user_id": EVERYTHING["user_id"], **PLACES, **again}, T - timedelta(days=1))
    world.apply()
    return world


@pytest.mark.parametrize("version", [2, 3])
def test_sqlite_with_compound_keys(tmp_path: Path, version: int) -> None:
    world = World(tmp_path, SCALARS, more_keys=COMPOUND)
    if version != 3:
        world.configure({"type": "sqlite", "path": "data/mine.db"}, entity_key_serialization_version=version)
    compound(world)
    world.by_feast()
    expected = world.dump_sqlite()
    assert len(expected) == 6 * len(SCALARS)
    world.empty_sqlite()
    seen: list[Any] = []
    assert world.by_ours(loaded=lambda key, _: seen.append(key)) == 6
    assert world.dump_sqlite() == expected
    assert seen == [["用户3", 0, ""]]
    assert world.by_ours(after=["u6", 2, "z"]) == 3


def test_redis_with_compound_keys(tmp_path: Path, redis_server: Redis) -> None:
    redis_server.flush()
    world = compound(World(tmp_path, SCALARS, more_keys=COMPOUND, store=redis_server.online_store))
    world.by_feast()
    expected = redis_server.dump()
    assert len(expected) == 6
    redis_server.flush()
    assert world.by_ours() == 6
    assert redis_server.dump() == expected


def test_sqlite_in_another_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = everything(World(tmp_path))
    try:
        monkeypatch.setenv("TZ", "America/New_York")
        time.tzset()
        world.by_feast()
        expected = world.dump_sqlite()
        world.empty_sqlite()
        world.by_ours()
        assert world.dump_sqlite() == expected
    finally:
        monkeypatch.undo()
        time.tzset()
    assert os.environ.get("TZ") != "America/New_York"


@pytest.mark.parametrize("key", [pl.String, pl.Int64])
@pytest.mark.parametrize("fixture", ["redis_server", "redis_with_tls", "redis_cluster"])
def test_redis(tmp_path: Path, key: Any, fixture: str, request: pytest.FixtureRequest) -> None:
    server: Redis = request.getfixturevalue(fixture)
    server.flush()
    world = everything(World(tmp_path, key=key, store=server.online_store))
    world.by_feast()
    expected = server.dump()
    assert (len(expected), {len(fields) for fields in expected.values()}) == (6, {len(TYPES) + 1})
    server.flush()
    assert world.by_ours() == 6
    assert server.dump() == expected


def test_redis_with_expiry(tmp_path: Path, redis_server: Redis) -> None:
    redis_server.flush()
    world = World(tmp_path, SCALARS, store={**redis_server.online_store, "key_ttl_seconds": 3600})
    world.publish({name: EVERYTHING[name] for name in world.schema})
    world.apply()
    world.by_feast()
    expected = redis_server.dump()
    assert {0 < seconds <= 3600 for seconds in redis_server.expiries()} == {True}
    redis_server.flush()
    world.by_ours()
    assert redis_server.dump() == expected
    assert {0 < seconds <= 3600 for seconds in redis_server.expiries()} == {True}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_schema(tmp_path_factory: pytest.TempPathFactory, redis_server: Redis, data: st.DataObject) -> None:
    """Random columns and values through Feast's whole way: its registry, its offline store, its conversion."""
    redis_server.flush()
    names = data.draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=5, unique=True))
    key = data.draw(st.sampled_from([pl.String, pl.Int64]))
    kind = ITEMS["whole"] if key is pl.Int64 else ITEMS["text"].filter(lambda text: "\0" not in text)
    who = data.draw(st.lists(kind, min_size=1, max_size=5, unique=True))
    world = World(tmp_path_factory.mktemp("any"), {name: TYPES[name] for name in names}, key=key)
    world.configure(redis_server.online_store)
    held = {}
    for name in names:
        held[name] = data.draw(columns(name).filter(lambda column: len(column) > 0))
        held[name] = [held[name][i % len(held[name])] for i in range(len(who))]
    world.publish({"user_id": who, **held})
    world.apply()
    world.by_feast()
    expected = redis_server.dump()
    redis_server.flush()
    world.by_ours()
    assert redis_server.dump() == expected

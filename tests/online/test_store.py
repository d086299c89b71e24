"""Which rows win, batch by batch; what cannot be loaded is refused in words."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import ConfigError, MaestroError, SinkError
from engine.sinks.online import newest
from engine.sinks.online.config import read_config
from engine.sinks.online.load import load
from engine.sinks.online.store import open_store
from tests.online.world import T, World
from tests.servers.redis import PASSWORD, Redis

SECOND = timedelta(seconds=1)


@pytest.fixture(params=["sqlite", "redis_server", "redis_cluster"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    """A view with one feature over an empty store, that Feast has not seen."""
    made = World(tmp_path, {"n": pl.Int64}, key=pl.Int64)
    if request.param == "sqlite":
        made.configure({"type": "sqlite", "path": "mine.db"})
        made.dump = lambda: {k: v[:1] + v[3:4] for k, v in made.dump_sqlite().items()}
    else:
        server: Redis = request.getfixturevalue(request.param)
        server.flush()
        made.configure(server.online_store)
        made.dump, made.clients = server.dump, server.clients
    return made


def test_equal_and_newer_rows_win_and_older_never(world: World) -> None:
    first = world.publish({"user_id": [1, 2, 3], "n": [10, 20, 30]}, T)
    world.by_ours([first])
    stored = world.dump()
    older = world.publish({"user_id": [1, 2, 4], "n": [11, 21, 41]}, T - SECOND)
    world.by_ours([older])
    after = world.dump()
    assert {key: value for key, value in after.items() if key in stored} == stored
    assert len(after) == len(stored) + 1
    again = world.publish({"user_id": [1, 2, 3], "n": [12, 20, None]}, T, created=T + timedelta(days=1))
    world.by_ours([again])
    corrected = world.dump()
    assert corrected != after
    newer = world.publish({"user_id": [1], "n": [13]}, T + SECOND)
    world.by_ours([newer, older])
    last = world.dump()
    assert sum(corrected[key] != last[key] for key in last) == 1
    world.by_ours()
    assert world.dump() == last


def test_older_rows_do_not_win_through_the_store_that_stored_the_newer_ones(world: World) -> None:
    newer = world.publish({"user_id": [1, 2, 3], "n": [10, 20, 30]}, T)
    older = world.publish({"user_id": [1, 2, 4], "n": [11, 21, 41]}, T - SECOND)
    world.by_ours([newer, older])
    expected = world.dump()
    world.by_ours([older])
    assert world.dump() == expected
    for path in world.database.parent.glob("mine.db*"):
        path.unlink()
    for client in world.clients():
        client.flushall()
    with open_store(read_config(world.repo.folder), world.repo) as store:
        for path in (newer, older):
            load(store, world.view, [path], memory_limit="512MiB", spill=world.folder / "spill")
    assert world.dump() == expected


@pytest.mark.parametrize("fixture", ["redis_server", "redis_cluster"])
def test_what_others_store_during_a_load_into_an_empty_redis_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, fixture: str
) -> None:
    server: Redis = request.getfixturevalue(fixture)
    server.flush()
    monkeypatch.setattr(newest, "_CELLS", 2_000)
    world = World(tmp_path, {"n": pl.Int64}, key=pl.Int64, store=server.online_store)
    older = world.publish({"user_id": list(range(3_000)), "n": [0] * 3_000}, T)
    newer = world.publish({"user_id": list(range(2_900, 3_100)), "n": [1] * 200}, T + SECOND)
    batches: list[Any] = []

    def loaded(*batch: Any) -> None:
        batches.append(batch)
        if len(batches) == 1:
            world.by_ours([newer])

    assert world.by_ours([older], loaded=loaded) == 3_000
    assert len(batches) == 3
    during = server.dump()
    server.flush()
    world.by_ours()
    assert (len(during), during) == (3_100, server.dump())


@pytest.mark.parametrize("more", ["-dbsize", "-client"])
def test_a_user_who_may_only_read_and_write_hashes_can_load(redis_server: Redis, tmp_path: Path, more: str) -> None:
    redis_server.flush()
    [client] = redis_server.clients()
    allowed = ("-@all", "+@hash", "+@connection", "+dbsize", more)
    client.execute_command("ACL", "SETUSER", "hashes", "on", ">word", "~*", *allowed)
    place = redis_server.connection_string.partition(",")[0]
    store = {"type": "redis", "connection_string": f"{place},username=hashes,password=word"}
    world = World(tmp_path, {"n": pl.Int64}, key=pl.Int64, store=store)
    try:
        world.publish({"user_id": [1, 2], "n": [10, 20]}, T)
        assert world.by_ours() == 2
        stored = redis_server.dump()
        world.by_ours([world.publish({"user_id": [1], "n": [11]}, T - SECOND)])
        assert (len(stored), redis_server.dump()) == (2, stored)
    finally:
        client.acl_deluser("hashes")


def test_a_server_without_room_is_an_error(redis_server: Redis, tmp_path: Path) -> None:
    redis_server.flush()
    [client] = redis_server.clients()
    world = World(tmp_path, {"n": pl.Int64}, key=pl.Int64, store=redis_server.online_store)
    world.publish({"user_id": [1, 2], "n": [10, 20]}, T)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(SinkError, match="maxmemory"):
            world.by_ours()
    finally:
        client.config_set("maxmemory", 0)
    assert world.by_ours() == 2
    assert len(redis_server.dump()) == 2


def test_batches_add_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "_CELLS", 2_000)
    count = 4_321
    world.publish({"user_id": list(range(count)), "n": list(range(count))}, T)
    world.publish({"user_id": list(range(0, count, 2)), "n": [0] * len(range(0, count, 2))}, T + SECOND)
    batches: list[tuple[Any, int]] = []
    assert world.by_ours(loaded=lambda *batch: batches.append(batch)) == count
    assert (len(batches), sum(rows for _, rows in batches), batches[-1][0]) == (5, count, count - 1)
    whole = world.dump()
    assert len(whole) == count
    assert world.by_ours(after=batches[2][0]) == count - sum(rows for _, rows in batches[:3])
    assert world.dump() == whole


def test_one_file_is_stored_as_it_stands_and_a_missing_one_is_named(world: World) -> None:
    with pytest.raises(SinkError) as caught:
        world.by_ours([world.folder / "none.parquet"])
    assert caught.value.code == "online.unreadable"


# --- what the repo says ---


def stated(folder: Path, text: str) -> Path:
    (folder / "feature_store.yaml").write_text(text)
    return folder


def test_variables_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "project: p\nonline_store:\n  type: redis\n  connection_string: ${HOST_A}:1,h2:2,password=${PASS_A},db=3,ssl=true\n"
    monkeypatch.setenv("HOST_A", "h1")
    monkeypatch.setenv("PASS_A", "a=b")
    config = read_config(stated(tmp_path, text))
    assert config.connection == (["h1:1", "h2:2"], {"password": "a=b", "db": 3, "ssl": True})
    assert (config.type, config.own, config.key_version) == ("redis", True, 3)
    assert "a=b" in config.secrets
    assert "a=b" not in repr(config)
    monkeypatch.delenv("PASS_A")
    with pytest.raises(SinkError, match="PASS_A, which is not set") as caught:
        read_config(tmp_path)
    assert caught.value.code == "feast.configuration"


def test_who_logs_in_does_not_make_another_store(tmp_path: Path) -> None:
    def identity(text: str) -> str:
        return read_config(
            stated(tmp_path, f"project: p\nonline_store: {{type: redis, connection_string: '{text}'}}")
        ).identity

    assert identity("h:1,password=a") == identity("h:1,password=b") == identity("h:1,db=0")
    assert len({identity("h:1"), identity("h:2"), identity("h:1,db=1"), identity("h:1,h:2")}) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("project: p\nonline_stroe: {type: redis}\n", "did you mean 'online_store'"),
        ("project: p\nonline_store: null\n", "has no online store"),
        ("online_store: sqlite\n", "names no project"),
        ("project: [\n", "not valid YAML"),
    ],
)
def test_mistakes_in_the_repo_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises((SinkError, ConfigError), match=said):
        read_config(stated(tmp_path, text))


def test_without_a_repo_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="run the pipeline first"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("store", "own"),
    [
        ("sqlite", True),
        ("redis", True),
        ({"path": "a.db"}, True),
        ({"type": "sqlite", "vector_enabled": True}, False),
        ({"type": "redis", "skip_dedup": True}, False),
        ({"type": "redis", "redis_type": "redis_sentinel"}, False),
        ({"type": "dynamodb"}, False),
    ],
)
def test_what_we_do_not_write_ourselves_goes_through_feast(tmp_path: Path, store: Any, own: bool) -> None:
    world = World(tmp_path, store=store)
    assert read_config(world.repo.folder).own is own


@pytest.mark.parametrize("wrong", ["password", "port", "parameter"])
def test_a_server_that_refuses_is_named_without_the_password(redis_server: Redis, tmp_path: Path, wrong: str) -> None:
    place, _, password = redis_server.connection_string.partition(",")
    text = {
        "password": f"{place},password=n0t-the-one",
        "port": f"127.0.0.1:1,{password}",
        "parameter": f"{place},{password},no_such=1",
    }[wrong]
    world = World(tmp_path, store={"type": "redis", "connection_string": text})
    with pytest.raises(SinkError) as caught:
        open_store(read_config(world.repo.folder), world.repo)
    assert caught.value.code == "online.redis"
    assert caught.value.where in (place, "127.0.0.1:1")
    assert not {PASSWORD, "n0t-the-one"} & {word for word in (PASSWORD, "n0t-the-one") if word in str(caught.value)}


def test_a_key_that_is_no_hash_is_an_error_and_the_store_can_be_used_again(redis_server: Redis, tmp_path: Path) -> None:
    redis_server.flush()
    world = World(tmp_path, {"n": pl.Int64}, key=pl.Int64, store=redis_server.online_store)
    world.publish({"user_id": [1, 2], "n": [1, 2]})
    world.by_ours()
    [client] = redis_server.clients()
    key = sorted(redis_server.dump())[0]
    client.delete(key)
    client.set(key, "a text")
    with pytest.raises(SinkError, match="WRONGTYPE"):
        world.by_ours()
    client.delete(key)
    world.by_ours()
    assert len(redis_server.dump()) == 2


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    world = World(tmp_path, {"n": pl.Int64}, store={"type": "sqlite", "path": "text.db"})
    world.publish({"user_id": ["u"], "n": [1]})
    (world.repo.folder / "text.db").write_text("no database, " * 100)
    with pytest.raises(SinkError, match="not a database") as caught:
        world.by_ours()
    assert (caught.value.code, caught.value.where) == ("online.sqlite", str(world.repo.folder / "text.db"))


def test_without_redis_py_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "redis", None)
    world = World(tmp_path, store={"type": "redis"})
    with pytest.raises(MaestroError, match=r"pip install 'maestro-engine\[redis\]'"):
        open_store(read_config(world.repo.folder), world.repo)

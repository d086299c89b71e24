"""Entities that the newest as-of no longer has go out of the online store: found no more, by Feast's own reading."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.online import get, materialize
from engine.sinks.online import gone, other
from engine.sinks.online.config import read_config
from engine.sinks.online.gone import remove_gone
from engine.sinks.online.load import load
from engine.sinks.online.nulls import write_nulls
from engine.sinks.online.store import Removing, open_store
from tests.online.test_materialize import DAY, FEAST, RAW, ROOT
from tests.online.world import EVERYTHING, World, own_repo
from tests.online.world import T as MOMENT
from tests.run.world import T, pipeline, run, write_world
from tests.servers.redis import Redis

VIEWS = {"user_features": RAW["user_features"], "other": {**RAW["user_features"], "set": "user"}}


def users(count: int) -> pl.DataFrame:
    frame = pl.DataFrame({"id": [f"u{i}" for i in range(count)], "updated_at": [T - DAY] * count})
    return frame.with_columns(pl.lit(1.0).alias("experience_years"))


def found(folder: Path, view: str, keys: list[str]) -> dict[str, bool]:
    """Which keys Feast tells from one that never was."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(folder / "repo"))
    features = [f"{view}:tasks_completed_30d"]
    answer = store.get_online_features(features=features, entity_rows=[{"user_id": k} for k in [*keys, "nobody"]])
    values, result = answer.to_dict()["tasks_completed_30d"], answer.proto.results[-1]
    told = list(zip(values, result.statuses, [at.seconds for at in result.event_timestamps], strict=True))
    return {key: told[i] != told[-1] for i, key in enumerate(keys)}


@pytest.fixture(params=["sqlite", "redis_server", "redis_cluster"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param != "sqlite":
        server: Redis = request.getfixturevalue(request.param)
        server.flush()
        own_repo(tmp_path, server.online_store)
        return server
    return None


def test_a_deleted_entity_is_not_found_and_other_views_keep_theirs(tmp_path: Path, store: Redis | None) -> None:
    write_world(tmp_path, users=users(5))
    run(tmp_path, T, features=VIEWS, feast=FEAST)
    assert found(tmp_path, "user_features", ["u0", "u4"]) == {"u0": True, "u4": True}
    write_world(tmp_path, users=users(3))
    run(tmp_path, T + DAY, features=VIEWS, feast={**FEAST, "materialize": False})
    [loaded] = materialize(pipeline(tmp_path, features=VIEWS, feast=FEAST), views=["user_features"])
    assert (loaded.rows, loaded.removed, loaded.proven) == (3, 2, 3)
    assert found(tmp_path, "user_features", ["u0", "u3", "u4", "nobody"]) == {
        "u0": True,
        "u3": False,
        "u4": False,
        "nobody": False,
    }
    assert found(tmp_path, "other", ["u0", "u3", "u4"]) == {"u0": True, "u3": True, "u4": True}
    [other] = materialize(pipeline(tmp_path, features=VIEWS, feast=FEAST), views=["other"])
    assert other.removed == 2
    if store:
        assert len(store.dump()) == 3, "a hash without fields is gone"
    write_world(tmp_path, users=users(4))
    report = run(tmp_path, T + 2 * DAY, features=VIEWS, feast=FEAST)
    assert report.feast is not None
    assert [view["removed"] for view in report.feast["materialized"]] == [0, 0]
    assert found(tmp_path, "user_features", ["u3", "u4"]) == {"u3": True, "u4": False}


def test_in_a_store_that_feast_removes_nothing_from_a_deleted_entity_has_nulls(elsewhere: Path) -> None:
    def answer() -> list[Any]:
        keys = ["u0", "u3", "u4"]
        return [row["experience_years"] for row in get(pipeline(elsewhere, **sections(FEAST)), "user_features", keys)]

    def sections(feast: dict[str, Any]) -> dict[str, Any]:
        return {"features": RAW, "feast": feast}

    write_world(elsewhere, users=users(5))
    run(elsewhere, [T - DAY, T], **sections(FEAST))
    write_world(elsewhere, users=users(3))
    report = run(elsewhere, T + DAY, **sections(FEAST))
    assert report.feast is not None
    assert [v["removed"] for v in report.feast["materialized"]] == [2]
    assert answer() == [1.0, None, None]
    write_world(elsewhere, users=users(5))
    run(elsewhere, T - 2 * DAY, **sections(FEAST))
    assert answer() == [1.0, None, None], "an earlier one brings none back"
    [whole] = materialize(pipeline(elsewhere, **sections(FEAST)), full=True, proof=None)
    assert (whole.rows, whole.removed, whole.warning) == (5, 2, "")
    assert answer() == [1.0, None, None]
    write_world(elsewhere, users=users(4))
    report = run(elsewhere, T + 2 * DAY, **sections(FEAST))
    assert answer() == [1.0, 1.0, None], "one that is there again has its values"
    assert report.warnings == []
    write_world(elsewhere, users=users(3))
    report = run(elsewhere, T + 2 * DAY, **sections(FEAST))
    assert answer() == [1.0, 1.0, None]
    assert [("was published again" in told) for told in report.warnings] == [True], "what cannot be known is told"
    write_world(elsewhere, users=users(1))
    run(elsewhere, T + 3 * DAY, **sections({**FEAST, "deleted": "keep"}))
    assert answer() == [1.0, 1.0, 1.0], "once they are to stay, the last row of each is loaded"


def test_nulls_of_every_type(tmp_path: Path) -> None:
    world = World(tmp_path)
    before = world.publish(EVERYTHING)
    newest = world.publish({"user_id": []}, as_of=MOMENT + DAY)
    world.apply()
    limits: dict[str, Any] = {"memory_limit": "256MiB", "spill": tmp_path / "spill"}
    (tmp_path / "spill").mkdir()
    with other.Store(world.repo) as store:
        load(store, world.view, [before], **limits)
        count = write_nulls(store, world.view, newest, [before], MOMENT + DAY, **limits)
    assert count == 6
    rows = world.repo.online("all", EVERYTHING["user_id"])
    assert {value for row in rows for name, value in row.items() if name != "user_id"} == {None}


def test_an_as_of_published_again_and_one_of_earlier(tmp_path: Path, store: Redis | None) -> None:
    write_world(tmp_path, users=users(4))
    run(tmp_path, T, features=RAW, feast=FEAST)
    write_world(tmp_path, users=users(2))
    report = run(tmp_path, T, features=RAW, feast=FEAST)
    assert report.feast is not None
    assert report.feast["materialized"][0]["removed"] == 2, "the file that was loaded is no longer there"
    write_world(tmp_path, users=users(6))
    report = run(tmp_path, T - DAY, features=RAW, feast=FEAST)
    assert report.feast is not None
    assert report.feast["materialized"][0]["rows"] == 0
    assert set(found(tmp_path, "user_features", ["u2", "u5"]).values()) == {False}, "an earlier one brings none back"
    [whole] = materialize(pipeline(tmp_path, features=RAW, feast=FEAST), full=True)
    assert (whole.rows, whole.removed) == (2, 0)


def test_they_stay_where_that_is_declared(tmp_path: Path) -> None:
    keep = {**FEAST, "deleted": "keep"}
    write_world(tmp_path, users=users(3))
    run(tmp_path, T, features=RAW, feast=keep)
    write_world(tmp_path, users=users(2))
    run(tmp_path, T + DAY, features=RAW, feast=keep)
    assert set(found(tmp_path, "user_features", ["u0", "u2"]).values()) == {True}
    [loaded] = materialize(pipeline(tmp_path, features=RAW, feast=FEAST))
    assert (loaded.rows, loaded.removed) == (2, 1), "once it is declared otherwise, what is there is looked through"
    assert set(found(tmp_path, "user_features", ["u0", "u2"]).values()) == {True, False}


def test_a_row_that_is_dropped_for_a_null_is_not_a_deleted_entity(tmp_path: Path) -> None:
    dropping = {"user_features": {"handle_missing": "drop", "normalize": False}}
    write_world(tmp_path, users=users(3))
    first = run(tmp_path, T, features=dropping, feast=FEAST)
    unknown = pl.when(pl.col("id") != "u2").then("experience_years").alias("experience_years")
    write_world(tmp_path, users=users(3).with_columns(unknown))
    second = run(tmp_path, T + DAY, features=dropping, feast=FEAST)
    assert (first.views[0].rows, second.views[0].rows) == ([2], [1])
    assert second.feast is not None
    assert second.feast["materialized"][0]["removed"] == 0
    assert set(found(tmp_path, "user_features", ["u1", "u2"]).values()) == {True}


def test_what_was_loaded_tells_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.sinks.online import sqlite

    write_world(tmp_path, users=users(3))
    run(tmp_path, T, features=RAW, feast=FEAST)
    monkeypatch.delattr(sqlite.Store, "stored")
    for day, count, removed in ((1, 2, 1), (2, 3, 0), (3, 1, 2)):
        write_world(tmp_path, users=users(count))
        report = run(tmp_path, T + day * DAY, features=RAW, feast=FEAST)
        assert report.feast is not None
        assert report.feast["materialized"][0]["removed"] == removed


KILLED = """
import os, signal, sys
from pathlib import Path
from engine import steps
from engine.online import materialize
from engine.sinks.online import gone
from tests.online.test_materialize import FEAST, RAW
from tests.run.world import pipeline

gone._ROWS = 2
def die(step):
    if step == "rows.removed":
        os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "killed":
    steps.listener = die
[done] = materialize(pipeline(Path.cwd(), features=RAW, feast=FEAST), proof=0)
print(done.rows, done.removed)
"""


def test_a_removal_that_is_killed_goes_on(tmp_path: Path, store: Redis | None) -> None:
    write_world(tmp_path, users=users(5_000))
    run(tmp_path, T, features=RAW, feast=FEAST)
    write_world(tmp_path, users=users(10))
    run(tmp_path, T + DAY, features=RAW, feast={**FEAST, "materialize": False})

    def load(how: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, how]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert load("killed").returncode == -signal.SIGKILL
    rows, removed = map(int, load("again").stdout.split())
    assert rows == 10
    assert 0 < removed < 4_990
    keys = ["u0", "u9", "u10", "u4999"]
    assert found(tmp_path, "user_features", keys) == dict(zip(keys, (True, True, False, False), strict=True))
    [whole] = materialize(pipeline(tmp_path, features=RAW, feast=FEAST), full=True, proof=0)
    assert whole.removed == 0


@pytest.mark.parametrize("known", [True, False])
def test_keys_of_every_kind(tmp_path: Path, store: Redis | None, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the store is asked what it holds, or the file that was loaded."""
    monkeypatch.setattr(gone, "_ROWS", 3)
    options = store.online_store if store else {"type": "sqlite", "path": "o.db"}
    kinds: dict[str, Any] = {
        "numbers": (pl.Int64, {}, lambda n: {"user_id": n - 3}),
        "texts": (pl.String, {}, lambda n: {"user_id": f"é*[{n}]?\\^-"}),
        "both": (pl.Int64, {"b*": pl.String}, lambda n: {"user_id": n, "b*": "" if n == 1 else f"{n}"}),
    }
    for name, (key, more, made) in kinds.items():
        world = World(tmp_path / name, {"n": pl.Int64}, key=key, more_keys=more, store=options)
        if store:
            store.flush()
        rows = [made(n) for n in range(7)]
        columns = {column: [row[column] for row in rows] for column in rows[0]}
        before = world.publish({**columns, "n": list(range(7))})
        after = world.publish({c: v[2:4] for c, v in columns.items()} | {"n": [1, 2]}, MOMENT.replace(day=5))
        world.by_ours([before])
        dump = store.dump if store else world.dump_sqlite
        whole = dict(dump())
        with open_store(read_config(world.repo.folder), world.repo) as opened:
            assert isinstance(opened, object)
            removing: Removing = opened  # type: ignore[assignment]
            limits: dict[str, Any] = {"memory_limit": "256MiB", "spill": tmp_path / "spill"}
            assert remove_gone(removing, world.view, after, before if known else None, **limits) == 5
            assert remove_gone(removing, world.view, after, before if known else None, **limits) == 0
        world.by_ours([after])
        left = dict(dump())
        assert len(left) == 2
        assert left.keys() < whole.keys()

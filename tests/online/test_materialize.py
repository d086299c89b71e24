"""``maestro materialize`` and ``maestro online get``: only what changed, resumed after a kill, proven by reading back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import ConfigError, SinkError, UsageError
from engine.ledger import Ledger
from engine.online import get, materialize
from engine.sinks.feast import FeatureRepo
from tests.cli.conftest import Maestro, maestro  # noqa: F401 - a fixture
from tests.online.world import World, own_repo
from tests.run.world import ACTIVITIES, DAY, T, pipeline, run, write_world
from tests.servers.redis import PASSWORD, Redis

ROOT = Path(__file__).parents[2]
RAW: dict[str, Any] = {"user_features": {"handle_missing": "keep", "normalize": False}}
FEAST = {"repo": "./repo", "project": "small"}
SECTIONS: dict[str, Any] = {"features": RAW, "feast": FEAST}
UNLOADED: dict[str, Any] = {"features": RAW, "feast": {**FEAST, "materialize": False}}


def table(folder: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(folder / "repo" / "data" / "online_store.db")
    rows = connection.execute("SELECT * FROM small_user_features ORDER BY entity_key, feature_name").fetchall()
    connection.close()
    return rows


def test_only_what_changed_is_loaded(tmp_path: Path) -> None:
    write_world(tmp_path)
    first = run(tmp_path, T, **SECTIONS)
    assert first.feast is not None
    assert first.feast["materialized"] == [
        {"view": "user_features", "as_of": ["2025-10-04T00:00:00Z"], "rows": 3, "proven": 3, "removed": 0}
    ]
    [again] = materialize(pipeline(tmp_path, **SECTIONS))
    assert (again.as_of, again.rows, again.proven) == ((), 0, 3)
    stored = table(tmp_path)
    run(tmp_path, [T + DAY, T - DAY], **UNLOADED)
    assert table(tmp_path) == stored
    [fresh] = materialize(pipeline(tmp_path, **UNLOADED), proof=None)
    assert (fresh.as_of, fresh.rows, fresh.proven) == ((T - DAY, T + DAY), 3, 3)
    assert {row[-2] for row in table(tmp_path)} == {int((T + DAY).timestamp())}
    stored = table(tmp_path)
    run(tmp_path, T - 3 * DAY, **SECTIONS)
    assert table(tmp_path) == stored, "a backfill of older ones changes nothing"
    [whole] = materialize(pipeline(tmp_path, **SECTIONS), full=True, proof=0)
    assert (len(whole.as_of), whole.rows, whole.proven) == (4, 3, 0)
    assert table(tmp_path) == stored


def test_an_as_of_published_again_is_loaded_again(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, T, **SECTIONS)
    before = table(tmp_path)
    users = pl.read_parquet(tmp_path / "data" / "users.parquet").with_columns(experience_years=pl.lit(9.0))
    users.write_parquet(tmp_path / "data" / "users.parquet")
    report = run(tmp_path, T, **SECTIONS)
    assert report.feast is not None
    assert report.feast["materialized"][0]["rows"] == 3
    assert table(tmp_path) != before, "at the same event timestamp"


def test_another_store_or_one_that_is_gone_is_loaded_whole(tmp_path: Path, redis_server: Redis) -> None:
    redis_server.flush()
    write_world(tmp_path)
    run(tmp_path, [T, T + DAY], **SECTIONS)
    stored = table(tmp_path)
    (tmp_path / "repo" / "data" / "online_store.db").unlink()
    [whole] = materialize(pipeline(tmp_path, **SECTIONS))
    assert (len(whole.as_of), whole.rows, whole.proven) == (2, 3, 3)
    assert table(tmp_path) == stored
    own_repo(tmp_path, redis_server.online_store)
    [moved] = materialize(pipeline(tmp_path, **SECTIONS), proof=None)
    assert (len(moved.as_of), moved.rows, moved.proven) == (2, 3, 3)
    assert len(redis_server.dump()) == 3
    text = (tmp_path / "repo" / "feature_store.yaml").read_text()
    report = run(tmp_path, T + 2 * DAY, **SECTIONS)
    assert report.feast is not None
    assert report.feast["materialized"][0]["as_of"] == ["2025-10-06T00:00:00Z"]
    assert (tmp_path / "repo" / "feature_store.yaml").read_text() == text, "it is the user's own"
    ours = (tmp_path / ".maestro" / "ledger.db").read_bytes() + json.dumps(report.to_dict()).encode()
    assert PASSWORD.encode() not in ours


KILLED = """
import os, signal, sys
from pathlib import Path
from engine import steps
from engine.sinks.online import newest
from tests.online.test_materialize import many

newest._CELLS = 2_000
batches = 0
def die(step):
    global batches
    batches += step == "rows.loaded"
    if batches == 3:
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "killed":
    steps.listener = die
print(many(Path.cwd(), sys.argv[2] or None, materialize=True))
"""


def many(folder: Path, store: str | None, *, materialize: bool) -> Any:
    """The entities loaded of a pipeline over 4,321 users: run, or already published and now loaded."""
    from engine.online import materialize as load

    features = {"user_features": {**RAW["user_features"], "features": ["tasks_completed_7d", "bug_rate"]}}
    if store:
        own_repo(folder, {"type": "redis", "connection_string": store})
    if materialize:
        return load(pipeline(folder, features=features, feast=FEAST), proof=0)[0].rows
    frame = pl.DataFrame({"id": [f"u{i}" for i in range(4321)], "updated_at": [T - DAY] * 4321})
    write_world(folder, users=frame.with_columns(pl.lit(1.0).alias("experience_years")))
    return run(folder, T, features=features, feast={**FEAST, "materialize": False})


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_load_that_is_killed_goes_on(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> None:
    server: Redis | None = request.getfixturevalue("redis_server") if store == "redis" else None
    if server:
        server.flush()
    text = server.connection_string if server else ""
    many(tmp_path, text or None, materialize=False)

    def load(how: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, how, text]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    dead = load("killed")
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert (tmp_path / "killed").exists()
    dump: Callable[[], Any] = server.dump if server else lambda: table(tmp_path)
    part = len(dump())
    with Ledger(tmp_path / ".maestro") as ledger:
        assert {file["state"] for file in ledger.published("small")} == {"published"}
    assert load("again").stdout == "1321\n", "three batches of 1,000 were not loaded again"
    resumed = dump()
    assert len(resumed) > part
    with Ledger(tmp_path / ".maestro") as ledger:
        assert {file["state"] for file in ledger.published("small")} == {"loaded"}
    if server:
        server.flush()
    else:
        (tmp_path / "repo" / "data" / "online_store.db").unlink()
    features = {"user_features": {**RAW["user_features"], "features": ["tasks_completed_7d", "bug_rate"]}}
    assert materialize(pipeline(tmp_path, features=features, feast=FEAST), full=True)[0].proven == 100
    assert dump() == resumed


def test_the_proof_names_the_feature_and_the_entity(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, T, **SECTIONS)
    connection = sqlite3.connect(tmp_path / "repo" / "data" / "online_store.db")
    where = "feature_name = 'tasks_completed_30d' AND substr(entity_key, -2) = CAST('u1' AS BLOB)"
    connection.execute(f"UPDATE small_user_features SET value = x'2007' WHERE {where}")
    connection.commit()
    connection.close()
    with pytest.raises(SinkError) as caught:
        materialize(pipeline(tmp_path, **SECTIONS))
    assert (caught.value.code, caught.value.where) == ("online.differs", "user_features")
    assert "tasks_completed_30d (1, such as user_id 'u1': online 7, published " in caught.value.message
    assert "bug_rate" not in caught.value.message
    assert materialize(pipeline(tmp_path, **SECTIONS), full=True)[0].proven == 3


def test_what_came_later_from_elsewhere_is_no_difference(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, T, **SECTIONS)
    connection = sqlite3.connect(tmp_path / "repo" / "data" / "online_store.db")
    connection.execute("UPDATE small_user_features SET value = x'2007', event_ts = event_ts + 1")
    connection.commit()
    connection.close()
    before = table(tmp_path)
    assert materialize(pipeline(tmp_path, **SECTIONS), full=True)[0].proven == 3
    assert table(tmp_path) == before


def test_loading_imports_neither_feast_nor_pandas(tmp_path: Path, redis_server: Redis) -> None:
    redis_server.flush()
    write_world(tmp_path)
    own_repo(tmp_path, redis_server.online_store)
    run(tmp_path, [T, T - DAY], **UNLOADED)
    script = """
import sys
from pathlib import Path
from tests.run.world import pipeline
from tests.online.test_materialize import SECTIONS
from engine.online import materialize
for name in ("feast", "pandas"):
    assert name not in sys.modules, name
print(materialize(pipeline(Path.cwd(), **SECTIONS), proof=0)[0].rows, "feast" in sys.modules, "pandas" in sys.modules)
"""
    script = script.replace("from tests.online.test_materialize import SECTIONS", f"SECTIONS = {SECTIONS!r}")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "3 False False\n", done.stderr


def test_any_other_store_is_written_through_feast(elsewhere: Path) -> None:
    run(elsewhere, [T, T + DAY], **SECTIONS)
    first = table(elsewhere)
    assert {row[-2] for row in first} == {int((T + DAY).timestamp())}
    run(elsewhere, T - DAY, **SECTIONS)
    assert table(elsewhere) == first, "the older rows were not handed over alone"


def test_what_is_loaded_before_it_is_registered_is_registered_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a first run; where there is a registry, it is asked first."""
    from engine.sinks.feast.aside import Aside

    def fails(*_: object) -> None:
        raise SinkError("no", code="feast.apply", where="here", fix="none")

    write_world(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Aside, "apply", fails)
        with pytest.raises(SinkError, match="no"):
            run(tmp_path, T, **SECTIONS)
    stored = table(tmp_path)
    assert stored
    assert not (tmp_path / "repo" / "data" / "registry.db").exists()
    report = run(tmp_path, T, **SECTIONS)
    assert report.feast is not None
    assert report.feast["materialized"][0]["proven"] == 3
    stored = table(tmp_path)
    changed = {**SECTIONS, "features": {"user_features": {**RAW["user_features"], "ttl": "1d"}}}
    with monkeypatch.context() as patched:
        patched.setattr(Aside, "apply", fails)
        with pytest.raises(SinkError, match="no"):
            run(tmp_path, T + DAY, **changed)
    assert table(tmp_path) == stored


# --- the commands ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path)
    run(tmp_path, T, **UNLOADED)
    (tmp_path / "pipeline.yaml").write_text(
        """
version: 1
name: small
sources:
  users:
    type: file
    path: data/users.parquet
    column_mapping: {id: user_id}
    critical_columns: [user_id]
    deduplicate: {keys: [user_id], order_by: updated_at}
  activities: {type: file, path: data/activities/*.parquet}
features: {user_features: {handle_missing: keep, normalize: false}}
feast: {repo: ./repo, project: small}
"""
    )
    return tmp_path


def test_the_commands(folder: Path, maestro: Maestro) -> None:  # noqa: F811
    said = maestro("materialize", "pipeline.yaml")
    assert (said.code, said.out) == (0, "user_features: loaded 3 entities; 3 read back and found equal\n")
    assert maestro("materialize", "pipeline.yaml", "--json").json == [
        {"view": "user_features", "as_of": [], "rows": 0, "proven": 3, "removed": 0}
    ]
    assert maestro("materialize", "pipeline.yaml", "--full", "--view", "user_features", "--proof", "0").out == (
        "user_features: loaded 3 entities; 0 read back and found equal\n"
    )
    look = ("online", "get", "pipeline.yaml", "--view", "user_features", "--key", "u2", "--key", "nobody", "--json")
    [known, unknown] = maestro(*look).json
    assert known == FeatureRepo(folder / "repo", "small").online("user_features", ["u2"])[0]
    assert (known["user_id"], unknown["user_id"]) == ("u2", "nobody")
    assert known["tasks_completed_30d"] == 2
    assert {value for name, value in unknown.items() if name != "user_id"} == {None}
    assert "tasks_completed_30d" in maestro(*look[:-1]).out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("materialize", "pipeline.yaml", "--view", "user_feature"), 2, "did you mean 'user_features'"),
        (("online", "get", "pipeline.yaml", "--view", "none", "--key", "1"), 2, "there is no view 'none'"),
        (("materialize", "pipeline.yaml", "--proof", "some"), 2, "is no number"),
    ],
)
def test_mistakes(folder: Path, maestro: Maestro, arguments: tuple[str, ...], code: int, said: str) -> None:  # noqa: F811
    found = maestro(*arguments)
    assert found.code == code
    assert said in found.err


def test_a_pipeline_without_a_store_or_a_run_says_so(tmp_path: Path) -> None:
    write_world(tmp_path)
    with pytest.raises(ConfigError, match="no online store"):
        materialize(pipeline(tmp_path, features=RAW))
    with pytest.raises(UsageError, match="has not run yet"):
        materialize(pipeline(tmp_path, **SECTIONS))
    run(tmp_path, T, features=RAW)
    with pytest.raises(SinkError, match="no feature repo"):
        materialize(pipeline(tmp_path, **SECTIONS))
    with pytest.raises(UsageError, match="has not run yet"):
        get(pipeline(tmp_path, workdir="elsewhere", **SECTIONS), "user_features", ["u1"])


def test_a_number_is_asked_for_where_the_key_is_one(tmp_path: Path) -> None:
    users = pl.DataFrame({"id": [1, 2], "updated_at": [T - timedelta(days=1)] * 2, "experience_years": [1.0, 2.0]})
    activities = ACTIVITIES.with_columns(pl.lit(1).alias("user_id"))
    write_world(tmp_path, users=users, activities=activities)
    run(tmp_path, T, **SECTIONS)
    [row] = get(pipeline(tmp_path, **SECTIONS), "user_features", ["2"])
    assert row["user_id"] == 2
    with pytest.raises(UsageError, match="is a number, 'x' is none"):
        get(pipeline(tmp_path, **SECTIONS), "user_features", ["x"])


def test_every_type_is_read_back_and_compared(tmp_path: Path, redis_server: Redis) -> None:
    from engine.sinks.feast.proof import prove
    from engine.sinks.online.newest import newest
    from tests.online.test_bytes import everything

    for store in ({"type": "sqlite", "path": "data/o.db"}, redis_server.online_store):
        redis_server.flush()
        world = everything(World(tmp_path / str(store["type"]), store=store))
        world.by_ours()
        rows = list(newest(world.view, world.paths, memory_limit="512MiB", spill=tmp_path / "spill"))
        assert prove(world.repo, world.view, iter(rows)) == 6
        wrong = [frame.with_columns(texts=pl.col("texts").list.reverse()) for frame in rows]
        with pytest.raises(SinkError, match="texts"):
            prove(world.repo, world.view, iter(wrong))

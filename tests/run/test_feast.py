"""A run with a feast section: the online store equals the newest offline row, whatever the order of runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import SinkError
from engine.sinks.feast import FeatureRepo
from tests.run.world import DAY, USERS, T, files, published, run, write_world

FEAST = {"repo": "./repo", "project": "small"}
RAW: dict[str, Any] = {"user_features": {"handle_missing": "keep", "normalize": False}}


def online(folder: Path, keys: list[str]) -> dict[str, dict[str, Any]]:
    rows = FeatureRepo(folder / "repo", "small").online("user_features", keys)
    return {row.pop("user_id"): row for row in rows}


def newest(folder: Path) -> dict[str, dict[str, Any]]:
    rows = published(folder).group_by("user_id", maintain_order=True).last().drop("event_timestamp")
    return {row.pop("user_id"): row for row in rows.to_dicts()}


def test_online_equals_the_newest_offline_row(tmp_path: Path) -> None:
    """Invariant 8, through a newer as-of, an older one after it, and a changed definition."""
    write_world(tmp_path)
    report = run(tmp_path, T, features=RAW, feast=FEAST)
    assert report.feast is not None
    assert online(tmp_path, ["u1", "u2", "u3"]) == newest(tmp_path)
    run(tmp_path, T + 2 * DAY, features=RAW, feast=FEAST)
    assert online(tmp_path, ["u1", "u2", "u3"]) == newest(tmp_path)
    run(tmp_path, T - 2 * DAY, features=RAW, feast=FEAST)
    assert online(tmp_path, ["u1", "u2", "u3"]) == newest(tmp_path)
    changed = {"user_features": {**RAW["user_features"], "features": ["bug_rate", "tasks_completed_30d"]}}
    run(tmp_path, T + 3 * DAY, features=changed, feast=FEAST)
    assert set(newest(tmp_path)["u1"]) == {"bug_rate", "tasks_completed_30d"}
    assert online(tmp_path, ["u1", "u2", "u3"]) == newest(tmp_path)
    assert len(files(tmp_path)) == 4


def test_a_repo_of_someone_elses_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_world(tmp_path)
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "feature_store.yaml").write_text("project: mine\n")
    with pytest.raises(SinkError) as caught:
        run(tmp_path, features=RAW, feast=FEAST)
    assert caught.value.code == "feast.project"
    assert "'mine'" in caught.value.message
    assert not (tmp_path / ".maestro" / "landing").exists()
    assert (tmp_path / "repo" / "feature_store.yaml").read_text() == "project: mine\n"


def test_a_key_that_feast_cannot_hold_is_refused_before_publishing(tmp_path: Path) -> None:
    users = pl.DataFrame({"id": [0.5], "updated_at": [T]})
    write_world(tmp_path, users=users)
    with pytest.raises(SinkError) as caught:
        run(tmp_path, features=RAW, feast=FEAST)
    assert caught.value.code == "feast.key_type"
    assert not (tmp_path / "features").exists()


ASIDE = """
import sqlite3, sys
from pathlib import Path
import polars as pl
from engine.errors import SinkError
from engine.sinks.feast.aside import Aside
from tests.online.world import World

world = World(Path(sys.argv[1]), {"whole": pl.Int64, "text": pl.String})
world.publish({"user_id": ["a", "b", "c"], "whole": [1, None, 3], "text": ["x", "", None]})
limits = {"memory_limit": "256MiB", "spill": world.folder / "spill"}
with Aside(world.repo) as aside:
    aside.begin()
    done = [d.name for d in aside.apply([world.view], (), ())]
    world.by_ours()
    proven = [aside.prove(world.view, world.paths, among, **limits) for among in (None, ["b"])]
    with sqlite3.connect(world.database) as connection:
        connection.execute("UPDATE worlds_all SET value = x'2008' WHERE feature_name = 'whole'")
    connection.close()
    try:
        aside.prove(world.view, world.paths, ["a"], **limits)
    except SinkError as error:
        sys.stdout.write(f"{done} {proven} {error.code} {'whole' in error.message} {'feast' in sys.modules}")
"""


def test_feast_works_in_a_process_of_its_own(tmp_path: Path) -> None:
    """What it finds and what it refuses is heard of where it is asked; Feast is not imported there."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", ASIDE, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    told = "['user', 'all_source', 'all'] [3, 1] online.differs True False"
    assert (done.returncode, done.stdout) == (0, told), done.stderr


def test_a_process_that_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.sinks.feast.aside import Aside

    monkeypatch.setattr(Aside, "begin", Aside.begin.__wrapped__)  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "feast", raising=False)
    with Aside(FeatureRepo(tmp_path, "small")) as aside:
        aside.begin()
        assert aside._process is not None
        aside._process.kill()
        with pytest.raises(SinkError, match="ended with exit code -9") as caught:
            aside.apply((), (), ())
    assert caught.value.code == "feast.process"


def test_what_is_published_is_as_feast_needs_it(tmp_path: Path) -> None:
    """From a source with null and repeated keys: microseconds of UTC, nothing null that tells rows apart, none twice."""
    write_world(tmp_path)
    run(tmp_path, [T, T + DAY], features=RAW)
    stamp = pl.Datetime("us", "UTC")
    for path in (tmp_path / "features").rglob("*.parquet"):
        frame = pl.read_parquet(path)
        assert (frame.schema["event_timestamp"], frame.schema["created_timestamp"]) == (stamp, stamp)
        told = frame.select("user_id", "event_timestamp", "created_timestamp")
        assert told.null_count().row(0) == (0, 0, 0)
        assert not told.select("user_id", "event_timestamp").is_duplicated().any()


def test_feast_added_later_loads_what_was_published_before(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, T, features=RAW)
    write_world(tmp_path, users=USERS.filter(pl.col("id") != "u3"))
    run(tmp_path, T + DAY, features=RAW, feast={**FEAST, "deleted": "keep"})
    assert online(tmp_path, ["u1", "u2", "u3"]) == newest(tmp_path)

"""A run with a feast section: the online store equals the newest offline row, whatever the order of runs."""

from __future__ import annotations

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


def test_feast_added_later_loads_what_was_published_before(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, T, features=RAW)
    write_world(tmp_path, users=USERS.filter(pl.col("id") != "u3"))
    run(tmp_path, T + DAY, features=RAW, feast={**FEAST, "deleted": "keep"})
    assert online(tmp_path, ["u1", "u2", "u3"]) == newest(tmp_path)

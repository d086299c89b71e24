"""Feast itself reads back what was published: real registry, real SQLite store, real DuckDB offline store."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import MissingExtra, SinkError
from engine.sinks.feast import FeatureRepo, OfflineView
from engine.sinks.online.config import read_config
from engine.sinks.online.load import load
from engine.sinks.online.store import open_store

OLD, MIDDLE, NEW = (datetime(2025, 3, 29 + i, 1, 30, 5, 250_000, tzinfo=UTC) for i in range(3))
FEATURES = (("score", "Float64"), ("tasks", "Int64"), ("level", "String"), ("active", "Boolean"))
USERS = ["u1", "é2", "用户3", "with space", "u5"]


def rows(key: str, keys: list[Any], as_of: datetime) -> pl.DataFrame:
    """A published file: values differ by as-of, with nulls and a NaN; the last key is new at NEW."""
    known = keys if as_of == NEW else keys[:-1]
    step = as_of.day
    return pl.DataFrame(
        {
            key: known,
            "score": [float("nan"), None, *(step + i / 7 for i in range(2, len(known)))],
            "tasks": [step * 100 + i if i != 1 else None for i in range(len(known))],
            "level": [f"niveau {step}·{i}" if i != 2 else None for i in range(len(known))],
            "active": [None if i == 3 else (i + step) % 2 == 0 for i in range(len(known))],
            "event_timestamp": [as_of] * len(known),
            "created_timestamp": [as_of + timedelta(hours=2)] * len(known),
        },
        schema_overrides={"score": pl.Float64, "tasks": pl.Int64},
    ).with_columns(pl.col("event_timestamp", "created_timestamp").dt.cast_time_unit("us"))


class World:
    """Three views (two on one entity, one with integer keys) published under a root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.views = (
            OfflineView(
                "user_features",
                "user",
                "user_id",
                "String",
                FEATURES,
                root / "features/user_features",
                "Nutzer «ü»",
            ),
            OfflineView("user_extra", "user", "user_id", "String", FEATURES[:1], root / "features/user_extra"),
            OfflineView("task_features", "task", "task_id", "Int64", FEATURES, root / "features/task_features"),
        )
        self.repo = FeatureRepo(root / "feature_repo", "work_tracking")

    def publish(self, *moments: datetime) -> None:
        """Publishes, registers and loads as a run does."""
        for view in self.views:
            for as_of in moments:
                folder = view.path / f"event_date={as_of:%Y-%m-%d}"
                folder.mkdir(parents=True, exist_ok=True)
                keys = USERS if view.entity == "user" else [1, -2, 3, 2**53 + 1, 5]
                rows(view.key, keys, as_of).write_parquet(folder / f"part-{as_of:%Y%m%dT%H%M%SZ}.parquet")
        self.repo.apply(self.views)
        with open_store(read_config(self.repo.folder), self.repo) as store:
            for view in self.views:
                fresh = [path for as_of in moments for path in view.path.rglob(f"*-{as_of:%Y%m%dT%H%M%SZ}.parquet")]
                load(store, view, fresh, memory_limit="512MiB", spill=self.root / "spill")

    def offline(self, view: OfflineView) -> pl.DataFrame:
        return pl.read_parquet(view.path / "**/*.parquet", hive_partitioning=False).fill_nan(None)

    def store(self) -> Any:
        from feast import FeatureStore

        return FeatureStore(repo_path=str(self.repo.folder))


@pytest.fixture(autouse=True)
def _feast_warnings() -> Iterator[None]:
    """The tests call Feast directly too; its own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Published: OLD and NEW, then MIDDLE as a backfill."""
    world = World(tmp_path_factory.mktemp("project"))
    world.publish(OLD, NEW)
    world.publish(MIDDLE)
    return world


@pytest.fixture
def copy(world: World, tmp_path: Path) -> World:
    """The same project, moved to another folder; the old place is unknown to it."""
    shutil.copytree(world.root, tmp_path / "moved project")
    return World(tmp_path / "moved project")


def newest(world: World, view: OfflineView) -> list[dict[str, Any]]:
    frame = world.offline(view).sort("event_timestamp").unique(view.key, keep="last", maintain_order=True)
    return frame.select(view.key, *(name for name, _ in view.features)).rows(named=True)


def assert_online_is_newest(world: World) -> None:
    for view in world.views:
        expected = newest(world, view)
        assert len(expected) == 5
        assert world.repo.online(view.name, [row[view.key] for row in expected]) == expected


def test_online_equals_the_newest_offline_row_also_after_a_backfill(world: World) -> None:
    assert_online_is_newest(world)


def test_online_rows_come_in_the_order_asked_with_the_features_asked(world: World) -> None:
    got = world.repo.online("task_features", [3, 99, 3], ["tasks"])
    assert got == [
        {"task_id": 3, "tasks": 3102},
        {"task_id": 99, "tasks": None},
        {"task_id": 3, "tasks": 3102},
    ]
    assert world.repo.online("task_features", []) == []


def test_online_timestamp_is_the_as_of(world: World) -> None:
    answer = (
        world.store()
        .get_online_features(features=["user_features:tasks"], entity_rows=[{"user_id": "é2"}])
        .to_dict(include_event_timestamps=True)
    )
    assert answer["tasks__ts"] == [int(NEW.timestamp())]


def test_historical_features_equal_the_published_rows(world: World) -> None:
    view = world.views[0]
    offline = world.offline(view)
    names = [name for name, _ in view.features]
    asked = offline.select(view.key, "event_timestamp").to_pandas()
    job = world.store().get_historical_features(entity_df=asked, features=[f"{view.name}:{n}" for n in names])
    order = ["event_timestamp", view.key]
    got = pl.from_arrow(job.to_arrow()).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
    assert isinstance(got, pl.DataFrame)
    want = offline.select(view.key, "event_timestamp", *names).sort(order)
    assert got.fill_nan(None).select(want.columns).sort(order).equals(want)


def test_integers_with_nulls_are_exact_online_and_in_arrow_of_the_duckdb_store(tmp_path: Path) -> None:
    import pandas as pd
    from feast import FeatureStore

    from tests.online.world import T
    from tests.online.world import World as Online

    world = Online(tmp_path, {"whole": pl.Int64, "small": pl.Int32})
    keys = ["a", "b", "c"]
    world.publish({"user_id": keys, "whole": [2**53 + 1, None, 3], "small": [1, None, 2]})
    world.apply()
    world.by_ours()
    exact = [{"whole": 2**53 + 1, "small": 1}, {"whole": None, "small": None}, {"whole": 3, "small": 2}]
    assert world.repo.online("all", keys) == [{"user_id": key, **row} for key, row in zip(keys, exact, strict=True)]
    asked = pd.DataFrame({"user_id": keys, "event_timestamp": [T] * 3})
    found = {}
    for kind in ("duckdb", "file"):
        world.configure({"type": "sqlite", "path": "data/online_store.db"}, offline_store={"type": kind})
        store = FeatureStore(repo_path=str(world.repo.folder))
        job = store.get_historical_features(entity_df=asked, features=["all:whole", "all:small"])
        found[kind] = job.to_arrow().sort_by("user_id").select(["whole", "small"]).to_pylist()
        assert [str(t) for t in job.to_df()[["whole", "small"]].dtypes] == ["float64", "float64"]
    assert found["duckdb"] == exact
    assert found["file"] == [{"whole": float(2**53), "small": 1.0}, *exact[1:]], "Feast's dask store goes by floats"


def test_views_of_one_entity_share_it(world: World) -> None:
    store = world.store()
    assert sorted(e.name for e in store.list_entities()) == ["task", "user"]
    assert store.get_feature_view("user_extra").entities == store.get_feature_view("user_features").entities


def test_a_second_run_is_silent_and_changes_nothing(copy: World, capfd: pytest.CaptureFixture[str]) -> None:
    copy.publish(NEW)
    capfd.readouterr()
    before = (copy.repo.folder / "definitions.py").read_text(encoding="utf-8")
    copy.publish(NEW)
    assert capfd.readouterr() == ("", "")
    assert (copy.repo.folder / "definitions.py").read_text(encoding="utf-8") == before
    assert_online_is_newest(copy)


def test_a_moved_project_is_repointed_by_running_again(world: World, copy: World) -> None:
    source = "user_features_source"
    assert copy.store().get_data_source(source).path == str(world.views[0].path)
    copy.repo.apply(copy.views)
    assert copy.store().get_data_source(source).path == str(copy.views[0].path)
    copy.publish(NEW + timedelta(days=1))
    assert_online_is_newest(copy)


def test_a_removed_view_leaves_the_registry_and_what_others_registered_stays(copy: World) -> None:
    from feast import Entity, ValueType

    copy.store().apply([Entity(name="theirs", join_keys=["id"], value_type=ValueType.STRING)])
    copy.repo.apply(copy.views[1:2])
    store = copy.store()
    assert [v.name for v in store.list_feature_views()] == ["user_extra"]
    assert [s.name for s in store.list_data_sources()] == ["user_extra_source"]
    assert sorted(e.name for e in store.list_entities()) == ["theirs", "user"]
    with pytest.raises(SinkError, match="task_features does not exist"):
        copy.repo.online("task_features", [1])


def test_failures_of_feast_are_sink_errors_with_a_way_out(copy: World) -> None:
    with pytest.raises(SinkError, match="nope does not exist") as unknown:
        copy.repo.writer()("nope", rows("user_id", USERS, NEW))
    assert (unknown.value.code, unknown.value.exit_code) == ("feast.load", 3)
    assert unknown.value.fix
    with pytest.raises(SinkError, match="invalid literal") as key:
        copy.repo.online("task_features", ["not a number"])
    assert key.value.code == "feast.online"


# --- without Feast ---


def test_definitions_that_are_not_ours_are_never_overwritten(tmp_path: Path) -> None:
    world = World(tmp_path)
    theirs = world.repo.folder / "definitions.py"
    theirs.parent.mkdir()
    theirs.write_bytes(b"# mine \xff\n")
    world.repo.write(world.views)
    beside = world.repo.folder / "maestro_definitions.py"
    assert "user_features_view" in beside.read_text(encoding="utf-8")
    assert theirs.read_bytes() == b"# mine \xff\n"
    theirs.unlink()
    assert world.repo.definitions == beside, "two files with the same objects would be too many for Feast"
    theirs.write_bytes(b"# mine \xff\n")
    beside.write_text("# mine, too")
    with pytest.raises(SinkError, match=r"choose another feast\.repo") as error:
        world.repo.write(world.views)
    assert (error.value.code, error.value.where) == ("feast.not_ours", str(beside))
    assert theirs.read_bytes() == b"# mine \xff\n"


def test_a_configuration_that_is_not_ours_stays_and_must_be_of_the_project(tmp_path: Path) -> None:
    world = World(tmp_path)
    theirs = world.repo.folder / "feature_store.yaml"
    theirs.parent.mkdir()
    theirs.write_text("project: another\nregistry: data/registry.db\n")
    with pytest.raises(SinkError, match="the project 'another'") as error:
        world.repo.write(world.views)
    assert (error.value.code, error.value.where) == ("feast.project", str(theirs))
    theirs.write_text("project: work_tracking # mine\nregistry: data/registry.db\n")
    world.repo.write(world.views)
    assert theirs.read_text() == "project: work_tracking # mine\nregistry: data/registry.db\n"
    assert (world.repo.folder / "definitions.py").exists()


def test_definitions_find_data_beside_the_repo_from_their_own_place_and_other_data_where_it_is(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "project")
    elsewhere = dataclasses.replace(world.views[2], path=tmp_path / "lake" / "tasks")
    world.repo.write([world.views[0], elsewhere])
    text = (world.repo.folder / "definitions.py").read_text(encoding="utf-8")
    assert 'path=str((HERE / "../features/user_features").resolve())' in text
    assert f'path="{tmp_path / "lake" / "tasks"}"' in text
    assert str(tmp_path / "project") not in text
    assert sorted(p.name for p in world.repo.folder.iterdir()) == ["definitions.py", "feature_store.yaml"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key_dtype": "Date"}, "feast.key_type"),
        ({"key": "id"}, "feast.entity"),
        ({"features": (("when", "Datetime"),)}, "feast.feature_type"),
        ({"path": Path("/data[1]/features")}, "feast.path"),
    ],
)
def test_what_feast_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    world = World(tmp_path)
    with pytest.raises(SinkError) as error:
        world.repo.write([world.views[0], dataclasses.replace(world.views[1], **change)])
    assert error.value.code == code
    assert error.value.fix
    assert not world.repo.folder.exists()


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (pl.lit(7, pl.Int64).alias("score"), "Int64"),
        (pl.col("tasks").cast(pl.Int32), "Int32"),
        (None, "absent"),
    ],
)
def test_files_that_feast_would_misread_are_refused(tmp_path: Path, column: pl.Expr | None, found: str) -> None:
    """Feast takes the columns of a view's first file for all: a later 0.25 would come back as 0."""
    world = World(tmp_path)
    view = world.views[0]
    view.path.mkdir(parents=True)
    good = rows("user_id", USERS, NEW)
    good.write_parquet(view.path / "new.parquet")
    odd = view.path / "event_date=2025-03-29" / "part.parquet"
    odd.parent.mkdir()
    (good.drop("level") if column is None else good.with_columns(column)).write_parquet(odd)
    with pytest.raises(SinkError, match=f"1 of 2 published files.* is {found} instead of") as error:
        world.repo.write(world.views)
    assert (error.value.code, error.value.where) == ("feast.mixed_files", str(odd))
    assert not world.repo.folder.exists()
    odd.write_bytes(b"PAR1")
    with pytest.raises(SinkError, match="cannot be read"):
        world.repo.write(world.views)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "feature_repo").write_text("a file", encoding="utf-8")
    world = World(tmp_path)
    with pytest.raises(SinkError, match="cannot write the file") as error:
        world.repo.write(world.views)
    assert error.value.code == "feast.unwritable"


def test_without_feast_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.repo.write(world.views)
    monkeypatch.setitem(sys.modules, "feast", None)
    with pytest.raises(MissingExtra, match=r"pip install 'maestro-engine\[feast\]'"):
        world.repo.apply(world.views)


def test_importing_the_module_does_not_import_feast() -> None:
    code = "import sys, engine.sinks.feast; raise SystemExit('feast' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

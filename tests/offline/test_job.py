"""What Feast does with the rows: on-demand features, saved data sets, materialize; and where the files may lie."""

from __future__ import annotations

import sqlite3
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from engine.errors import SinkError, UsageError
from engine.features import past
from engine.join import Join
from engine.offline_source import Source
from tests.offline.test_store import ROWS, STATS, asked, entities, repo, rows_of  # noqa: F401
from tests.offline.world import HOUR, OURS, Made, Repo, T, defined, write
from tests.online.test_bytes import everything
from tests.online.world import World
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph


def storage(path: Path | str, **more: Any) -> Any:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    return SavedDatasetFileStorage(path=str(path), **more)


def on_demand(view: Any) -> Any:
    """``more``: the trips, and what comes with the request, and both together."""
    from feast import Field, RequestSource
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64, Int64

    request = RequestSource(name="request", schema=[Field(name="bonus", dtype=Int64)])
    schema = [Field(name="with_bonus", dtype=Float64), Field(name="twice", dtype=Float64)]

    @on_demand_feature_view(sources=[view, request], schema=schema, mode="pandas")
    def more(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"with_bonus": rows["rate"] + rows["bonus"], "twice": rows["rate"] * 2})

    return more


def test_on_demand_features_also_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, STATS)
    made = Repo(tmp_path)
    view = defined(tmp_path, STATS)
    made.apply([view, on_demand(view)])
    frame = entities(bonus=[1] * len(ROWS))
    for full in (False, True):
        job = asked(made, frame, features=("more:with_bonus", "stats:trips"), full_feature_names=full)
        prefix = {"with_bonus": "more__with_bonus", "trips": "stats__trips"} if full else {}
        whole = job.to_df()
        assert whole[prefix.get("with_bonus", "with_bonus")].dropna().tolist() == pytest.approx([1.1, 1.3, 1.4])
        assert prefix.get("trips", "trips") in whole
        assert "twice" not in whole
        assert "more__twice" not in whole
        monkeypatch.setattr(Join, "_size", lambda *_: 2)
        target = tmp_path / f"saved-{full}.parquet"
        job.persist(storage(target))
        monkeypatch.undo()
        pd.testing.assert_frame_equal(pq.read_table(target).to_pandas(), whole)


def test_saved_data_sets(repo: Repo, tmp_path: Path) -> None:  # noqa: F811
    from feast.errors import SavedDatasetLocationAlreadyExists

    job = asked(repo)
    target = tmp_path / "deep" / "set.parquet"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = repo.store().create_saved_dataset(from_=job, name="set", storage=storage(target))
    assert pq.read_table(target).to_pylist() == rows_of(job)
    assert sorted(saved.to_df()["rate"].dropna()) == [0.1, 0.3, 0.4]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage(target))
    asked(repo, entities(ROWS[:2])).persist(storage(target), allow_overwrite=True)
    assert pq.read_table(target).num_rows == 2
    for count in (7, 3):
        asked(repo, entities(ROWS[:count])).persist(storage("folder"), allow_overwrite=True)
        folder = tmp_path / "repo-0" / "folder"
        assert [pq.read_table(file).num_rows for file in folder.iterdir()] == [count], "in the repo, and only once"
    assert list(tmp_path.glob("**/.*.parquet")) == []
    with pytest.raises(UsageError, match="SavedDatasetFileStorage"):
        job.persist(None)


def test_views_without_entities(tmp_path: Path) -> None:
    rows = [{"at": T + n * HOUR, "created": T, "n": n} for n in range(3)]
    view = Made("world", {}, {"n": pl.Int64}, [rows], ttl=5 * HOUR)
    write(tmp_path, view)
    made = Repo(tmp_path)
    made.apply([defined(tmp_path, view)])
    frame = pd.DataFrame({"event_timestamp": [T - HOUR, T, T + 2 * HOUR, T + 9 * HOUR]})
    job = made.store().get_historical_features(entity_df=frame, features=["world:n"])
    assert [row["n"] for row in rows_of(job)] == [None, 0, 2, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.store().materialize(T, T + HOUR)
    assert made.store().get_online_features(features=["world:n"], entity_rows=[{"__dummy_id": ""}]).to_dict()["n"] == [
        1
    ]


def test_several_views_of_one_entity_and_files_without_created(tmp_path: Path) -> None:
    other = Made("other", STATS.keys, {"rate": pl.Float64}, [[{"driver": 1, "at": T, "rate": 7.0}]], created=False)
    write(tmp_path, STATS)
    write(tmp_path, other)
    made = Repo(tmp_path)
    made.apply([defined(tmp_path, STATS), defined(tmp_path, other)])
    found = rows_of(asked(made, features=("other:rate", "stats:rate"), full_feature_names=True))
    assert [row["other__rate"] for row in found] == [None, None, 7.0, None, 7.0, None, None]
    assert [row["stats__rate"] for row in found] == [None, None, 0.1, None, 0.3, 0.4, None]


@pytest.mark.parametrize("latest", [False, True])
def test_materialize_stores_what_it_does_with_feasts_own_store(tmp_path: Path, latest: bool) -> None:
    """Byte by byte, for every publishable type."""
    world = everything(World(tmp_path))
    options = {"type": "sqlite", "path": "online.db"}
    stored = []
    for kind in ("duckdb", OURS):
        world.configure(options, offline_store={"type": kind}, materialization={"pull_latest_features": latest})
        world.apply()
        world.by_feast()
        stored.append(world.dump_sqlite())
        world.empty_sqlite()
    assert stored[0] == stored[1]


def test_materialize_incremental(tmp_path: Path) -> None:
    whole = replace(STATS, files=[[{**row, "created": row["created"] or T} for row in rows] for rows in STATS.files])
    write(tmp_path, whole)
    made = Repo(tmp_path)  # Feast's SQLite takes no null for when a row was created
    made.apply([defined(tmp_path, whole)])

    def stored() -> dict[Any, Any]:
        found = made.store().get_online_features(features=["stats:rate"], entity_rows=[{"driver": 1}, {"driver": 2}])
        values: list[Any] = found.to_dict()["rate"]
        return dict(zip((1, 2), values, strict=True))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.store().materialize(T - HOUR, T)
        assert stored() == {1: 0.1, 2: 0.9}
        made.store().materialize_incremental(T + HOUR)
        assert stored() == {1: 0.1, 2: 0.4}
        made.store().materialize_incremental(T + 2 * HOUR)
    path = made.folder / "repo-0" / "online.db"
    connection = sqlite3.connect(path)
    [(rows,)] = connection.execute("SELECT count(*) FROM worlds_stats").fetchall()
    connection.close()
    assert (stored(), rows) == ({1: 0.3, 2: 0.4}, 4)


@pytest.fixture
def in_store(ceph_server: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Repo, Ceph]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    write(tmp_path, STATS)
    files = ceph_server.store()
    for number in range(2):
        files.put_file(str(tmp_path / "stats" / f"{number}.parquet"), f"{BUCKET}/offline/day={number}/x.parquet")
    files.put_file(str(tmp_path / "stats" / "1.parquet"), f"{BUCKET}/offline/.staged/x.parquet")
    return Repo(tmp_path), ceph_server


@pytest.mark.parametrize("path", ["offline", "offline/", "offline/*/*.parquet", "offline/day=0/x.parquet", "nowhere"])
def test_files_in_s3(in_store: tuple[Repo, Ceph], tmp_path: Path, path: str) -> None:
    made, server = in_store
    where = f"s3://{BUCKET}/{path}"
    made.apply([defined(tmp_path, STATS, where, s3_endpoint_override=server.url)])
    if path == "nowhere":
        with pytest.raises(Exception, match="no Parquet file"):
            asked(made).to_df()
        return
    rates = [row["rate"] for row in rows_of(asked(made))]
    assert rates == [None, None, 0.1, None, 0.3, 0.4, None]
    if path == "offline":
        target = storage(f"s3://{BUCKET}/saved/set.parquet", s3_endpoint_override=server.url)
        asked(made).persist(target)
        with server.store().open(f"{BUCKET}/saved/set.parquet") as file:
            assert pq.read_table(file).num_rows == len(ROWS)


def test_what_the_engine_published_is_looked_up_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, {"n": pl.Int64}, key=pl.Int64)
    for hour in range(3):
        world.publish({"user_id": [1, 2], "n": [hour, None]}, T + hour * HOUR)
    world.configure({"type": "sqlite", "path": "o.db"}, offline_store={"type": OURS})
    world.apply()
    from feast import FeatureStore

    read: list[Path] = []
    values = past._put_values
    monkeypatch.setattr(
        past, "_put_values", lambda p, part, *a, **k: read.append(part.fetch()) or values(p, part, *a, **k)
    )
    store = FeatureStore(repo_path=str(world.repo.folder))
    frame = pd.DataFrame({"user_id": [1, 1, 2], "event_timestamp": [T, T + 2 * HOUR + timedelta(minutes=1), T]})
    job = store.get_historical_features(entity_df=frame, features=["all:n"])
    assert [row["n"] for row in rows_of(job)] == [0, 2, None]
    assert sorted(world.paths.index(path) for path in read) == [0, 2], "only files that hold something, in any order"
    monkeypatch.setattr(
        past, "_put_values", lambda p, part, *a, **k: _publish_again(world, part) or values(p, part, *a, **k)
    )
    with pytest.raises(SinkError, match="published again meanwhile"):
        job.to_df()


def _publish_again(world: World, part: Any) -> None:
    path = part.fetch()
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def test_sources_of_other_kinds_are_refused(tmp_path: Path) -> None:
    from feast import FileSource
    from feast.data_format import DeltaFormat

    source = FileSource(name="d", path="x", file_format=DeltaFormat(), timestamp_field="at")
    with pytest.raises(UsageError, match="is a DeltaFormat"):
        Source(source, None, tmp_path)


def test_a_column_that_is_not_there_is_named(repo: Repo, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "stats" / "0.parquet").unlink()
    pl.read_parquet(tmp_path / "stats" / "1.parquet").rename({"rate": "ratee"}).write_parquet(
        tmp_path / "stats" / "1.parquet"
    )
    with pytest.raises(UsageError, match="no column 'rate'") as caught:
        asked(repo).to_df()
    assert "ratee" in str(caught.value)

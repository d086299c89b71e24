"""Published output in an object store (Ceph), as Feast has it: registered, read back, loaded, proven."""

from __future__ import annotations

import json
import uuid
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.online import get, materialize
from engine.registration import apply, diff
from tests.run.world import DAY, T, pipeline, run, write_world
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph


def test_published_output_in_a_store_is_usable_by_feast(
    tmp_path: Path, ceph_server: Ceph, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"s3://{BUCKET}/feast-{uuid.uuid4().hex[:8]}/features"
    output = {"path": where, "endpoint_url": ceph_server.url, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    sections: dict[str, Any] = {"output": output, "feast": {"repo": "./repo", "project": "small"}}
    (tmp_path / "repo").mkdir()
    whole = {"project": "small", "provider": "local", "registry": "data/registry.db", "online_store": "sqlite"}
    configuration = {**whole, "offline_store": {"type": "file"}, "entity_key_serialization_version": 3}
    (tmp_path / "repo" / "feature_store.yaml").write_text(json.dumps(configuration))
    write_world(tmp_path)
    report = run(tmp_path, [T, T + DAY], **sections)
    assert report.feast is not None
    [loaded] = report.feast["materialized"]
    assert (loaded["rows"], loaded["proven"]) == (3, 3)
    assert not list((tmp_path / ".maestro" / "spill").glob("published-*")), "copies are gone"
    text = (tmp_path / "repo" / "definitions.py").read_text()
    assert f'path="{where}/user_features"' in text
    assert f's3_endpoint_override="{ceph_server.url}"' in text
    for file in (tmp_path / "repo").rglob("*"):
        assert not file.is_file() or SECRET_KEY.encode() not in file.read_bytes()
    declared = pipeline(tmp_path, **sections)
    assert diff(declared).is_current
    assert apply(declared).differences == ()
    names = list(ceph_server.store().find(where.removeprefix("s3://")))
    frames = [pl.read_parquet(ceph_server.store().cat_file(name)) for name in names]
    published = pl.concat(frames).drop("created_timestamp").sort("event_timestamp", "user_id")
    newest = published.filter(pl.col("event_timestamp") == T + DAY).drop("event_timestamp")
    assert get(declared, "user_features", newest["user_id"].to_list()) == newest.to_dicts()
    [again] = materialize(declared, full=True, proof=None)
    assert (again.rows, again.proven) == (3, 3)
    # As a user's process does it, with no more than the environment of Amazon's clients.
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }.items():
        monkeypatch.setenv(name, value)
    from feast import FeatureStore

    asked = published.select("user_id", "event_timestamp").to_pandas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = FeatureStore(repo_path=str(tmp_path / "repo"))
        job = store.get_historical_features(
            entity_df=asked, features=["user_features:bug_rate", "user_features:tasks_completed_30d"]
        )
        found = pl.DataFrame(pl.from_pandas(job.to_df()))
    want = published.select("user_id", "event_timestamp", "bug_rate", "tasks_completed_30d")
    for name in ("bug_rate", "tasks_completed_30d"):
        assert found.sort("event_timestamp", "user_id")[name].cast(pl.Float64).fill_nan(None).to_list() == (
            want[name].cast(pl.Float64).to_list()
        )

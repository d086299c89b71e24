"""What a feature service serves keeps the fit that its model was trained with, and another view lives beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.backfilling import backfill
from engine.errors import SinkError, UsageError
from engine.ledger import Ledger
from engine.online import get
from engine.serving import check
from engine.training import write_training_set
from tests.run.test_fit import users
from tests.run.world import DAY, T, pipeline, run, write_world

FIRST: dict[str, Any] = {"handle_missing": "impute", "normalize": True, "features": ["experience_years"]}
SECOND = {**FIRST, "set": "user"}
SECTIONS: dict[str, Any] = {
    "features": {"user_features": FIRST},
    "feast": {"repo": "./repo", "project": "small", "services": {"first": {"features": ["user_features:*"]}}},
}
READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
from feast import FeatureStore

store = FeatureStore(repo_path=sys.argv[1])
rows = [{"user_id": key} for key in json.loads(sys.argv[2])]
found = {s.name: store.get_online_features(features=s, entity_rows=rows).to_dict() for s in store.list_feature_services()}
sys.stdout.write(json.dumps([found, "engine" in sys.modules]))
"""


def declared(view: dict[str, Any] = FIRST, **service: Any) -> dict[str, Any]:
    services = {"first": {**SECTIONS["feast"]["services"]["first"], **service}}
    return {"features": {"user_features": view}, "feast": {**SECTIONS["feast"], "services": services}}


def trained(folder: Path, sections: dict[str, Any], view: str, moment: Any, count: int) -> dict[str, float | None]:
    """The rows of a training set, written beside, by key."""
    rows = [(f"u{i}", moment) for i in range(count)]
    schema = {"user_id": pl.String, "event_timestamp": pl.Datetime("us", "UTC")}
    entities, path = folder / "entities.parquet", folder / f"{view}.parquet"
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(entities)
    write_training_set(pipeline(folder, **sections), entities, path, features=f"{view}:*")
    return dict(pl.read_parquet(path).select("user_id", "experience_years").iter_rows())


def online(folder: Path) -> list[float | None]:
    return [row["experience_years"] for row in get(pipeline(folder, **SECTIONS), "user_features", ["u0", "u1"])]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A view that is served, as of T."""
    write_world(tmp_path, users=users(0.0, 10.0))
    run(tmp_path, T, **SECTIONS)
    return tmp_path


def test_a_second_view_is_fitted_anew_and_both_models_are_served_what_they_were_trained_on(world: Path) -> None:
    first = trained(world, SECTIONS, "user_features", T, 2)
    assert first == {"u0": 0.0, "u1": 1.0}
    write_world(world, users=users(0.0, 10.0, 20.0))
    services = {**SECTIONS["feast"]["services"], "second": {"features": ["user_features_v2:*"]}}
    both = {
        "features": {"user_features": FIRST, "user_features_v2": SECOND},
        "feast": {**SECTIONS["feast"], "services": services},
    }
    run(world, T + DAY, **both)
    again = trained(world, both, "user_features", T, 2)
    assert again == first, "the old numbers did not move"
    made = pipeline(world, **both)
    assert check(made, world / "user_features.parquet") == []
    second = trained(world, both, "user_features_v2", T + DAY, 3)
    assert second == {"u0": 0.0, "u1": 0.5, "u2": 1.0}
    assert check(made, world / "user_features_v2.parquet") == []
    command = [sys.executable, "-c", READ, str(world / "repo"), json.dumps(["u0", "u1", "u2"])]
    found, has_engine = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=240).stdout)
    assert not has_engine
    assert found["second"] == {"user_id": [*second], "experience_years": [*second.values()]}
    assert found["first"]["experience_years"][:2] == [*first.values()]
    assert found["first"]["experience_years"][2] == 1.0, "beyond the pinned range"
    with pytest.raises(UsageError, match="the feature service first serves experience_years") as caught:
        run(world, T + DAY, refit=True, **both)
    assert caught.value.code == "fit.served"


def test_a_served_view_is_not_refitted_unless_its_service_follows(world: Path) -> None:
    write_world(world, users=users(0.0, 20.0))
    with pytest.raises(UsageError, match="a refit would make them anew") as caught:
        run(world, T + DAY, refit=True, **SECTIONS)
    assert (caught.value.code, caught.value.exit_code) == ("fit.served", 2)
    assert "user_features_v2" in str(caught.value.fix)
    assert "feast.services.first.refit: follow" in str(caught.value.fix)
    with pytest.raises(UsageError, match="a refit would make them anew"):
        backfill(pipeline(world, **SECTIONS), start=T, end=T + DAY, refit=True)
    with Ledger(world / ".maestro") as book:
        assert len(book.runs("small")) == 1, "nothing has begun"
    assert run(world, T + DAY, refit=True, **declared(refit="follow")).views[0].fit_version == 2
    assert online(world) == [0.0, 1.0]


def test_what_no_service_takes_may_be_refitted(world: Path) -> None:
    """Another view, and one of which nothing is fitted."""
    other = {"features": {"user_features": FIRST, "other": SECOND}, "feast": SECTIONS["feast"]}
    run(world, T, **other)
    backfill(pipeline(world, **other), start=T, end=T, views=["other"], refit=True)
    raw = {"user_features": {**FIRST, "handle_missing": "keep", "normalize": False}}
    write_world(world / "raw")
    for _ in range(2):
        run(world / "raw", T, refit=True, features=raw, feast=SECTIONS["feast"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"handle_missing": "zero"}, "handle_missing and normalize are zero and true now, and were impute and true"),
        ({"normalize": "robust"}, "impute and robust now"),
        ({"transforms": {"experience_years": ["log1p"]}}, "defined otherwise"),
    ],
)
def test_a_served_view_is_not_declared_otherwise(world: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        run(world, T + DAY, **declared({**FIRST, **change}))
    assert caught.value.code == "fit.served"
    assert run(world, T + DAY, **declared({**FIRST, **change}, refit="follow")).views[0].fit_version == 2


def test_what_adds_to_a_served_view_or_counts_for_a_first_fit_only_may_change(world: Path) -> None:
    more = {**FIRST, "features": ["experience_years", "bug_rate"], "fit_on": {"start": T - DAY, "end": T}}
    write_world(world, users=users(0.0, 20.0))
    run(world, T + DAY, **declared(more))
    assert online(world) == [0.0, 1.0], "clipped to the pinned range"


def test_a_first_value_is_fitted_although_it_is_served(tmp_path: Path) -> None:
    write_world(tmp_path, users=users(None, None))
    run(tmp_path, T, **SECTIONS)
    write_world(tmp_path, users=users(2.0, 4.0))
    run(tmp_path, T + DAY, **SECTIONS)
    assert online(tmp_path) == [0.0, 1.0]


@pytest.mark.parametrize("has_definitions", [True, False])
def test_a_lost_ledger_is_told_before_the_model_is_served_by_another_fit(world: Path, has_definitions: bool) -> None:
    before = online(world)
    shutil.rmtree(world / ".maestro")
    write_world(world, users=users(10.0, 30.0))
    error: type[Exception] = UsageError
    if not has_definitions:
        error = SinkError
        (world / "repo" / "definitions.py").unlink()
    with pytest.raises(error, match="other numbers than it was trained on") as caught:
        run(world, T + DAY, **SECTIONS)
    assert getattr(caught.value, "code", "") == ("fit.lost" if has_definitions else "fit.served")
    from engine.sinks.feast import FeatureRepo

    rows = FeatureRepo(world / "repo", "small").online("user_features", ["u0", "u1"])
    assert [row["experience_years"] for row in rows] == before
    run(world, T + DAY, **declared(refit="follow"))
    assert online(world) == [0.0, 1.0]

"""A refit in between: training sets and the online store say which fit made them, and do not mix two in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from engine import training_set
from engine.errors import DataError, UsageError
from engine.features.ways import FITS, TRAINED
from engine.online import get
from engine.serving import check
from engine.training import write_training_set
from tests.cli.conftest import Maestro, maestro  # noqa: F401 - a fixture
from tests.run.world import DAY, SOURCES, USERS, T, pipeline, run, write_world

FEATURES = {
    "user_features": {
        "features": ["bug_rate", "tasks_completed_30d", "experience_years"],
        "handle_missing": "impute",
        "transforms": {"tasks_completed_30d": ["minmax"], "bug_rate": []},
    }
}
SECTIONS: dict[str, Any] = {"features": FEATURES, "feast": {"repo": "./repo", "project": "small"}}
WANTED = "user_features:*"


def entities(folder: Path, *days: int) -> Path:
    rows = [(user, T + day * DAY) for day in days for user in ("u1", "u2", "u3")]
    path = folder / "entities.parquet"
    pl.DataFrame(
        rows, schema={"user_id": pl.String, "event_timestamp": pl.Datetime("us", "UTC")}, orient="row"
    ).write_parquet(path)
    return path


@pytest.fixture
def refitted(tmp_path: Path) -> Path:
    """As of T and the day after with a first fit, and two days after with another one."""
    write_world(tmp_path)
    run(tmp_path, T, **SECTIONS)
    run(tmp_path, T + DAY, **SECTIONS)
    write_world(tmp_path, users=USERS.with_columns(pl.col("experience_years") * 3 + 1))
    run(tmp_path, T + 2 * DAY, refit=True, **SECTIONS)
    return tmp_path


def marks(folder: Path) -> list[dict[str, str]]:
    files = sorted((folder / "features" / "user_features").rglob("*.parquet"))
    return [json.loads(pq.read_metadata(file).metadata[FITS.encode()]) for file in files]


def test_files_say_which_fit_made_each_column(refitted: Path) -> None:
    first, second, third = marks(refitted)
    assert first == second
    assert set(first) == {"tasks_completed_30d", "bug_rate", "experience_years"}
    assert {name for name in first if first[name] != third[name]} >= {"experience_years"}


def test_two_fits_are_not_mixed_in_silence(refitted: Path) -> None:
    made = pipeline(refitted, **SECTIONS)
    with pytest.raises(DataError, match=r"was refitted in between: the values of .*experience_years") as caught:
        write_training_set(made, entities(refitted, 0, 2), refitted / "set.parquet", features=WANTED)
    assert caught.value.code == "training.fits"
    assert "2025-10-04T00:00:00Z, 2025-10-06T00:00:00Z" in str(caught.value)
    assert not (refitted / "set.parquet").exists()
    mixed = training_set(made, entities(refitted, 0, 2), features=WANTED, mixed_fits=True).collect()
    assert mixed["experience_years"].null_count() == 0
    for days in ((0, 1), (2,)):
        written = write_training_set(made, entities(refitted, *days), refitted / "set.parquet", features=WANTED)
        told = json.loads(pq.read_metadata(written.path).metadata[TRAINED.encode()])
        assert told == written.fits == {"user_features": marks(refitted)[days[-1]]}
    run(refitted, [T, T + DAY], **SECTIONS)
    whole = training_set(made, entities(refitted, 0, 1, 2), features=WANTED).collect()
    assert whole.height == 9, "once the earlier as-ofs have the newest fit"


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return pl.read_parquet(folder / name).drop("event_timestamp").to_dicts()


def test_online_equals_what_was_trained_on_or_it_is_told(refitted: Path, maestro: Maestro) -> None:  # noqa: F811
    made = pipeline(refitted, **SECTIONS)
    write_training_set(made, entities(refitted, 1), refitted / "old.parquet", features=WANTED)
    write_training_set(made, entities(refitted, 2), refitted / "new.parquet", features=WANTED)
    online = get(made, "user_features", ["u1", "u2", "u3"])
    assert online == rows_of(refitted, "new.parquet")
    assert check(made, refitted / "new.parquet") == []
    assert online != rows_of(refitted, "old.parquet")
    wrong = check(made, refitted / "old.parquet")
    first, _, third = marks(refitted)
    assert sorted(row["feature"] for row in wrong) == sorted(wrong_names(first, third))
    assert all((row["trained"], row["online"]) == (first[row["feature"]], third[row["feature"]]) for row in wrong)
    text = {"version": 1, "name": "small", **SECTIONS, "sources": SOURCES}
    (refitted / "pipeline.yaml").write_text(json.dumps(text))
    said = maestro("online", "check", str(refitted / "pipeline.yaml"), "--trained", str(refitted / "old.parquet"))
    assert (said.code, said.out.count("was trained with fit")) == (1, len(wrong))
    said = maestro("online", "check", str(refitted / "pipeline.yaml"), "--trained", str(refitted / "new.parquet"))
    assert (said.code, said.out) == (0, "the online store was made with the fits of the training set\n")
    run(refitted, T + 3 * DAY, **SECTIONS)
    assert check(made, refitted / "new.parquet") == [], "without a refit the fit stays"


def wrong_names(first: dict[str, str], third: dict[str, str]) -> list[str]:
    return [name for name in FEATURES["user_features"]["features"] if first[name] != third[name]]  # type: ignore[attr-defined]


def test_what_cannot_be_told_is_said(refitted: Path) -> None:
    made = pipeline(refitted, **SECTIONS)
    with pytest.raises(UsageError, match="does not say which fits"):
        check(made, entities(refitted, 2))
    write_training_set(made, entities(refitted, 2), refitted / "new.parquet", features=WANTED)
    unloaded = {**SECTIONS, "feast": {**SECTIONS["feast"], "materialize": False}}
    path = next((refitted / "features").rglob("*20251006*.parquet"))
    pl.read_parquet(path).write_parquet(path)
    with pytest.raises(UsageError, match="does not say which fit it was made with"):
        check(pipeline(refitted, **unloaded), refitted / "new.parquet")


def test_through_feast_too(refitted: Path) -> None:
    """Our offline store reads it from the files alone; `persist` keeps it."""
    from feast import FeatureStore
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    path = refitted / "repo" / "feature_store.yaml"
    path.write_text(path.read_text().replace("type: duckdb", "type: engine.offline_store.MaestroOfflineStore"))
    store = FeatureStore(repo_path=str(refitted / "repo"))

    def job(*days: int) -> Any:
        frame = pl.read_parquet(entities(refitted, *days)).to_pandas()
        names = [f"user_features:{name}" for name in FEATURES["user_features"]["features"]]  # type: ignore[attr-defined]
        return store.get_historical_features(entity_df=frame, features=names)

    with pytest.raises(DataError, match="was refitted in between"):
        job(0, 2).to_arrow()
    assert json.loads(job(1).to_arrow().schema.metadata[TRAINED.encode()]) == {"user_features": marks(refitted)[0]}
    job(1).persist(SavedDatasetFileStorage(path=str(refitted / "old.parquet")))
    job(2).persist(SavedDatasetFileStorage(path=str(refitted / "new.parquet")))
    made = pipeline(refitted, **SECTIONS)
    assert check(made, refitted / "new.parquet") == []
    assert {row["feature"] for row in check(made, refitted / "old.parquet")} == set(
        wrong_names(marks(refitted)[0], marks(refitted)[2])
    )


def test_a_feature_service_names_its_fits(refitted: Path) -> None:
    """As a training set's footer does; so whoever has only Feast can compare them."""
    from feast import FeatureStore

    services = {"model": {"features": ["user_features:experience_years"], "tags": {"team": "growth"}}}
    sections = {**SECTIONS, "feast": {**SECTIONS["feast"], "services": services}}
    made = pipeline(refitted, **sections)
    run(refitted, T + 3 * DAY, **sections)
    tags = FeatureStore(repo_path=str(refitted / "repo")).get_feature_service("model").tags
    name = "experience_years"
    served = json.loads(tags[f"{FITS}.user_features"])
    assert (tags["team"], served) == ("growth", {name: marks(refitted)[-1][name]})
    for days, equal in ((1, False), (2, True)):
        features = [f"user_features:{name}"]
        trained = write_training_set(made, entities(refitted, days), refitted / "set.parquet", features=features).fits
        assert (trained["user_features"] == served) is equal

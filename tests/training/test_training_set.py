"""Training sets: their columns and names, the kinds of moments, what is read, mistakes, the command; equal to Feast's."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine import load_pipeline, run_pipeline, training_set
from engine.demo import world
from engine.errors import DataError, MaestroError, SinkError, UsageError
from engine.features import past
from engine.ledger import Ledger
from engine.published import Published
from engine.sinks.paths import part_path
from engine.training import write_training_set
from tests.cli.conftest import Maestro, maestro  # noqa: F401 - the fixture
from tests.training.oracle import UTC_US, File, T, pipeline, publish

DAY = timedelta(days=1)
DTYPES = {"a": pl.Int64, "b": pl.Float64, "c": pl.String}
KEYS = {"user_features": pl.String, "more": pl.String, "task_features": pl.Int64}


def rows(day: int, keys: Sequence[Any]) -> list[tuple[Any, datetime, dict[str, Any]]]:
    return [(key, T, {"a": day, "b": day / 4, "c": f"{key} on {day}"}) for key in keys]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = [File("user_features", T + n * DAY, rows(n, ["u1", "u2"])) for n in range(3)]
    files += [File("more", T + n * DAY, rows(10 + n, ["u1"])) for n in range(2)]
    files += [File("task_features", T, rows(0, [1, 2]))]
    publish(tmp_path, files, KEYS, DTYPES)
    return tmp_path


def made(folder: Path, entities: Any, features: Any = "user_features:a", **how: Any) -> pl.DataFrame:
    return training_set(pipeline(folder, how.pop("ttl", None)), entities, features=features, **how).collect()


def asked(*moments: Any, key: Any = "u1", **columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [key] * len(moments), "event_timestamp": list(moments), **columns})


def test_a_row_holds_from_its_own_moment_to_the_end_of_its_ttl(folder: Path) -> None:
    micro = timedelta(microseconds=1)
    moments = [T - micro, T, T + DAY - micro, T + DAY, T + 3 * DAY, T + 3 * DAY + micro]
    assert made(folder, asked(*moments))["a"].to_list() == [None, 0, 0, 1, 2, 2]
    assert made(folder, asked(*moments), ttl={"user_features": "1d"})["a"].to_list() == [None, 0, 0, 1, 2, None]
    longest = made(folder, asked(*moments), ttl={"user_features": "999999999w"})
    assert longest["a"].to_list() == [None, 0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([datetime(2025, 3, 30), None]),
        pl.Series([date(2025, 3, 30), None]),
        pl.Series(["2025-03-30", None]),
        pl.Series(["2025-03-30T02:00:00+02:00", None]),
        pl.Series([datetime(2025, 3, 30, 2, tzinfo=timezone(timedelta(hours=2))), None]).dt.convert_time_zone(
            "Asia/Tokyo"
        ),
        pl.Series([T + DAY - timedelta(hours=1), None]).dt.cast_time_unit("ns")
        + pl.Series([3_600 * 10**9], dtype=pl.Duration("ns")),
        pl.Series([T + DAY, None]).dt.cast_time_unit("ms"),
    ],
)
def test_moments_of_any_kind_are_read_in_utc_and_stay_as_they_are(folder: Path, column: pl.Series) -> None:
    frame = pl.DataFrame({"user_id": ["u1", "u1"], "at": column})
    found = made(folder, frame, timestamp="at")
    assert found["a"].to_list() == [1, None]
    assert_frame_equal(found.select(frame.columns), frame)


def test_nanoseconds_are_floored(folder: Path) -> None:
    just_before = pl.Series([int((T + DAY).timestamp()) * 10**9 - 1]).cast(pl.Datetime("ns"))
    assert made(folder, pl.DataFrame({"user_id": ["u1"], "event_timestamp": just_before}))["a"].to_list() == [0]


def test_all_columns_and_rows_come_back_in_their_order(folder: Path) -> None:
    frame = pl.DataFrame(
        {
            "^odd.*$": pl.Series(["x", "y", "x", None], dtype=pl.Categorical),
            "event_timestamp": [T + 2 * DAY, None, T, T + DAY],
            "user_id": ["u2", "u1", "unknown", "u1"],
            "created_timestamp": [[1], [], None, [2, 3]],
        }
    )
    found = made(folder, frame, ["user_features:c", "user_features:a"])
    assert_frame_equal(found.select(pl.nth(range(4))), frame)
    assert found.columns[4:] == ["c", "a"]
    assert found["c"].to_list() == ["u2 on 2", None, None, "u1 on 1"]
    assert made(folder, frame.clear(), "user_features:*").shape == (0, 7)


def test_names_that_are_there_twice_have_their_view_before_them(folder: Path) -> None:
    frame = asked(T, b=[0]).with_columns(pl.lit("2").alias("task_id"))
    found = made(folder, frame, "user_features:a,more:a,user_features:b,task_features:c")
    assert found.columns == [*frame.columns, "user_features__a", "user_features__b", "more__a", "c"]
    assert found.row(0)[len(frame.columns) :] == (0, 0.0, 10, "2 on 0")
    full = made(folder, frame, "user_features:c,task_features:*", full_names=True)
    expected = ["user_features__c", "task_features__a", "task_features__b", "task_features__c"]
    assert full.columns == [*frame.columns, *expected]


def test_only_files_that_can_match_are_read_and_only_once_the_frame_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    fetch = Published._fetch
    monkeypatch.setattr(Published, "_fetch", lambda self, name, sha256: read.append(name) or fetch(self, name, sha256))
    monkeypatch.setattr(past, "BATCH", 1)
    lazy = training_set(pipeline(folder, {"user_features": "1h"}), asked(T + DAY), features="user_features:*,more:*")
    assert not read
    assert lazy.select("user_id").collect().height == 1
    assert not read
    assert lazy.select("user_features__a").collect().item() == 1
    assert set(read) == {part_path("user_features", T + DAY).as_posix()}
    assert lazy.filter(pl.col("user_features__a") > 1).collect().is_empty()


def test_lazy_frames_pandas_and_files_are_taken_too(folder: Path) -> None:
    frame = asked(T + DAY, T)
    frame.write_parquet(folder / "entities.parquet")
    for entities in (frame.lazy(), frame.to_arrow(), frame.to_pandas(), folder / "entities.parquet"):
        assert made(folder, entities)["a"].to_list() == [1, 0]


def test_files_of_other_types_are_read_in_one_that_holds_all(folder: Path) -> None:
    """An imputed median may be a fraction: integers then become floats, and stay so in that file only."""
    fractions = [("u1", T, {"a": 0.5, "b": 1.0, "c": "x"})]
    publish(folder, [File("user_features", T + 3 * DAY, fractions)], KEYS, {**DTYPES, "a": pl.Float64})
    assert made(folder, asked(T, T + 3 * DAY))["a"].to_list() == [0.0, 0.5]


def test_rows_of_an_unfinished_run_are_left_out(folder: Path) -> None:
    with Ledger(folder / ".maestro") as ledger, ledger.lease("past"):
        ledger.begin("second", "past", [T], T, {})
        file = {
            "view": "user_features",
            "as_of": T + DAY,
            "path": "absent",
            "rows": 1,
            "definition": "",
            "sha256": None,
        }
        ledger.publishing("second", "past", {}, [{**file, "created_timestamp": T}])
    assert made(folder, asked(T + DAY))["a"].to_list() == [0]


@pytest.mark.parametrize(
    ("features", "code", "words"),
    [
        ("user_featurs:a", "training.view", "did you mean 'user_features'?"),
        ("user_features:aa", "training.feature", "did you mean 'a'?"),
        ("user_features", "training.reference", "write user_features:*"),
        ("user_features:", "training.reference", "view:feature"),
        (["user_features:a", ""], "training.reference", "names no feature"),
    ],
)
def test_features_that_are_not_there(folder: Path, features: Any, code: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(folder, asked(T), features)
    assert caught.value.code == code
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        (asked(T).rename({"user_id": "userid"}), "training.column", "did you mean 'userid'?"),
        (asked(T).rename({"event_timestamp": "at"}), "training.column", "--timestamp"),
        (asked(1), "training.timestamp", "Int64, which holds no moments"),
        (asked("soon"), "training.moment", "'soon' is no moment"),
        (asked(T, a=[1], user_features__a=[2]), "training.name", "'user_features__a'"),
    ],
)
def test_entity_rows_that_cannot_be_used(folder: Path, frame: pl.DataFrame, code: str, words: str) -> None:
    with pytest.raises(MaestroError) as caught:
        made(folder, frame)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_view_of_which_nothing_is_published(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        training_set(pipeline(tmp_path / "other"), asked(T), features="user_features:a")
    assert caught.value.code == "ledger.missing"
    with Ledger(folder / ".maestro") as ledger:
        name = next(file["path"] for file in ledger.published("past", "task_features"))
    (folder / "features" / name).unlink()
    with pytest.raises(DataError, match="maestro verify"):
        made(folder, asked(T).with_columns(task_id=1), "task_features:a")


def test_a_file_of_another_moment_is_refused(folder: Path) -> None:
    first, second = (folder / "features" / part_path("more", T + n * DAY) for n in range(2))
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError) as caught:
        made(folder, asked(T), "more:a")
    assert caught.value.code == "training.damaged"


def test_a_file_that_is_published_again_meanwhile_is_an_error(folder: Path) -> None:
    """Its rows may lie elsewhere in the new one."""
    lazy = training_set(pipeline(folder), asked(T), features="user_features:a")
    path = folder / "features" / part_path("user_features", T)
    frame = pl.read_parquet(path)
    path.unlink()
    frame.reverse().write_parquet(path)
    with pytest.raises(SinkError) as caught:
        lazy.collect()
    assert caught.value.code == "training.changed"


def test_keys_of_files_of_other_widths_compare_with_any_key(folder: Path) -> None:
    file = File("task_features", T + DAY, rows(1, [1, 2]))
    publish(folder, [file], {**KEYS, "task_features": pl.Int32}, DTYPES)
    frame = pl.DataFrame({"task_id": ["1", "2", "02", None], "event_timestamp": [T, T + DAY, T, T]})
    assert made(folder, frame, "task_features:a")["a"].to_list() == [0, 1, None, None]
    frame = frame.with_columns(task_id=pl.Series([1.0, 2.0, 1.5, float("nan")]))
    assert made(folder, frame, "task_features:a")["a"].to_list() == [0, 1, None, None]


def test_the_command_writes_a_file_or_shows_rows(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    maestro: Maestro,  # noqa: F811
) -> None:
    sources = (
        "users: {type: file, path: a.csv}, activities: {type: file, path: a.csv}, tasks: {type: file, path: a.csv}"
    )
    views = "user_features: {}, more: {set: user}, task_features: {}"
    (folder / "past.yaml").write_text(f"version: 1\nname: past\nsources: {{{sources}}}\nfeatures: {{{views}}}\n")
    monkeypatch.chdir(folder)
    asked(T + DAY, T - DAY).write_parquet("labels.parquet")
    command = [
        "training-set",
        "past.yaml",
        "--entities",
        "labels.parquet",
        "--features",
        "user_features:a,user_features:c",
    ]
    said = maestro(*command, "--out", "set.parquet", "--json")
    assert said.code == 0
    expected = {"file": "set.parquet", "rows": 2, "matched": {"user_features": 1}, "features": ["a", "c"], "fits": {}}
    assert json.loads(said.out) == expected
    assert pl.read_parquet("set.parquet")["c"].to_list() == ["u1 on 1", None]
    assert not list(folder.glob(".set*"))
    said = maestro(*command, "--json", "--limit", "1")
    assert json.loads(said.out) == [
        {"user_id": "u1", "event_timestamp": "2025-03-30T00:00:00Z", "a": 1, "c": "u1 on 1"}
    ]
    assert "u1 on 1" in maestro(*command).out
    assert "wrote 2 rows" in maestro(*command, "--out", "set.parquet").out
    said = maestro(*command[:-1], "user_feature:a", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (2, "training.view")


@pytest.mark.parametrize("out", ["set.csv", "labels.parquet", "absent/set.parquet"])
def test_files_that_cannot_be_written(folder: Path, out: str) -> None:
    labels = folder / "labels.parquet"
    asked(T).write_parquet(labels)
    before = labels.read_bytes()
    with pytest.raises(MaestroError) as caught:
        write_training_set(pipeline(folder), labels, folder / out, features="user_features:a")
    assert caught.value.code in ("training.out", "training.unwritable")
    assert labels.read_bytes() == before
    with pytest.raises(UsageError):
        write_training_set(pipeline(folder), str(folder / "lab*.parquet"), labels, features="user_features:a")
    asked("soon").write_parquet(labels)
    with pytest.raises(DataError, match="is no moment"):
        write_training_set(pipeline(folder), labels, folder / "set.parquet", features="user_features:a")
    assert not (folder / "set.parquet").exists()


def test_equal_to_what_feast_makes_of_the_demo(tmp_path: Path) -> None:
    """Its DuckDB store, where it is right: one row per key and moment, and keys that are known."""
    from feast import FeatureStore

    now = datetime(2026, 3, 12, 9, 30, tzinfo=UTC)
    world.build(tmp_path / "demo", now=now)
    text = (tmp_path / "demo" / "pipeline.yaml").read_text()
    text = text.replace("materialize: true", "materialize: false").replace(
        "user_features: {", "user_features: {ttl: 2d, "
    )
    (tmp_path / "demo" / "pipeline.yaml").write_text(text)
    declared = load_pipeline(tmp_path / "demo" / "pipeline.yaml")
    run_pipeline(declared, as_of=[now - n * DAY for n in (9, 6, 5)])
    keys = [
        pl.read_parquet(f"{tmp_path}/demo/features/{view}/**/*.parquet", columns=[key]).unique().sort(key).head(250)
        for view, key in (("user_features", "user_id"), ("task_features", "task_id"))
    ]
    frame = pl.concat(keys, how="horizontal").with_row_index("label")
    steps = pl.duration(minutes=pl.col("label") * 50)
    frame = frame.with_columns(event_timestamp=pl.lit(now - 9 * DAY).cast(UTC_US) + steps)
    names = ["user_features:tasks_completed_7d", "user_features:bug_rate", "task_features:complexity_score"]
    found = training_set(declared, frame, features=names).collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = FeatureStore(repo_path=str(tmp_path / "demo" / "feature_repo"))
        assert store.get_feature_view("user_features").ttl == 2 * DAY
        job = store.get_historical_features(entity_df=frame.to_pandas(), features=names)
        theirs = pl.DataFrame(job.to_arrow()).sort("label").select(found.columns)
    assert_frame_equal(found, theirs.cast(dict(found.schema)), check_exact=True)
    assert 0 < found["bug_rate"].null_count() < found.height
    assert found["complexity_score"].null_count() < found.height

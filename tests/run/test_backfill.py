"""A backfill publishes what as many single runs would, as-of by as-of, and goes on where it was killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine import backfill, published_frames, run_pipeline, scan_published, steps
from engine.backfilling import as_ofs, plan_backfill
from engine.errors import UsageError
from engine.features import FeatureExtractor
from engine.ledger import Ledger
from tests.run.world import DAY, UTC_US, T, pipeline

START, END = T - 6 * DAY, T
VIEWS = {
    "user_features": {"handle_missing": "impute", "normalize": True},
    "team_features": {"handle_missing": "keep", "normalize": False},
    "project_features": {"handle_missing": "zero", "normalize": False},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables for three of the sets, with facts around every as-of."""
    folder, rng = tmp_path_factory.mktemp("world"), random.Random(5)
    data = folder / "data"
    data.mkdir()
    users = [f"u{i}" for i in range(12)]

    def moment() -> datetime:
        return T - rng.randrange(0, 45) * DAY + rng.choice([0, 1, -1, 5_000_000]) * timedelta(microseconds=1)

    tables: dict[str, list[dict[str, Any]]] = {
        "users": [
            {"user_id": u, "experience_years": rng.random() * 9, "skills": rng.choice(["go", "sql,go", ""])}
            | {"created_at": rng.choice([None, T - 3 * DAY, T - 90 * DAY])}
            for u in users
        ],
        "activities": [
            {"user_id": rng.choice(users), "timestamp": moment(), "task_type": rng.choice(["backend", "devops"])}
            | {"completion_time": rng.random() * 9000, "collaborators": rng.sample(users, 2), "bugs_introduced": 1}
            for _ in range(400)
        ],
        "teams": [{"team_id": f"t{i}", "members": rng.sample(users, 4)} for i in range(4)],
        "projects": [{"project_id": f"p{i}", "team_members": users[:i], "budget": 9.0, "spent": 3.0} for i in range(4)],
        "tasks": [
            {"project_id": f"p{rng.randrange(4)}", "status": rng.choice(["blocked", "completed"])}
            | {"completed_at": rng.choice([None, moment()]), "deadline": moment(), "created_at": moment()}
            for _ in range(60)
        ],
    }
    moments = dict.fromkeys(("created_at", "timestamp", "completed_at", "deadline"), UTC_US)
    for name, rows in tables.items():
        known = {column: dtype for column, dtype in moments.items() if column in rows[0]}
        pl.DataFrame(rows, schema_overrides=known).write_parquet(data / f"{name}.parquet")
    return folder


def declared(folder: Path, world: Path, **changes: Any) -> Any:
    names = ("users", "activities", "teams", "projects", "tasks")
    sources = {name: {"type": "file", "path": str(world / "data" / f"{name}.parquet")} for name in names}
    return pipeline(folder, **{"sources": sources, "validation": {}, "features": VIEWS, **changes})


def rows(folder: Path) -> dict[str, pl.DataFrame]:
    """By path, what is published, but for when it was."""
    features = folder / "features"
    found = {
        path.relative_to(features).as_posix(): pl.read_parquet(path, hive_partitioning=False)
        for path in features.rglob("*.parquet")
    }
    return {path: frame.drop("created_timestamp") for path, frame in sorted(found.items())}


def assert_same(found: dict[str, pl.DataFrame], expected: dict[str, pl.DataFrame]) -> None:
    assert list(found) == list(expected)
    for path, frame in found.items():
        assert_frame_equal(frame, expected[path], rel_tol=1e-9, abs_tol=1e-9)


@pytest.fixture(scope="module")
def singles(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """What a run for each as-of publishes."""
    folder = tmp_path_factory.mktemp("singles")
    for as_of in as_ofs(START, END, "1d"):
        run_pipeline(declared(folder, world), as_of=as_of)
    return rows(folder)


@pytest.mark.parametrize("memory", ["512MiB", "64MiB"])
def test_equals_single_runs(world: Path, tmp_path: Path, singles: dict[str, pl.DataFrame], memory: str) -> None:
    report = backfill(declared(tmp_path, world, memory_limit=memory), start=START, end=END, every="1d")
    assert report.status == "done"
    assert [len(view.files) for view in report.views] == [7, 7, 7]
    assert_same(rows(tmp_path), singles)


def test_only_one_view(world: Path, tmp_path: Path, singles: dict[str, pl.DataFrame]) -> None:
    backfill(declared(tmp_path, world), start=START, end=END, views=["team_features"])
    assert_same(rows(tmp_path), {path: f for path, f in singles.items() if path.startswith("team_features/")})


def _killed(folder: Path, world: Path, step: str, count: int, resume: bool) -> None:
    left = count

    def hear(name: str) -> None:
        nonlocal left
        left -= name == step
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    steps.listener = hear
    span: dict[str, Any] = {"resume": True} if resume else {"start": START, "end": END}
    backfill(declared(folder, world), **span)


def in_child(*args: Any) -> int | None:
    child = multiprocessing.get_context("spawn").Process(target=_killed, args=args)
    child.start()
    child.join()
    return child.exitcode


@pytest.mark.parametrize(("step", "count"), [("files.recorded", 3), ("file.published", 9), ("files.published", 8)])
def test_killed_and_resumed(
    world: Path, tmp_path: Path, singles: dict[str, pl.DataFrame], step: str, count: int
) -> None:
    assert in_child(tmp_path, world, step, count, False) == -signal.SIGKILL
    done = count - (step != "files.published")
    assert len(rows(tmp_path)) == (count if step == "file.published" else done)
    report = backfill(declared(tmp_path, world), resume=True)
    assert report.status == "done"
    assert sum(view.resumed for view in report.views) == done
    assert sum(len(view.files) for view in report.views) == 21 - done
    assert_same(rows(tmp_path), singles)
    with Ledger(tmp_path / ".maestro") as ledger:
        assert {file["state"] for file in ledger.published("small")} == {"published"}
        assert len({file["created_timestamp"] for file in ledger.published("small")}) == 1
    assert not list(tmp_path.glob(".features.staging/*"))


def test_run_resumes_a_backfill_too(world: Path, tmp_path: Path, singles: dict[str, pl.DataFrame]) -> None:
    assert in_child(tmp_path, world, "files.published", 2, False) == -signal.SIGKILL
    report = run_pipeline(declared(tmp_path, world), resume=True)
    assert report.views[0].resumed == 2
    assert_same(rows(tmp_path), singles)


def test_killed_once_all_is_published(world: Path, tmp_path: Path, singles: dict[str, pl.DataFrame]) -> None:
    assert in_child(tmp_path, world, "files.published", 21, False) == -signal.SIGKILL
    report = backfill(declared(tmp_path, world), resume=True)
    assert [(view.resumed, view.files) for view in report.views] == [(7, [])] * 3
    assert_same(rows(tmp_path), singles)


def test_a_later_run_after_a_backfill_uses_its_fit(world: Path, tmp_path: Path) -> None:
    backfill(declared(tmp_path, world), start=START, end=END)
    run_pipeline(declared(tmp_path, world), as_of=T + DAY)
    other = shutil.copytree(tmp_path, tmp_path.parent / "other", ignore=shutil.ignore_patterns("features"))
    backfill(declared(other, world), start=START, end=T + DAY)
    assert_same(rows(tmp_path), rows(other))


def test_fitted_on_a_range(world: Path, tmp_path: Path) -> None:
    """The second to the fourth as-of are scaled to [0, 1] as one; others are clipped to that."""
    span = {"start": "2025-09-29", "end": T - 3 * DAY}
    views: dict[str, Any] = {"user_features": {"handle_missing": "keep", "normalize": True, "fit_on": span}}
    whole = declared(tmp_path, world, features=views)
    backfill(whole, start=START, end=END)
    raw = declared(tmp_path / "raw", world, features={"user_features": {"handle_missing": "keep", "normalize": False}})
    backfill(raw, start=START, end=END)
    fitted = scan_published(raw, "user_features", start=START + DAY, end=START + 3 * DAY)
    low, high = (
        fitted.select(pl.col("avg_completion_time_hours").min()).collect().item(),
        fitted.select(pl.max("avg_completion_time_hours")).collect().item(),
    )
    expected = scan_published(raw, "user_features").select(
        (pl.col("avg_completion_time_hours").clip(low, high) - low) / (high - low)
    )
    found = scan_published(whole, "user_features").select("avg_completion_time_hours")
    assert_frame_equal(found.collect(), expected.collect(), rel_tol=1e-9, abs_tol=1e-9)
    assert low < high


def test_published_frames(world: Path, tmp_path: Path) -> None:
    declaration = declared(tmp_path, world)
    assert list(published_frames(declaration, "user_features")) == []
    with pytest.raises(UsageError, match="nothing of 'user_features' is published"):
        scan_published(declaration, "user_features")
    backfill(declaration, start=START, end=END, every="2d")
    found = dict(published_frames(declaration, "user_features", start=START + DAY))
    assert list(found) == [START + 2 * DAY, START + 4 * DAY, START + 6 * DAY]
    for as_of, frame in found.items():
        assert frame.collect()["event_timestamp"].unique().to_list() == [as_of]
    whole = scan_published(declaration, "user_features").collect()
    assert whole["event_timestamp"].n_unique() == 4
    with pytest.raises(UsageError, match="no view 'user_feature'"):
        scan_published(declaration, "user_feature")


def test_frames_at_many_as_ofs_without_a_pipeline(world: Path) -> None:
    frames = {name: pl.read_parquet(world / "data" / f"{name}.parquet") for name in ("users", "activities")}
    extractor = FeatureExtractor()
    found = dict(extractor.extract_many("user", frames, [END, START, START + DAY]))
    assert list(found) == [START, START + DAY, END]
    for as_of, frame in found.items():
        alone = extractor.extract_user_features(frames["users"], frames["activities"], as_of)
        assert_frame_equal(frame, alone, rel_tol=1e-9, abs_tol=1e-9)
    view = {"entity": "user_id", "source": "activities", "timestamp": "timestamp", "aggregates": {"n": "count over 7d"}}
    counts = [(t, frame["n"].sum()) for t, frame in extractor.extract_many(view, frames, [START, END])]
    events = frames["activities"]["timestamp"]
    assert counts == [(t, ((events <= t) & (events > t - 7 * DAY)).sum()) for t in (START, END)]
    assert list(extractor.extract_many("user", frames, [])) == []


def test_as_ofs() -> None:
    day = datetime(2025, 3, 1, tzinfo=UTC)
    assert as_ofs("2025-03-01", "2025-03-02T11:00:00Z", "12h") == (day, day + DAY / 2, day + DAY)
    assert as_ofs(day, day, "1w") == (day,)


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"start": T, "end": T - DAY}, "lies before the start"),
        ({"start": "2000-01-01", "end": T, "every": "1m"}, "13,547,521 as-ofs"),
        ({"start": T}, "needs its first and its last as-of"),
        ({"start": T, "end": T, "resume": True}, "has its range already"),
        ({"resume": True}, "the last run is no backfill"),
        ({"start": T, "end": T, "views": ["user_feature"]}, "there is no view 'user_feature'"),
        ({"start": T, "end": T, "every": "1 day"}, "is not a duration"),
    ],
)
def test_mistakes(world: Path, tmp_path: Path, span: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        backfill(declared(tmp_path, world), **span)
    assert not (tmp_path / "features").exists()


def test_the_plan_says_how(world: Path, tmp_path: Path) -> None:
    plan = plan_backfill(declared(tmp_path, world), start=START, end=END)
    found = {view["name"]: view["aggregates"] for view in plan.to_dict()["views"]}
    assert set(found["user_features"]) == {"running"}
    assert set(found["project_features"]) == {"per as-of"}
    assert found["team_features"]["running"] == ["tasks_in_window", "activities_in_month", "shared_in_month"]
    assert len(plan.views[0].files) == 7

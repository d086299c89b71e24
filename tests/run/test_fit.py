"""Pinned fits: fitted once, reused, extended where they say nothing, refitted only when asked."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from engine.ledger import Ledger
from tests.run.world import DAY, T, published, run, write_world

SCALED = {"user_features": {"handle_missing": "impute", "normalize": True, "features": ["experience_years"]}}


def users(*years: float | None) -> pl.DataFrame:
    names = [f"u{i}" for i in range(len(years))]
    schema = {"id": pl.String, "experience_years": pl.Float64, "updated_at": pl.Int64}
    return pl.DataFrame({"id": names, "experience_years": years, "updated_at": range(len(years))}, schema=schema)


def values(folder: Path, moment: object) -> list[float | None]:
    return published(folder).filter(pl.col("event_timestamp") == moment)["experience_years"].to_list()


def test_later_runs_reuse_the_first_fit_and_count_what_it_clips(tmp_path: Path) -> None:
    write_world(tmp_path, users=users(0.0, 10.0, None))
    run(tmp_path, T, features=SCALED)
    assert values(tmp_path, T) == [0.0, 1.0, 0.5]
    write_world(tmp_path, users=users(5.0, 20.0, -1.0, None))
    report = run(tmp_path, T + DAY, features=SCALED)
    assert values(tmp_path, T + DAY) == [0.5, 1.0, 0.0, 0.5]
    assert values(tmp_path, T) == [0.0, 1.0, 0.5]
    [applied] = report.views[0].applied
    assert applied.clipped == {"experience_years": 2}
    assert applied.filled == {"experience_years": 1}
    assert report.views[0].fit_version == 1


def test_refit_is_explicit_and_makes_a_version(tmp_path: Path) -> None:
    write_world(tmp_path, users=users(0.0, 10.0))
    run(tmp_path, T, features=SCALED)
    write_world(tmp_path, users=users(0.0, 20.0))
    report = run(tmp_path, T + DAY, refit=True, features=SCALED)
    assert report.views[0].fit_version == 2
    write_world(tmp_path, users=users(0.0, 10.0))
    run(tmp_path, T + 2 * DAY, features=SCALED)
    assert values(tmp_path, T + 2 * DAY) == [0.0, 0.5]


def test_several_as_ofs_fit_on_the_earliest(tmp_path: Path) -> None:
    write_world(tmp_path, users=users(0.0, 10.0))
    run(tmp_path, [T + DAY, T], features=SCALED)
    with Ledger(tmp_path / ".maestro") as book:
        version, fit = book.fit("small", "user_features") or (0, {})
    assert version == 1
    assert fit["columns"]["experience_years"]["low"] == 0.0
    assert fit["columns"]["experience_years"]["high"] == 10.0
    assert fit["columns"]["experience_years"]["fill"] == 5.0


def test_a_column_without_values_is_fitted_when_it_has_some(tmp_path: Path) -> None:
    write_world(tmp_path, users=users(None, None))
    report = run(tmp_path, T, features=SCALED)
    assert values(tmp_path, T) == [None, None]
    assert report.views[0].applied[0].all_null == ("experience_years",)
    write_world(tmp_path, users=users(2.0, 4.0, None))
    report = run(tmp_path, T + DAY, features=SCALED)
    assert values(tmp_path, T + DAY) == [0.0, 1.0, 0.5]
    assert report.views[0].fit_version == 2


def test_a_feature_added_later_is_fitted_then_and_the_others_keep_their_fit(tmp_path: Path) -> None:
    write_world(tmp_path, users=users(0.0, 10.0))
    run(tmp_path, T, features=SCALED)
    write_world(tmp_path, users=users(0.0, 20.0))
    more = {"user_features": {**SCALED["user_features"], "features": ["experience_years", "bug_rate"]}}
    run(tmp_path, T, features=more)
    assert values(tmp_path, T) == [0.0, 1.0]
    with Ledger(tmp_path / ".maestro") as book:
        fit = (book.fit("small", "user_features") or (0, {}))[1]
    assert fit["columns"]["experience_years"]["high"] == 10.0
    assert set(fit["columns"]) == {"experience_years", "bug_rate"}


@pytest.mark.parametrize(
    ("missing", "expected"), [("impute", [1.0, 2.0, 3.0]), ("zero", [1.0, 0.0, 3.0]), ("keep", [1.0, None, 3.0])]
)
def test_missing_values(tmp_path: Path, missing: str, expected: list[float | None]) -> None:
    write_world(tmp_path, users=users(1.0, None, 3.0))
    features = {"user_features": {"handle_missing": missing, "normalize": False, "features": ["experience_years"]}}
    run(tmp_path, features=features)
    assert values(tmp_path, T) == expected


def test_dropped_rows_are_counted(tmp_path: Path) -> None:
    write_world(tmp_path, users=users(1.0, None, 3.0))
    features = {"user_features": {"handle_missing": "drop", "normalize": False, "features": ["experience_years"]}}
    report = run(tmp_path, features=features)
    assert values(tmp_path, T) == [1.0, 3.0]
    assert report.views[0].applied[0].dropped == 1
    assert report.views[0].rows == [2]

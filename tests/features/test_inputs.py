"""How the columns of a table are read: lists of any spelling, keys of any type, what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataError
from engine.features import FeatureExtractor

T = "2025-10-04"
USERS = pl.DataFrame({"user_id": [1, 2], "skills": ["sql", "sql,go"], "experience_years": [1.0, 3.0]})


def team(members: Any, users: pl.DataFrame = USERS) -> dict[str, Any]:
    teams = pl.DataFrame({"team_id": ["t"], "members": members})
    return FeatureExtractor().extract_team_features(teams, users, as_of=T).row(0, named=True)


@pytest.mark.parametrize(
    "members",
    [
        ["1,2"],
        [" 1 ,, 2,"],
        [["1", "2"]],
        [[1, 2]],
        [[1.0, 2.0]],
        [[1.0, None, 2.0]],
        pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)),
    ],
)
def test_a_list_may_be_spelt_in_many_ways(members: Any) -> None:
    row = team(members)
    assert (row["team_size"], row["skill_diversity"], row["avg_experience_years"]) == (2, 2, 2.0)


@given(st.lists(st.none() | st.text("ab,é \t\x01\x1c\x1f\x85\u2003\u3000\u200b", max_size=6), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_texts_are_split_and_stripped_as_python_does(texts: list[str | None]) -> None:
    teams = pl.DataFrame(
        {"team_id": [str(i) for i in range(len(texts))], "members": texts}, schema_overrides={"members": pl.String}
    )
    found = FeatureExtractor().extract_team_features(teams, USERS, as_of=T)
    sizes = {row["team_id"]: row["team_size"] for row in found.iter_rows(named=True)}
    for i, text in enumerate(texts):
        assert sizes[str(i)] == len({e.strip() for e in (text or "").split(",")} - {""}), repr(text)


@pytest.mark.parametrize(("members", "size"), [([1], 1), ([1.0], 1), ([None], 0), ([float("nan")], 0), ([""], 0)])
def test_a_column_of_single_numbers_is_a_column_of_lists(members: list[Any], size: int) -> None:
    """What a reader makes of comma-separated text that never holds a comma."""
    assert team(members)["team_size"] == size


@pytest.mark.parametrize("members", [[[{"id": "1"}]], [[["1"]]], [{"id": "1"}]])
def test_what_is_no_list_of_values_is_refused(members: Any) -> None:
    with pytest.raises(DataError) as caught:
        team(members)
    assert caught.value.code == "features.column_type"
    assert "'members'" in str(caught.value)


@pytest.mark.parametrize("keys", [[1, 2], ["1", "2"], [1.0, 2.0]])
def test_keys_compare_as_text(keys: list[Any]) -> None:
    users = USERS.with_columns(pl.Series("user_id", keys))
    assert team(["1,2"], users)["skill_diversity"] == 2


def test_an_absent_column_that_matters_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "engine"):
        row = (
            FeatureExtractor()
            .extract_team_features(pl.DataFrame({"team_id": ["t"]}), USERS, as_of=T)
            .row(0, named=True)
        )
    assert row["team_size"] == 0
    assert "teams has no column 'members'" in caplog.text


def test_an_unreadable_text_is_named(tmp_path: Path) -> None:
    tasks = pl.DataFrame({"task_id": ["a", "b"], "deadline": ["2025-10-05", "next week"]})
    with pytest.raises(DataError, match="next week") as caught:
        FeatureExtractor().extract_task_features(tasks, as_of=T)
    assert caught.value.code == "features.unreadable_value"

"""``maestro feast diff`` and ``maestro feast apply``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import Pipeline
from engine.backfilling import backfill
from engine.errors import ConfigError
from engine.registration import diff
from tests.cli.conftest import PIPELINE, Maestro, maestro  # noqa: F401 - a fixture
from tests.run.world import DAY, T, pipeline, write_world

FEAST = """\
feast:
  repo: ./repo
  project: small
  materialize: false
  services:
    churn: {features: ["user_features:bug_rate", "user_features:tasks_completed_7d"], owner: ann}
"""


def spec(folder: Path, text: str) -> str:
    (folder / "p.yaml").write_text(PIPELINE + text)
    return str(folder / "p.yaml")


def test_diff_and_apply(tmp_path: Path, maestro: Maestro) -> None:  # noqa: F811
    write_world(tmp_path)
    path = spec(tmp_path, FEAST)
    said = maestro("feast", "diff", path)
    assert (said.code, "ledger.missing" in said.err) == (2, True)
    assert maestro("run", path, "--quiet", "--as-of", "2025-10-04").code == 0
    said = maestro("feast", "diff", path)
    assert (said.code, said.out) == (0, "the registry is as declared\n")
    path = spec(
        tmp_path, FEAST.replace("owner: ann", "owner: bob").replace("user_features:bug_rate", "user_features:*")
    )
    said = maestro("feast", "diff", path)
    assert said.code == 1
    assert said.out.splitlines()[0] == "~ service churn"
    assert "    owner: ann → bob" in said.out.splitlines()
    said = maestro("feast", "diff", path, "--json")
    found = json.loads(said.out)
    assert (said.code, found["current"], found["version"], found["unpublished"]) == (1, False, 1, [])
    [service] = found["differences"]
    assert (service["what"], service["kind"], service["name"]) == ("changed", "service", "churn")
    assert {"field": "owner", "old": "ann", "new": "bob"} in service["changes"]
    said = maestro("feast", "apply", path)
    assert (said.code, said.out.splitlines()[0]) == (0, "~ service churn")
    assert maestro("feast", "apply", path).out == "nothing to change\n"
    assert maestro("feast", "diff", path, "--quiet").code == 0
    path = spec(tmp_path, FEAST.partition("  services")[0])
    assert maestro("feast", "diff", path).out == "- service churn\n"
    assert maestro("feast", "apply", path).code == 0
    text = (tmp_path / "repo" / "definitions.py").read_text()
    assert "FeatureService" not in text


def test_a_pipeline_without_feast_has_nothing_to_compare(tmp_path: Path, maestro: Maestro) -> None:  # noqa: F811
    said = maestro("feast", "diff", spec(tmp_path, ""))
    assert (said.code, "config.no_feast" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("feature", "code", "words"),
    [
        ("user_features", "config.service", "names no feature"),
        ("user_feature:*", "config.unknown_name", "unknown view"),
        ("user_features:bug_rat", "config.unknown_name", "unknown feature of user_features"),
    ],
)
def test_a_service_of_features_that_are_not_there(tmp_path: Path, feature: str, code: str, words: str) -> None:
    feast: dict[str, Any] = {"repo": "./repo", "project": "small", "services": {"churn": {"features": [feature]}}}
    with pytest.raises(ConfigError, match=words) as caught:
        diff(pipeline(tmp_path, feast=feast))
    [problem] = caught.value.problems
    assert (problem.code, problem.path) == (code, ("feast", "services", "churn", "features", 0))


def test_a_backfill_of_one_view_leaves_the_others_registered(tmp_path: Path) -> None:
    write_world(tmp_path)
    raw = {"handle_missing": "keep", "normalize": False}
    both: dict[str, Any] = {"user_features": raw, "again": {"set": "user", **raw}}
    feast = {"repo": "./repo", "project": "small", "materialize": False}
    whole: Pipeline = pipeline(tmp_path, features=both, feast=feast)
    backfill(whole, start=T, end=T, views=["user_features"])
    found = diff(whole)
    assert (found.is_current, found.pending) == (True, ("view again",))
    backfill(whole, start=T, end=T, views=["again"])
    backfill(whole, start=T + DAY, end=T + DAY, views=["user_features"])
    found = diff(whole)
    assert (found.is_current, found.pending) == (True, ())
    text = (tmp_path / "repo" / "definitions.py").read_text()
    assert "again_view" in text
    assert "user_features_view" in text

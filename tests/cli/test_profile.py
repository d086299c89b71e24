"""What data looks like, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import Profile, load_pipeline
from tests.run.world import pipeline, run, write_world

from .conftest import Maestro


def test_files_and_sources_are_profiled_and_checks_drafted(folder: Path, maestro: Maestro) -> None:
    shown = maestro("profile", "data/users.parquet")
    assert (shown.code, "experience_years" in shown.out, "5 rows" in shown.out) == (0, True, True)
    told = maestro("profile", "data/users.parquet", "--json", "--exact").json
    assert Profile.from_dict(told["profiles"]["users.parquet"])["email"].distinct == 5
    of_pipeline = maestro("profile", "pipeline.yaml", "--json").json["profiles"]
    assert {name: p["rows"] for name, p in of_pipeline.items()} == {"users": 3, "activities": 6}
    assert maestro("profile", "pipeline.yaml", "--run", "last").code == 2, "nothing has run"
    assert maestro("profile", "data/users.parquet", "--run", "last").code == 2
    assert maestro("profile", "wrong.yaml").code == 2
    assert maestro("profile", "nothing.parquet").code == 3
    drafted = maestro("suggest", "data/users.parquet")
    (folder / "checks.yaml").write_text(drafted.out)
    assert maestro("validate", "data/users.parquet", "--checks", "checks.yaml").code == 0
    section = maestro("suggest", "pipeline.yaml", "-q").out
    text = (folder / "pipeline.yaml").read_text()
    head, _, tail = text.partition("validation:")
    (folder / "drafted.yaml").write_text(head + section + tail[tail.index("features:") :])
    assert load_pipeline(folder / "drafted.yaml").validation["users"].unique_columns
    assert maestro("validate", "drafted.yaml").code == 0


def test_what_a_run_kept_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maestro: Maestro) -> None:
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    report = run(tmp_path)
    text = json.dumps(pipeline(tmp_path).model_dump(mode="json", exclude_defaults=True) | {"version": 1})
    (tmp_path / "p.yaml").write_text(text)
    for name in ("last", report.run_id):
        told = maestro("profile", "p.yaml", "--run", name, "--json").json["profiles"]
        assert {source: p["rows"] for source, p in told.items()} == {"users": 3, "activities": 6}

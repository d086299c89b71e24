"""Two files compared on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from .conftest import Maestro


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(3)
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"x": random.normal(size=2_000), "k": ["a", "b"] * 1_000}).write_parquet("before.parquet")
    pl.DataFrame({"x": random.normal(1, 1, size=3_000), "k": ["a", "c", "b"] * 1_000}).write_csv("now.csv")
    return tmp_path


@pytest.mark.parametrize("how", [[], ["--approximate"]])
def test_two_files_are_compared(two: Path, maestro: Maestro, how: list[str]) -> None:
    said = maestro("drift", "before.parquet", "now.csv", *how)
    assert (said.code, said.err) == (0, "")
    assert "2,000 rows, now 3,000 (+50 %); 2 of 2 columns drifted" in said.out
    assert "c new (1,000)" in said.out
    found = maestro("drift", "before.parquet", "now.csv", "--json", *how).json
    assert (found["ok"], found["drifted"]["x"]) == (False, ["psi", "js", "ks", "wasserstein"])
    assert maestro("drift", "before.parquet", "now.csv", "--strict", "-q", *how).code == 1
    assert maestro("drift", "before.parquet", "before.parquet", "--strict", *how).code == 0
    loose = ["--threshold", "psi=null", "--threshold", "js=null", "--threshold", "ks=1", "--threshold", "wasserstein=9"]
    assert maestro("drift", "before.parquet", "now.csv", "--strict", *loose, *how).code == 0
    assert maestro("drift", "before.parquet", "now.csv", "--strict", *loose, "--threshold", "rows=0.2", *how).code == 1


def test_a_stored_profile_is_a_baseline(two: Path, maestro: Maestro) -> None:
    (two / "before.json").write_text(maestro("profile", "before.parquet", "--json").out)
    found = maestro("drift", "before.json", "now.csv", "--json", "--column", "x").json
    assert list(found["columns"]) == ["x"]
    assert found["columns"]["x"]["by"] == "profile"
    assert maestro("drift", "before.json", "before.json", "--strict").code == 0


def test_mistakes(two: Path, maestro: Maestro) -> None:
    assert maestro("drift", "before.parquet", "nowhere.parquet").code == 3
    wrong = maestro("drift", "before.parquet", "now.csv", "--column", "y")
    assert (wrong.code, "drift.missing_column" in wrong.err) == (3, True)
    for threshold in ("phi=1", "psi=-1", "psi=x", "psi"):
        said = maestro("drift", "before.parquet", "now.csv", "--threshold", threshold)
        assert (said.code, "threshold" in said.err) == (2, True)

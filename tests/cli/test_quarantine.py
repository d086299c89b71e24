"""``maestro quarantine``: what is there and why, out and back, given up."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import Maestro

PIPELINE = """\
version: 1
name: small
sources: {s: {type: file, path: x.parquet, critical_columns: [id]}}
validation:
  s: {range_constraints: {score: [0, 100]}, on_violation: {range: quarantine}}
"""


@pytest.fixture
def file(tmp_path: Path, maestro: Maestro) -> str:
    """A pipeline that has set three of its five rows aside."""
    pl.DataFrame({"id": [1, 2, 3, None, 5], "score": [1.0, 200.0, 3.0, 4.0, -5.0]}).write_parquet(
        tmp_path / "x.parquet"
    )
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    path = str(tmp_path / "pipeline.yaml")
    said = maestro("run", path)
    assert said.code == 0
    assert "s: rows: 5 read = 2 passed + 3 quarantined + 0 dropped + 0 duplicates" in said.out
    return path


def test_list(maestro: Maestro, file: str) -> None:
    said = maestro("quarantine", "list", file)
    assert said.code == 0
    assert "critical_columns.id (1), range.score (2)" in said.out
    [found] = maestro("quarantine", "list", file, "--json").json
    assert (found["source"], found["rows"], found["checks"]) == ("s", 3, {"critical_columns.id": 1, "range.score": 2})
    assert maestro("quarantine", "list", file, "--quiet").out == ""


def test_show(maestro: Maestro, file: str, tmp_path: Path) -> None:
    said = maestro("quarantine", "show", file, "--source", "s", "--check", "range.score")
    assert said.code == 0
    assert "200.0" in said.out
    assert str(tmp_path / "x.parquet") in said.out
    assert "critical" not in said.out
    rows = maestro("quarantine", "show", file, "--source", "s", "--limit", "2", "--json").json
    assert [(row["id"], row["score"]) for row in rows] == [(None, 4.0), (2, 200.0)]
    assert rows[1]["quarantine"]["row"] == 1
    assert "no row" in maestro("quarantine", "show", file, "--source", "s", "--check", "custom").out


def test_out_and_back(maestro: Maestro, file: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    said = maestro("quarantine", "show", file, "--source", "s", "--out", str(out))
    assert (said.code, said.out) == (0, f"wrote 3 rows to {out}\n")
    out.write_text(out.read_text().replace("200.0", "20.0"))
    said = maestro("quarantine", "replay", file, "--rows", str(out), "--as-of", "2025-10-04")
    assert said.code == 0
    assert "s: rows: 3 read = 1 passed + 2 quarantined + 0 dropped + 0 duplicates" in said.out
    assert "s is in mode full: the next run reads everything anew, so mend these rows in the source too" in said.out
    found = maestro("quarantine", "replay", file, "--json").json
    assert (found["status"], found["sources"][0]["balance"]["read"]) == ("done", 2)


def test_drop(maestro: Maestro, file: str) -> None:
    assert maestro("quarantine", "drop", file, "--source", "s").out == "gave up 3 rows of s\n"
    assert "no row is in quarantine" in maestro("quarantine", "list", file).out
    for action in ("show", "drop", "replay"):
        said = maestro("quarantine", action, file, "--source", "s")
        assert (said.code, said.out) == (2, "")
        assert "quarantine.empty" in said.err


def test_a_pipeline_that_has_not_run(maestro: Maestro, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    for action in ("list", "replay"):
        said = maestro("quarantine", action, str(tmp_path / "pipeline.yaml"))
        assert said.code == 2
        assert "ledger.missing" in said.err
    assert not (tmp_path / ".maestro").exists()


def test_a_mended_value_that_is_none(maestro: Maestro, file: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    maestro("quarantine", "show", file, "--source", "s", "--out", str(out))
    out.write_text(out.read_text().replace("200.0", "many"))
    said = maestro("quarantine", "replay", file, "--rows", str(out))
    assert said.code == 2
    assert "row 2: score is 'many', which is no Float64" in said.err


def test_out_where_nothing_can_be_written(maestro: Maestro, file: str, tmp_path: Path) -> None:
    for out in ("none/rows.csv", "none/rows.parquet", "none/rows.ndjson"):
        said = maestro("quarantine", "show", file, "--source", "s", "--out", str(tmp_path / out))
        assert (said.code, said.out) == (3, "")
        assert "quarantine.unwritable" in said.err
        assert "a folder that is there, can be written and has room, or name another" in said.err
    assert not (tmp_path / "none").exists()


def test_a_held_file_that_is_missing(maestro: Maestro, file: str, tmp_path: Path) -> None:
    """All say so, and how to go on, which works."""
    for held in (tmp_path / ".maestro" / "quarantine").rglob("*.parquet"):
        held.unlink()
    for action in (["list"], ["show", "--source", "s"], ["replay"]):
        said = maestro("quarantine", action[0], file, *action[1:])
        assert (said.code, said.out) == (3, "")
        assert "quarantine.missing" in said.err
        assert "maestro quarantine drop … --source s --run " in said.err
    run = said.err.rpartition("--run ")[2].strip()
    assert maestro("quarantine", "drop", file, "--source", "s", "--run", run).out == "gave up 3 rows of s\n"
    assert "no row is in quarantine" in maestro("quarantine", "list", file).out

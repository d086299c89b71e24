"""What the commands print, write and give back; each is a thin shell, so what they do is tested where it is done."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import yaml

from engine import load_pipeline
from engine.ledger import Ledger
from engine.plan import compile_plan
from engine.report import live_progress
from tests.cli.conftest import Maestro, Said
from tests.run.world import DAY, T, files, published

ROOT = Path(__file__).parents[2]
AS_OF = ("--as-of", "2025-10-04")


# --- exit codes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        ("check", {"pipeline": 0, "blocked": 0, "wrong": 2, "absent": 0, "none": 2}),
        ("plan", {"pipeline": 0, "blocked": 0, "wrong": 2, "absent": 0, "none": 2}),
        ("run", {"pipeline": 0, "blocked": 1, "wrong": 2, "absent": 3, "none": 2}),
        ("validate", {"pipeline": 0, "blocked": 1, "wrong": 2, "absent": 3, "none": 2}),
    ],
)
def test_exit_codes_and_json_whatever_happens(
    maestro: Maestro, folder: Path, command: str, codes: dict[str, int]
) -> None:
    for name, code in codes.items():
        said = maestro(command, f"{name}.yaml", "--json")
        assert said.code == code, name
        assert said.err == "", "JSON goes alone"
        if code > 1:
            error = said.json["error"]
            assert set(error) >= {"code", "message", "where", "allowed", "fix"}
            assert error["fix"]
        elif command == "run":
            assert said.json["status"] == ("blocked" if code else "done")
        elif command == "validate":
            assert said.json["ok"] is (code == 0)


def test_mistakes_go_to_standard_error_with_their_place(maestro: Maestro, folder: Path) -> None:
    said = maestro("check", "wrong.yaml")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("wrong.yaml:5:")
    assert "did you mean 'file'?" in said.err
    [problem] = maestro("check", "wrong.yaml", "--json").json["error"]["problems"]
    assert (problem["file"], problem["line"], problem["path"]) == ("wrong.yaml", 5, "sources.users.type")


def test_a_failing_sink_gives_3(maestro: Maestro, folder: Path) -> None:
    (folder / "occupied").write_text("a file, no folder")
    with (folder / "pipeline.yaml").open("a") as file:
        file.write("output: {path: occupied/below}\n")
    said = maestro("run", "pipeline.yaml", "--json")
    assert (said.code, said.json["error"]["code"]) == (3, "output.unwritable")


# --- check and plan -----------------------------------------------------------------------------------------------


def test_check_counts_what_is_declared_and_reads_nothing(maestro: Maestro, folder: Path) -> None:
    said = maestro("check", "absent.yaml")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("absent.yaml: no mistakes found (2 sources, 4 checks, 1 views, 14 features)")
    assert maestro("check", "pipeline.yaml", "--json").json == {
        "pipeline": "small",
        "ok": True,
        "sources": 2,
        "checks": 4,
        "views": 1,
        "features": 14,
    }
    assert not (folder / ".maestro").exists()


def test_plan_json_is_the_compiled_plan(maestro: Maestro, folder: Path) -> None:
    moments = ["2025-10-04", "2025-10-03T00:00:00Z", "2025-10-04T02:00:00+02:00"]
    said = maestro("plan", "pipeline.yaml", "--json", *(part for t in moments for part in ("--as-of", t)))
    assert said.json == compile_plan(load_pipeline("pipeline.yaml"), moments).to_dict()
    assert said.json["as_of"] == ["2025-10-03T00:00:00Z", "2025-10-04T00:00:00Z"], "equal moments count once"
    assert not (folder / ".maestro").exists()


def test_plan_shows_what_would_happen_and_it_does(maestro: Maestro, folder: Path) -> None:
    said = maestro("plan", "pipeline.yaml", *AS_OF, "--as-of", "2025-10-03")
    assert said.code == 0
    for words in ("users.parquet", "rename 1; leave out null user_id; last row per user_id", "14 of the user set"):
        assert words in said.out
    assert not (folder / "features").exists()
    assert maestro("run", "pipeline.yaml", *AS_OF, "--as-of", "2025-10-03").code == 0
    assert len(files(folder)) == 2
    for name in files(folder):
        assert f"{folder}/features/{name}\n" in said.out


def test_names_of_columns_are_no_markup_and_nothing_is_cut(maestro: Maestro, folder: Path) -> None:
    odd = ["[red]x", "[/x]", ":smile:", "column_" * 60]
    data = {name: [1, 1] for name in odd}
    pl.DataFrame(data).write_parquet(folder / "data" / "[old] odd.parquet")
    spec = {
        "version": 1,
        "name": "odd",
        "sources": {
            "s": {"type": "file", "path": "data/*odd.parquet", "critical_columns": odd, "deduplicate": {"keys": odd}}
        },
        "validation": {"s": {"unique_columns": odd}},
    }
    (folder / "odd.yaml").write_text(json.dumps(spec))
    (folder / "checks.yaml").write_text(json.dumps(spec["validation"]["s"]))  # type: ignore[index]
    assert maestro("run", "odd.yaml").code == 0
    for arguments in (["plan", "odd.yaml"], ["validate", "data/[old] odd.parquet", "--checks", "checks.yaml"]):
        said = maestro(*arguments)
        for name in odd:
            assert name in said.out
    assert "[old] odd.parquet" in said.out


# --- run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "code"), [("pipeline", 0), ("blocked", 1)])
def test_run_json_is_what_the_ledger_holds(maestro: Maestro, folder: Path, name: str, code: int) -> None:
    said = maestro("run", f"{name}.yaml", "--json", *AS_OF, "--as-of", "2025-10-03")
    assert (said.code, said.err) == (code, "")
    report = said.json
    with Ledger(folder / ".maestro") as book:
        [row] = book.runs()
        reads = {r.source: r for r in book.reads(report["run_id"])}
        listed = book.published("small", "user_features")
    for key in ("run_id", "pipeline", "status", "as_of", "created_timestamp"):
        assert report[key] == row[key]
    assert [s["name"] for s in report["sources"]] == [s["name"] for s in row["plan"]["sources"]]
    for source in report["sources"]:
        read = reads[source["name"]]
        assert source["location"] == read.location
        assert source["state"] == read.state
        assert source["metrics"] == read.metrics
        assert source["validation"] == read.report
    views = report["views"]
    assert [(v["files"], v["rows"]) for v in views] == (
        [([p["path"] for p in listed], [p["rows"] for p in listed])] if code == 0 else []
    )


def test_run_tells_what_it_read_found_and_published(maestro: Maestro, folder: Path) -> None:
    said = maestro("run", "pipeline.yaml", *AS_OF)
    assert said.code == 0
    lines = [line.split() for line in said.out.splitlines()]
    assert ["users", "5", "3", "1", "1"] in [line[:5] for line in lines]
    assert ["user_features", "3", files(folder)[0]] in lines
    assert "users: 3 rows, 3 of 4 checks passed, 0 errors, 1 warning\n" in said.out
    shown = [line for line in lines if line[:1] == ["WARNING"]]
    assert [line[:5] for line in shown] == [["WARNING", "range.experience_years", "1", "33.3", "%"]]
    steps = [line.split(maxsplit=1)[1] for line in said.err.splitlines()]
    assert steps == [
        "read users",
        "read activities",
        "check users",
        "compute user_features",
        "publish user_features",
    ], "plain lines where standard error is no terminal"


def test_a_blocked_run_says_so_even_when_quiet(maestro: Maestro, folder: Path) -> None:
    for loudness in ([], ["--quiet"]):
        said = maestro("run", "blocked.yaml", *AS_OF, *loudness)
        assert said.code == 1
        assert "blocked by an ERROR check on activities: nothing was published" in said.out
        assert "ERROR" in said.out
    assert not (folder / "features").exists()


@pytest.mark.parametrize("command", ["check", "plan", "run", "validate", "init"])
def test_quiet_prints_nothing_on_success(maestro: Maestro, folder: Path, command: str) -> None:
    path = "new.yaml" if command == "init" else "pipeline.yaml"
    assert maestro(command, path, "--quiet") == Said(0, "", "")


def test_quiet_still_prints_json_and_errors(maestro: Maestro, folder: Path) -> None:
    said = maestro("run", "pipeline.yaml", "--quiet", "--json", *AS_OF)
    assert said.json["status"] == "done"
    said = maestro("run", "wrong.yaml", "--quiet")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("wrong.yaml:5:")


def test_verbose_logs_to_standard_error_alone(maestro: Maestro, folder: Path) -> None:
    said = maestro("run", "pipeline.yaml", "--verbose", "--json", *AS_OF)
    assert said.json["status"] == "done"
    assert " read users" in said.err
    assert " DEBUG " in said.err or " INFO " in said.err


def test_refit_pins_anew(maestro: Maestro, folder: Path) -> None:
    path = folder / "pipeline.yaml"
    path.write_text(path.read_text().replace("handle_missing: keep, normalize: false", "normalize: true"))
    versions = [
        maestro("run", path, "--json", "--as-of", moment, *refit).json["views"][0]["fit_version"]
        for moment, refit in [("2025-10-04", []), ("2025-10-01", []), ("2025-10-01", ["--refit"])]
    ]
    assert versions == [1, 1, 2]


def test_paths_are_relative_to_the_pipeline_file(
    maestro: Maestro, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert maestro("run", "../pipeline.yaml", "-q", *AS_OF).code == 0
    assert len(files(folder)) == 1
    assert list((folder / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("step", ["read activities", "check users", "compute user_features", "publish user_features"])
def test_an_interrupted_run_gives_130_and_the_ledger_knows(
    maestro: Maestro, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    assert maestro("run", "pipeline.yaml", "--quiet", "--as-of", "2025-10-03").code == 0
    before = published(folder)

    def interrupt(_self: Any, stage: str, name: str) -> None:
        if f"{stage} {name}" == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("engine.report._Lines.step", interrupt)
        said = maestro("run", "pipeline.yaml", *AS_OF)
    assert (said.code, said.out) == (130, "")
    assert said.err == "maestro: interrupted; what was published before stays as it was\n"
    with Ledger(folder / ".maestro") as book:
        assert [r["status"] for r in book.runs()] == ["done", "interrupted"]
        assert book.runs()[-1]["finished_at"]
    assert published(folder).equals(before)
    assert not list(folder.glob(".features.staging/small/*"))
    assert maestro("run", "pipeline.yaml", "--quiet", *AS_OF).code == 0
    assert published(folder)["event_timestamp"].unique().sort().to_list() == [T - DAY, T]


# --- as-of --------------------------------------------------------------------------------------------------------


def test_as_of_may_be_repeated(maestro: Maestro, folder: Path) -> None:
    said = maestro("run", "pipeline.yaml", "--json", *AS_OF, "--as-of", "2025-10-03T12:00:00+02:00", *AS_OF)
    assert said.json["as_of"] == ["2025-10-03T10:00:00Z", "2025-10-04T00:00:00Z"]
    assert said.json["views"][0]["files"] == files(folder)
    assert len(files(folder)) == 2


@pytest.mark.parametrize("command", ["plan", "run", "validate"])
@pytest.mark.parametrize("moment", ["tomorrow", "2025-13-01", "04.10.2025", ""])
def test_an_as_of_that_is_no_moment(maestro: Maestro, folder: Path, command: str, moment: str) -> None:
    said = maestro(command, "pipeline.yaml", "--as-of", moment)
    assert (said.code, said.out) == (2, "")
    assert f"{moment!r} is not a moment in time" in said.err
    assert "fix: write for example 2025-10-04 or 2025-10-04T06:30:00Z" in said.err
    error = maestro(command, "pipeline.yaml", "--json", "--as-of", moment).json["error"]
    assert error["code"] == "types.moment"
    assert not (folder / ".maestro").exists()


# --- validate -----------------------------------------------------------------------------------------------------


def test_validate_reads_and_checks_and_keeps_nothing(maestro: Maestro, folder: Path) -> None:
    said = maestro("validate", "blocked.yaml", "--json")
    assert said.code == 1
    assert list(said.json["sources"]) == ["users", "activities"]
    counts = {name: (r["errors"], r["warnings"]) for name, r in said.json["sources"].items()}
    assert counts == {"users": (0, 1), "activities": (1, 0)}
    shown = maestro("validate", "blocked.yaml", "--quiet")
    assert shown.code == 1
    assert "task_type" in shown.out, "a failure is shown even when quiet"
    assert not (folder / "features").exists()
    assert [p for p in folder.rglob("*.parquet") if ".maestro" in p.parts] == []


def test_validate_one_file_by_one_list_of_checks(maestro: Maestro, folder: Path) -> None:
    (folder / "checks.yaml").write_text(
        "unique_columns: [id]\nfreshness: {timestamp_column: updated_at, max_age_hours: 1}\n"
    )
    arguments = ["validate", "data/users.parquet", "--checks", "checks.yaml"]
    said = maestro(*arguments, "--json", "--as-of", "2025-10-04T00:30:00Z")
    assert said.code == 1
    assert said.json["ok"] is False
    found = {r["check_name"]: r for r in said.json["sources"]["users.parquet"]["results"]}
    assert found["uniqueness_validation"]["failed_records"] == 1
    assert found["freshness_validation"]["passed"], "fresh at the moment given"
    found = {r["check_name"]: r for r in maestro(*arguments, "--json").json["sources"]["users.parquet"]["results"]}
    assert not found["freshness_validation"]["passed"]
    (folder / "checks.yaml").write_text("unique_columns: [email]\n")
    assert maestro(*arguments, "-q") == Said(0, "", "")
    assert "2 of 2 checks passed" in maestro(*arguments).out


@pytest.mark.parametrize(
    ("data", "checks", "code", "where"),
    [
        ("data/users.parquet", "unique_column: [id]\n", 2, "checks.yaml:1:1"),
        ("data/users.parquet", None, 2, "checks.yaml"),
        ("data/none.parquet", "unique_columns: [id]\n", 3, None),
        ("data/users.txt", "unique_columns: [id]\n", 2, None),
    ],
)
def test_validate_what_cannot_be(
    maestro: Maestro, folder: Path, data: str, checks: str | None, code: int, where: str | None
) -> None:
    if checks:
        (folder / "checks.yaml").write_text(checks)
    said = maestro("validate", data, "--checks", "checks.yaml", "--json")
    assert said.code == code
    error = said.json["error"]
    assert where is None or error["where"] == where
    assert error["fix"]


# --- init and schema ----------------------------------------------------------------------------------------------


def test_init_writes_a_starter_that_passes_check(maestro: Maestro, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "pipeline.yaml"
    said = maestro("init", path)
    assert (said.code, said.err) == (0, "")
    assert said.out == f"wrote {path}; next: maestro check '{path}'\n"
    assert maestro("check", path).code == 0
    assert maestro("plan", path).code == 0
    text = path.read_text(encoding="utf-8")
    jsonschema.Draft202012Validator(maestro("schema").json).validate(yaml.safe_load(text))
    path.write_text("mine")
    again = maestro("init", path)
    assert (again.code, again.out) == (2, "")
    assert "is there already" in again.err
    assert path.read_text() == "mine"


def test_the_starter_runs_on_data(maestro: Maestro, folder: Path) -> None:
    users = pl.read_parquet(folder / "data" / "users.parquet").rename({"id": "user_id"})
    users.select("user_id", "experience_years").write_csv(folder / "data" / "users.csv")
    pl.read_parquet(folder / "data" / "activities" / "*.parquet").drop_nulls("user_id").write_parquet(
        folder / "data" / "activities" / "a.parquet"
    )
    (folder / "data" / "activities" / "b.parquet").unlink()
    assert maestro("init", "mine.yaml", "-q").code == 0
    said = maestro("run", "mine.yaml", "--json", *AS_OF)
    assert said.code == 0
    assert [v["rows"] for v in said.json["views"]] == [[3]]
    assert published(folder)["user_id"].to_list() == ["u1", "u2", "u3"]


def test_the_starters_commented_examples_are_right_too(maestro: Maestro, folder: Path, monkeypatch: Any) -> None:
    """A reader removes the # and has a pipeline that passes the check."""
    for name in ("APP_DB_URL", "API_TOKEN", "S3_KEY", "S3_SECRET"):
        monkeypatch.setenv(name, "sqlite:///app.db")
    maestro("init", "mine.yaml")
    lines = (folder / "mine.yaml").read_text(encoding="utf-8").splitlines()
    bare = [line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in lines[2:]]
    (folder / "mine.yaml").write_text("\n".join(bare) + "\n", encoding="utf-8")
    said = maestro("check", "mine.yaml", "--json")
    assert said.code == 0, said.out
    assert said.json["sources"] == 5


RULES = """\
version: 1
name: small
sources:
  users: {type: file, path: users.parquet}
validation:
  users:
    custom:
      sound: "score > 0 AND list_contains(tags, 'x')"
      broken: "score >"
      rows: "unnest(tags) > 1"
      ours: {function: "maestro_rules_for_check:ours"}
      none: {function: "maestro_rules_for_check:nobody"}
      nowhere: {function: "maestro_rules_of_nobody:ours"}
    range_constraints: {score: [0, 1]}
    where:
      range: "(SELECT true)"
"""


def test_check_reports_rules_that_cannot_be_read(maestro: Maestro, tmp_path: Path) -> None:
    """Each with its place, and nothing is read."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    (tmp_path / "maestro_rules_for_check.py").write_text("import polars as pl\n\ndef ours():\n    return pl.col('a')\n")
    said = maestro("check", path)
    assert (said.code, said.out) == (2, "")
    found = maestro("check", path, "--json").json["error"]["problems"]
    assert {problem["code"] for problem in found} == {"config.rule"}
    lines = RULES.splitlines()
    told = {lines[problem["line"] - 1].strip().partition(":")[0]: problem["message"] for problem in found}
    assert {name: words in told[name] for name, words in {
        "broken": "it is no SQL expression",
        "rows": "unnest makes rows",
        "none": "nobody",
        "nowhere": "No module named 'maestro_rules_of_nobody'",
    }.items()} == dict.fromkeys(("broken", "rows", "none", "nowhere"), True)  # fmt: skip
    assert len(found) == 5
    assert any("a subquery" in message for message in told.values())
    assert f"{path}:9:" in said.err


def test_init_where_nothing_can_be_written(maestro: Maestro, folder: Path) -> None:
    said = maestro("init", "pipeline.yaml/below.yaml")
    assert said.code == 2
    assert "name another folder" in said.err


def test_schema_is_a_json_schema_that_takes_the_file(maestro: Maestro, folder: Path) -> None:
    schema = maestro("schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(yaml.safe_load((folder / "pipeline.yaml").read_text()))
    assert not validator.is_valid(yaml.safe_load((folder / "wrong.yaml").read_text()))


# --- the terminal -------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_live_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with live_progress() as progress:
        progress.step("read", "users")
        progress.rows(1_234_567)
    assert "\x1b[" in screen.getvalue()
    assert "1,234,567 rows" in screen.getvalue()


def test_progress_is_plain_lines_elsewhere_or_when_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    for screen, verbose in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", screen)
        with live_progress(verbose=verbose) as progress:
            progress.step("read", "users")
            progress.rows(5)
        assert screen.getvalue().endswith(" read users\n")
        assert "\x1b" not in screen.getvalue()


@pytest.mark.parametrize("command", ["check", "plan"])
def test_nobody_reads_the_output(folder: Path, command: str) -> None:
    """As after ``| head -1``: no traceback, and not the code of a failed check."""
    read, write = os.pipe()
    os.close(read)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "engine", command, "pipeline.yaml"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_that_cannot_show_a_character(maestro: Maestro, folder: Path) -> None:
    (folder / "ünï → ☃.yaml").write_text((folder / "pipeline.yaml").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "engine", "check", "ünï → ☃.yaml"],
        capture_output=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u2192" in done.stdout


def test_the_format_of_a_file_without_a_suffix_can_be_named(maestro: Any, tmp_path: Path) -> None:
    (tmp_path / "export.txt").write_text("a\n1\n1\n")
    (tmp_path / "checks.yaml").write_text("unique_columns: [a]\n")
    target = ("validate", str(tmp_path / "export.txt"), "--checks", str(tmp_path / "checks.yaml"))
    said = maestro(*target)
    assert said.code == 2
    assert "--format" in said.err
    assert maestro(*target, "--format", "csv").code == 1

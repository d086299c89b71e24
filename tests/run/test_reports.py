"""Every run leaves its report and its page, however it ended; that they cannot be written changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import RunReport, run_pipeline
from engine.alerts import events
from engine.errors import LedgerError, MaestroError, SinkError, SourceError
from engine.ledger import Ledger
from engine.page.archive import Archive
from engine.quarantine import replay
from engine.sinks.parquet import Part
from tests.run.world import USERS, T, pipeline, published, run, write_world

BLOCKING = {
    "users": {"unique_columns": ["user_id"]},
    "activities": {"categorical_constraints": {"task_type": ["backend"]}},
}


def archive(folder: Path) -> Archive:
    return Archive(folder / ".maestro" / "reports" / "small", "small")


def kept(folder: Path) -> dict[str, Any]:
    found = archive(folder).report()
    assert (archive(folder).folder / f"{found['run_id']}.html").read_text().startswith("<!doctype html>")
    return found


def test_a_run_that_is_done(tmp_path: Path) -> None:
    write_world(tmp_path)
    report = run(tmp_path)
    assert kept(tmp_path) == json.loads(json.dumps(report.to_dict()))
    assert (report.error, report.warnings) == (None, [])
    run(tmp_path)
    assert [line["status"] for line in archive(tmp_path).lines()] == ["done", "done"]
    with Ledger(tmp_path / ".maestro") as ledger:
        runs = [row["run_id"] for row in ledger.runs("small")]
    assert [line["run_id"] for line in archive(tmp_path).lines()] == runs


def test_a_run_that_is_blocked(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, validation=BLOCKING)
    found = kept(tmp_path)
    assert (found["status"], [s["state"] for s in found["sources"]]) == ("blocked", ["accepted", "blocked"])
    line = archive(tmp_path).lines()[-1]
    assert line["headline"] == "Blocked: 1 ERROR check failed on activities. Nothing was published."
    assert (line["errors"], line["published"]) == (1, 0)


def test_a_run_that_fails_tells_what_it_had_read(tmp_path: Path) -> None:
    write_world(tmp_path)
    for path in (tmp_path / "data" / "activities").iterdir():
        path.unlink()
    with pytest.raises(SourceError) as raised:
        run(tmp_path)
    found = kept(tmp_path)
    assert found["status"] == "partial", "a landed source stays"
    assert found["error"] == raised.value.to_dict()
    [users] = found["sources"]
    assert (users["name"], users["state"], users["validation"]) == ("users", "landed", None)
    balance = users["balance"]
    assert (balance["read"], balance["passed"], balance["quarantined"], balance["duplicates_removed"]) == (5, 3, 1, 1)
    assert set(found["seconds"]) == {"start", "read"}


def test_a_run_that_fails_while_it_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)

    def full(_: Part) -> None:
        raise SinkError("no room", code="output.unwritable", where="there", fix="make room")

    monkeypatch.setattr(Part, "publish", full)
    with pytest.raises(SinkError):
        run(tmp_path)
    found = kept(tmp_path)
    assert (found["status"], found["error"]["code"]) == ("partial", "output.unwritable")
    assert [s["state"] for s in found["sources"]] == ["accepted", "accepted"]
    assert found["views"][0]["files"] == []
    assert set(found["seconds"]) == {"start", "read", "check", "compute", "publish"}


def test_what_fails_once_all_is_published_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)

    def gone(*_: object) -> None:
        raise LedgerError("the disk is gone", code="ledger.unreadable")

    monkeypatch.setattr(Ledger, "finish", gone)
    with pytest.raises(LedgerError):
        run(tmp_path)
    found = kept(tmp_path)
    assert (found["status"], found["error"]["code"]) == ("done", "ledger.unreadable")
    assert "failed" in events(found)


def test_a_bug_is_told_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("cannot reach http://store with hunter2secret")

    monkeypatch.setattr("engine.intake.Intake.judge", broken)
    output = {
        "path": "s3://lake/x",
        "endpoint_url": "http://store",
        "access_key": "k123456",
        "secret_key": "hunter2secret",
    }
    with pytest.raises(RuntimeError) as raised:
        run(tmp_path, output=output)
    message = "RuntimeError: cannot reach http://store with ***"
    assert kept(tmp_path)["error"] == {"code": "internal", "message": message}
    assert "hunter2" not in str(raised.value)


def test_an_interrupted_run_and_the_run_that_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    with monkeypatch.context() as patch:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("engine.intake.Intake.judge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert kept(tmp_path)["status"] == "interrupted"
    report = run_pipeline(pipeline(tmp_path), resume=True)
    [line] = archive(tmp_path).lines()
    assert (line["run_id"], line["status"]) == (report.run_id, "done")


def test_a_report_that_cannot_be_kept_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_world(tmp_path)
    (tmp_path / ".maestro").mkdir()
    (tmp_path / ".maestro" / "reports").write_text("in the way")
    report: RunReport = run(tmp_path)
    assert (report.status, published(tmp_path).height) == ("done", 3)
    [warning] = report.warnings
    assert "could not be kept" in warning
    assert warning in caplog.text
    (tmp_path / ".maestro" / "reports").unlink()
    (tmp_path / "data" / "users.parquet").unlink()
    (tmp_path / ".maestro" / "reports").write_text("in the way")
    with pytest.raises(MaestroError, match="no file"):
        run(tmp_path)


def test_columns_about_persons_are_masked_wherever_they_are_told(tmp_path: Path) -> None:
    write_world(tmp_path, USERS.with_columns(pl.col("experience_years") * 7919))
    changes: dict[str, Any] = {
        "sources": {
            "users": {
                "type": "file",
                "path": "data/users.parquet",
                "pii": ["email", "experience_years"],
                "deduplicate": {"keys": ["email"]},
            },
        },
        "validation": {
            "users": {
                "categorical_constraints": {"email": ["a@x"]},
                "range_constraints": {"experience_years": [4000, 37000]},
                "required_columns": ["id"],
                "max_null_percentage": 0,
                "unique_columns": ["experience_years"],
                "custom": {"short": "length(email) < 3"},
                "severity": dict.fromkeys(("categorical", "completeness", "custom", "uniqueness"), "warning"),
            }
        },
        "features": {},
    }
    report = run(tmp_path, as_of=T, **changes)
    text = json.dumps(report.to_dict())
    found = kept(tmp_path)
    page = (archive(tmp_path).folder / f"{found['run_id']}.html").read_text()
    results = {r.name: r for r in report.sources[0].report.results} if report.sources[0].report else {}
    assert {name: r.failed_records for name, r in results.items()} == {
        "completeness.id": 1,
        "uniqueness.experience_years": 0,
        "range.experience_years": 2,
        "categorical.email": 4,
        "custom.short": 5,
        "row_count": 0,
    }
    for secret in ("b@x", "c@x", "d@x", "b@y", "39595", "47514"):
        assert secret not in text, secret
        assert secret not in page, secret
    assert [row["email"] for row in results["completeness.id"].sample] == ["masked"]
    assert "values are masked" in results["categorical.email"].message
    assert "most frequent" not in results["categorical.email"].message
    plain = run(tmp_path, as_of=T, **(changes | {"sources": {"users": changes["sources"]["users"] | {"pii": []}}}))
    assert "b@x" in json.dumps(plain.to_dict())


def test_a_replay_has_a_report_too(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path)
    report = replay(pipeline(tmp_path), as_of=T)
    assert [line["run_id"] for line in archive(tmp_path).lines()][-1] == report.run_id
    assert kept(tmp_path)["sources"][0]["balance"]["read"] == 1

"""Alerts reach a real server and a real program, are tried again, keep their address to themselves, change nothing."""

from __future__ import annotations

import itertools
import json
import logging
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Pipeline, load_pipeline, run_pipeline
from engine.alerts import MOST, events, message, send, slack
from engine.errors import ConfigError, SourceError
from engine.plan import compile_plan
from engine.spec import AlertSpec
from tests.page.reports import Json, check, everything, many, validation
from tests.run.world import pipeline, write_world
from tests.servers import rest

SECRET = "T0000/B0000/hunter2secret"
EVENTS = ("error", "warning", "drift", "anomaly", "freshness", "failed")


def spec(**keys: Any) -> AlertSpec:
    return AlertSpec(**{"on": EVENTS, **keys})


def report(status: str = "done", results: Sequence[Json] = (), error: Json | None = None) -> Json:
    sources = [{"name": "orders", "validation": validation(list(results))}]
    return everything() | {"status": status, "sources": sources, "error": error}


def sent(alert: AlertSpec, found: Json, folder: Path) -> tuple[list[str], list[float]]:
    """What could not be delivered, and the pauses that were made."""
    pauses: list[float] = []
    said = send({"oncall": alert}, found, base=folder, page=folder / "page.html", sleep=pauses.append)
    return said, pauses


def program(folder: Path, text: str) -> Path:
    path = folder / "told.py"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("results", "status", "expected"),
    [
        ([check("range", "a")], "done", set()),
        ([check("range", "a", False, "error")], "blocked", {"error"}),
        ([check("range", "a", False, "warning")], "done", {"warning"}),
        ([check("range", "a", False, "info")], "done", {"info"}),
        ([check("drift", "a", False, "warning")], "done", {"warning", "drift"}),
        ([check("anomaly", "a", False, "warning")], "done", {"warning", "anomaly"}),
        ([check("freshness", "a", False, "error")], "blocked", {"error", "freshness"}),
        ([], "failed", {"failed"}),
        ([check("range", "a", False, "warning")], "partial", {"failed", "warning"}),
        ([check("range", "a", False, "warning")], "interrupted", set()),
    ],
)
def test_what_alerts_are_about(results: list[Json], status: str, expected: set[str]) -> None:
    assert events(report(status, results)) == expected


@given(
    st.sets(st.sampled_from(EVENTS), min_size=1),
    st.lists(
        st.tuples(
            st.sampled_from(["range", "drift", "freshness"]), st.sampled_from(["error", "warning"]), st.booleans()
        )
    ),
)
def test_only_what_was_asked_for_is_told(on: set[str], made: list[tuple[str, str, bool]]) -> None:
    found = report("done", [check(f, str(i), ok, how) for i, (f, how, ok) in enumerate(made)])
    expected = {str(i) for i, (f, how, ok) in enumerate(made) if not ok and {f, how} & on}
    chosen = [event for event in on if event in events(found)]
    assert bool(chosen) == bool(expected)
    told = message(found, chosen, None)
    assert len(told["checks"]) + told["more_checks"] == len(expected)
    assert {c["check"].partition(".")[2] for c in told["checks"]} <= expected
    order = [("error", "warning").index(c["severity"]) for c in told["checks"]]
    assert order == sorted(order)


def test_a_webhook_gets_the_json(tmp_path: Path) -> None:
    with rest.running(lambda _: rest.Answer({})) as server:
        alert = spec(on=("error", "drift"), webhook=f"{server.url}/hook?key={SECRET}")
        assert sent(alert, everything(), tmp_path) == ([], [])
        [asked] = server.requests
    body = json.loads(asked.body)
    assert (asked.path, asked.params, asked.headers["Content-Type"]) == ("/hook", {"key": SECRET}, "application/json")
    assert body["events"] == ["error", "drift"]
    assert {c["check"] for c in body["checks"]} == {"range.price", "freshness.updated_at", "drift.price", "drift.email"}
    assert body["checks"][0] == {
        "source": "orders",
        "check": "range.price",
        "severity": "error",
        "message": "price: 40 of 1,000 values are not as they should be",
        "failed_records": 40,
    }
    assert (body["pipeline"], body["status"], body["page"]) == ("shop", "blocked", str(tmp_path / "page.html"))
    assert body["headline"] == "Blocked: 2 ERROR checks failed on orders. Nothing was published."


def test_slack_gets_its_own_form(tmp_path: Path) -> None:
    with rest.running(lambda _: rest.Answer(b"ok")) as server:
        alert = spec(on=("failed", "warning"), webhook=f"{server.url}/services/{SECRET}", template="slack")
        results = [check("range", "<!channel>", False, "warning", message="`a` & <b>")]
        error = {"code": "source.x", "message": "gone", "where": "sources.orders", "fix": "start it"}
        assert sent(alert, report("failed", results, error), tmp_path) == ([], [])
        [asked] = server.requests
    body = json.loads(asked.body)
    assert body["text"] == "shop: failed. Failed: gone."
    assert [block["type"] for block in body["blocks"]] == ["header", "section", "context"]
    section = body["blocks"][1]["text"]
    assert section == {
        "type": "mrkdwn",
        "text": "*Failed: gone.*\n• WARNING `range.&lt;!channel&gt;` on orders: 'a' &amp; &lt;b&gt;\nWhat to do: start it",
    }


def test_many_checks_fit() -> None:
    found = message(many(1000, 900), ["error", "warning"], None)
    assert (len(found["checks"]), found["more_checks"]) == (MOST, 900 - MOST)
    body = slack(found)
    assert all(len(block["text"]["text"]) <= 3000 for block in body["blocks"][:2])


@pytest.mark.parametrize(
    ("answers", "retries", "said", "pauses"),
    [
        ([500, 503, 200], 3, None, [0.5, 1.0]),
        ([500] * 9, 2, "HTTP 500, at the last of 3 attempts", [0.5, 1.0]),
        ([404], 3, "HTTP 404, at the first attempt", []),
        ([302, 200], 3, "HTTP 302, at the first attempt", []),
        ([429, 204], 3, None, [7.0]),
        ([500], 0, "HTTP 500, at the first attempt", []),
    ],
)
def test_what_may_pass_is_tried_again(
    tmp_path: Path, answers: list[int], retries: int, said: str | None, pauses: list[float]
) -> None:
    given_ = iter(answers)

    def answer(_: rest.Request) -> rest.Answer:
        status = next(given_)
        headers = {"Retry-After": "7"} if status == 429 else {"Location": "/elsewhere"} if status == 302 else {}
        return rest.Answer({}, status, headers)

    with rest.running(answer) as server:
        alert = spec(webhook=f"{server.url}/{SECRET}", max_retries=retries)
        found = sent(alert, everything(), tmp_path)
    assert found == ([f"the alert oncall could not be delivered: {said}"] if said else [], pauses)


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "http://nowhere.invalid", "http://127.0.0.1:9/\ud800"])
def test_the_address_is_never_said(
    tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    alert = spec(webhook=f"{host}/{SECRET}", max_retries=1)
    [said], _ = sent(alert, everything(), tmp_path)
    assert said.startswith("the alert oncall could not be delivered: ")
    with rest.running(lambda _: rest.Answer({}, 400)) as server:
        sent(spec(webhook=f"{server.url}/{SECRET}"), everything(), tmp_path)
    logged = "\n".join(record.getMessage() for record in caplog.records)
    for text in (said, logged, repr(alert), str(alert.model_dump(mode="json"))):
        assert "hunter2" not in text


def test_a_command_gets_the_json_on_its_input_and_no_shell_sees_it(tmp_path: Path) -> None:
    program(tmp_path, "json.dump([sys.argv[1:], json.load(sys.stdin), os.getcwd()], open('told.json', 'w'))")
    words = ("$(touch owned)", "; touch owned", "a b")
    assert sent(spec(command=("./told.py", *words)), everything(), tmp_path) == ([], [])
    arguments, body, folder = json.loads((tmp_path / "told.json").read_text())
    assert (arguments, folder) == (list(words), str(tmp_path))
    assert body == message(everything(), list(body["events"]), tmp_path / "page.html")
    assert not (tmp_path / "owned").exists()


def test_a_command_that_fails_is_tried_again_and_one_that_hangs_is_ended(tmp_path: Path) -> None:
    count = tmp_path / "count"
    program(
        tmp_path, f"open({str(count)!r}, 'a').write('x'); sys.exit(3 if os.path.getsize({str(count)!r}) < 3 else 0)"
    )
    assert sent(spec(command=("./told.py",)), everything(), tmp_path) == ([], [0.5, 1.0])
    count.unlink()
    said, _ = sent(spec(command=("./told.py",), max_retries=1), everything(), tmp_path)
    assert said == ["the alert oncall could not be delivered: exit code 3, at the last of 2 attempts"]
    program(tmp_path, f"open({str(count)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    said, _ = sent(spec(command=("./told.py",), max_retries=0, timeout_seconds=1.0), everything(), tmp_path)
    assert said == ["the alert oncall could not be delivered: no end within 1 s, at the first attempt"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(count.read_text()), 0)
    said, pauses = sent(spec(command=("no-such-program-anywhere",)), everything(), tmp_path)
    assert "cannot be started (No such file or directory), at the first attempt" in said[0]
    assert pauses == []
    program(tmp_path, "sys.exit(0)")  # without reading what it is told
    assert sent(spec(command=("./told.py",)), many(1000, 1000), tmp_path) == ([], [])


def test_a_run_tells_and_its_outcome_stays_what_it_is(tmp_path: Path) -> None:
    write_world(tmp_path)
    failing = {"users": {"range_constraints": {"experience_years": [0, 2]}}}
    answers = itertools.cycle([500])
    with rest.running(lambda _: rest.Answer({}, next(answers))) as server:
        alerts = {
            "hook": {"on": ["warning"], "webhook": f"{server.url}/{SECRET}", "max_retries": 0},
            "quiet": {"on": ["error", "failed"], "webhook": f"{server.url}/never"},
        }
        found = run_pipeline(pipeline(tmp_path, validation=failing, alerts=alerts), as_of="2025-10-04")
        [asked] = server.requests
    assert (found.status, found.exit_code) == ("done", 0)
    said = "the alert hook could not be delivered: HTTP 500, at the first attempt"
    assert found.warnings == [said]
    kept = json.loads((tmp_path / f".maestro/reports/small/{found.run_id}.json").read_text())
    page = tmp_path / f".maestro/reports/small/{found.run_id}.html"
    assert kept == json.loads(json.dumps(found.to_dict()))
    assert said in page.read_text()
    body = json.loads(asked.body)
    assert (body["run_id"], body["page"], body["checks"][0]["check"]) == (
        found.run_id,
        str(page),
        "range.experience_years",
    )
    assert "hunter2" not in "".join(path.read_text() for path in page.parent.iterdir())


def test_a_failed_run_tells(tmp_path: Path) -> None:
    write_world(tmp_path)
    (tmp_path / "data" / "users.parquet").write_bytes(b"no parquet")
    with rest.running(lambda _: rest.Answer({})) as server:
        alerts = {"hook": {"on": ["failed"], "webhook": server.url}}
        with pytest.raises(SourceError) as raised:
            run_pipeline(pipeline(tmp_path, alerts=alerts), as_of="2025-10-04")
        [asked] = server.requests
    body = json.loads(asked.body)
    assert (body["events"], body["status"], body["error"]["code"]) == (["failed"], "failed", raised.value.code)


HEAD = "version: 1\nname: p\nsources: {s: {type: file, path: a.csv}}\nalerts:\n"


def test_yaml_and_python_declare_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"https://hooks.example.com/{SECRET}")
    path = tmp_path / "p.yaml"
    path.write_text(
        f"{HEAD}  a: {{on: [error, drift], webhook: '${{HOOK}}', template: slack}}\n  b: {{on: [failed], command: [./x, y]}}\n"
    )
    alerts = {
        "a": {"on": ["error", "drift"], "webhook": f"https://hooks.example.com/{SECRET}", "template": "slack"},
        "b": AlertSpec(on=("failed",), command=("./x", "y")),
    }
    loaded = load_pipeline(path)
    assert loaded == Pipeline(name="p", sources={"s": {"type": "file", "path": "a.csv"}}, alerts=alerts)
    plan = compile_plan(loaded, "2025-10-04", history=False)
    assert plan.to_dict()["alerts"] == [
        {"name": "a", "on": ["error", "drift"], "by": "webhook"},
        {"name": "b", "on": ["failed"], "by": "command"},
    ]
    assert "hunter2" not in f"{loaded!r}{plan!r}{plan.to_dict()}"


@pytest.mark.parametrize(
    ("alert", "code", "said"),
    [
        ("{on: [error]}", "config.alert", "neither a webhook nor a command"),
        ("{on: [error], webhook: 'http://x', command: [y]}", "config.alert", "a webhook and a command"),
        ("{on: [], webhook: 'http://x'}", None, "on"),
        ("{on: [eror], webhook: 'http://x'}", None, "did you mean 'error'"),
        ("{on: [error, error], webhook: 'http://x'}", None, "twice"),
        ("{on: [error], webhok: 'http://x'}", None, "did you mean 'webhook'"),
        ("{on: [error], webhook: 'hunter2secret'}", "config.url", "no http:// or https:// URL"),
        ("{on: [error], webhook: 'http://hunter2secret:99999/x'}", "config.url", "port"),
        ("{on: [error], command: [x], template: slack}", "config.alert", "no use with a command"),
        ("{on: [error], command: x hunter2secret}", None, "command"),
        ("{on: [error], command: [x], timeout_seconds: 0}", None, "timeout_seconds"),
    ],
)
def test_mistakes_have_their_place_and_show_no_secret(tmp_path: Path, alert: str, code: str | None, said: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}  a: {alert}\n")
    with pytest.raises(ConfigError) as raised:
        load_pipeline(path)
    text = str(raised.value)
    assert said in text
    assert f"{path}:5:" in text
    assert code is None or raised.value.code == code
    assert "hunter2" not in text

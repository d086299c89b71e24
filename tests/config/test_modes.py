"""The rules of modes, cursors, choice of columns, the shared ledger and retention; planted mistakes of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import Pipeline, compile_plan, load_pipeline
from engine.errors import ConfigError
from engine.spec import DatabaseSpec
from engine.types import Duration
from tests.config.whole import PIPELINE, SECRETS

KEYED = {"keys": ["id"]}


def declared(source: dict[str, Any] | None = None, **sections: Any) -> Pipeline:
    database = {"type": "database", "connection_string": "sqlite:///a.db", "table": "t"}
    return Pipeline(**{"name": "p", "sources": {"s": {**database, **(source or {})}}, **sections})


def spec(**keys: Any) -> DatabaseSpec:
    found = declared(keys).sources["s"]
    assert isinstance(found, DatabaseSpec)
    return found


@pytest.mark.parametrize(
    ("keys", "mode"),
    [
        ({}, "full"),
        ({"deduplicate": KEYED}, "full"),
        ({"cursor": "at"}, "append"),
        ({"cursor": "at", "deduplicate": KEYED}, "merge"),
        ({"cursor": "at", "deduplicate": KEYED, "mode": "append"}, "append"),
        ({"mode": "merge", "deduplicate": KEYED}, "merge"),
        ({"mode": "full"}, "full"),
        ({"mode": None, "cursor": "at"}, "append"),
    ],
)
def test_the_mode_follows_from_cursor_and_key(keys: dict[str, Any], mode: str) -> None:
    assert spec(**keys).effective_mode == mode
    [source] = compile_plan(declared(keys), "2025-10-04").sources
    assert (source.mode, source.to_dict()["mode"]) == (mode, mode)
    assert source.to_dict()["cursor"] == keys.get("cursor")


def test_what_is_not_declared_has_its_default() -> None:
    found = spec(cursor="at", deduplicate=KEYED)
    assert (found.columns, found.filter, found.lateness, found.tombstone) == ((), None, None, None)
    assert (found.deletes, found.consistent) == ("find", False)
    plan = compile_plan(declared(), "2025-10-04")
    assert (plan.retention, plan.ledger_url) == (None, None)


def test_files_objects_and_apis_are_read_in_full(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    plan = compile_plan(load_pipeline(path), "2025-10-04")
    assert {s.name: s.mode for s in plan.sources} == dict.fromkeys(
        ["users", "activities", "tasks", "projects", "teams"], "full"
    )


# (keys of the source, code, place, words of the message, words of the fix)
RULES: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({"mode": "append"}, "config.mode", "mode", "mode append needs a cursor", "add cursor: COLUMN, or use mode: full"),
    ({"mode": "merge"}, "config.mode", "mode", "mode merge needs to know the key", "add deduplicate: {keys: [COLUMN]}"),
    ({"mode": "merge", "cursor": "at"}, "config.mode", "mode", "the key of a row", "add deduplicate: {keys: [COLUMN]}"),
    ({"mode": "full", "cursor": "at"}, "config.mode", "cursor", "no use where each run reads everything", "use mode: append or merge, or remove cursor"),
    ({"mode": "full", "cursor": "at", "deduplicate": KEYED}, "config.mode", "cursor", "no use", "remove cursor"),
    ({"lateness": "1h"}, "config.mode", "lateness", "lateness has no use without a cursor", "add cursor: COLUMN, or remove lateness"),
    ({"lateness": 0}, "config.mode", "lateness", "without a cursor", "remove lateness"),
    ({"mode": "merge", "deduplicate": KEYED, "lateness": 3}, "config.mode", "lateness", "without a cursor", "add cursor: COLUMN"),
    ({"cursor": "at", "tombstone": "gone"}, "config.mode", "tombstone", "tombstone has no use in mode append", "use mode: merge, or remove tombstone"),
    ({"tombstone": "gone"}, "config.mode", "tombstone", "tombstone has no use in mode full", "use mode: merge, or remove tombstone"),
    ({"deletes": "ignore"}, "config.mode", "deletes", "deletes has no use in mode full", "use mode: merge, or remove deletes"),
    ({"deletes": "find", "cursor": "at"}, "config.mode", "deletes", "deletes has no use in mode append", "remove deletes"),
    ({"columns": ["id"], "cursor": "at"}, "config.column_not_read", "cursor", "'at' is not among the columns to read", "add 'at' to columns"),
    ({"columns": ["id", "at"], "cursor": "at", "deduplicate": KEYED, "tombstone": "gone"}, "config.column_not_read", "tombstone", "'gone'", "add 'gone' to columns"),
    ({"columns": ["at"], "deduplicate": KEYED}, "config.column_not_read", "deduplicate.keys[0]", "'id'", "add 'id' to columns"),
    ({"columns": ["id"], "deduplicate": {"keys": ["id"], "order_by": "n"}}, "config.column_not_read", "deduplicate.order_by", "'n'", "add 'n' to columns"),
    ({"columns": ["id"], "required_columns": ["id", "v"]}, "config.column_not_read", "required_columns[1]", "'v'", "add 'v' to columns"),
    ({"columns": ["id"], "critical_columns": ["v"]}, "config.column_not_read", "critical_columns[0]", "'v'", "add 'v' to columns"),
    ({"columns": ["id"], "column_mapping": {"a": "b"}}, "config.column_not_read", "column_mapping.a", "'b'", "add 'b' to columns"),
    ({"cursor": "at", "column_mapping": {"at": "moment"}}, "config.renamed_column", "cursor", "'at'", "'moment'"),
    ({"columns": ["k"], "column_mapping": {"k": "id"}}, "config.renamed_column", "columns[0]", "'k'", "'id'"),
    ({"cursor": "at", "deduplicate": KEYED, "tombstone": "g", "column_mapping": {"g": "gone"}}, "config.renamed_column", "tombstone", "'g'", "'gone'"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "code", "place", "message", "fix"), RULES)
def test_each_rule_says_what_is_wrong_and_what_to_do(
    keys: dict[str, Any], code: str, place: str, message: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(keys)
    found = [(p.code, p.where) for p in caught.value.problems]
    assert (code, f"sources.s.{place}") in found
    problem = caught.value.problems[found.index((code, f"sources.s.{place}"))]
    assert message in problem.message
    assert fix in (problem.fix or "")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("keys", [rule[0] for rule in RULES if rule[1] == "config.mode"])
def test_a_mode_mistake_is_the_only_one(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(keys)
    assert [p.code for p in caught.value.problems] == ["config.mode"]


@pytest.mark.parametrize(
    "keys",
    [
        {"cursor": "moment", "column_mapping": {"at": "moment"}, "lateness": "90s"},
        {"cursor": "at", "lateness": 0},
        {"cursor": "at", "deduplicate": KEYED, "tombstone": "gone", "deletes": "ignore"},
        {"mode": "merge", "deduplicate": KEYED, "deletes": "find"},
        {"columns": ["id", "moment"], "column_mapping": {"at": "moment"}, "cursor": "moment"},
        {"columns": ["id", "at", "gone"], "cursor": "at", "deduplicate": KEYED, "tombstone": "gone"},
        {"filter": "n > 3 -- of them", "columns": ["id"]},
        {"tombstone": None, "lateness": None},
        {"consistent": True},
    ],
)
def test_what_goes_together_is_accepted(keys: dict[str, Any]) -> None:
    assert declared(keys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lateness", "1 hour"),
        ("lateness", "0h"),
        ("lateness", -1),
        ("lateness", 1.5),
        ("lateness", True),
        ("mode", "upsert"),
        ("deletes", "keep"),
        ("cursor", ""),
        ("columns", ["id", "id"]),
        ("columns", "id"),
        ("filter", ""),
        ("consistent", "yes"),
    ],
)
def test_values_that_are_none_of_a_key(key: str, value: Any) -> None:
    keys = {"cursor": "at", "deduplicate": KEYED, key: value}
    with pytest.raises(ConfigError) as caught:
        declared(keys)
    places = {p.where.removeprefix("sources.s.").partition("[")[0].partition(".")[0] for p in caught.value.problems}
    assert places == {key}
    assert all(p.fix or p.allowed for p in caught.value.problems)


@pytest.mark.parametrize("url", ["sqlite:///ledger.db", "mysql://u:hunter2secret@h/d", "postgres:u@h", "ledger.db", "http://h"])  # fmt: skip
def test_a_ledger_that_is_no_postgresql_database(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(ledger=url)
    [problem] = caught.value.problems
    assert (problem.code, problem.where) == ("config.ledger", "ledger")
    assert problem.allowed == "postgresql://user:password@host/db"
    assert problem.fix == "correct it, or remove ledger: then it is a SQLite file in workdir"
    assert "hunter2secret" not in f"{caught.value} {caught.value.to_dict()}"


@pytest.mark.parametrize("url", ["postgresql://u:p@h/d", "postgres://u:p@h/d"])
def test_a_shared_ledger_is_never_shown(url: str) -> None:
    pipeline = declared(ledger=url.replace(":p@", ":hunter2secret@"))
    plan = compile_plan(pipeline, "2025-10-04", history=False)
    assert plan.ledger_url == url.replace(":p@", ":hunter2secret@")
    assert "hunter2secret" not in f"{pipeline!r} {plan!r} {plan.to_dict()}"


@pytest.mark.parametrize("text", ["7", "7 days", "-7d", "0d", "1.5d", "7D", "forever", ""])
def test_retention_is_a_duration(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(retention=text)
    [problem] = caught.value.problems
    assert (problem.code, problem.where) == ("config.value", "retention")
    assert problem.fix or problem.allowed


def test_retention_reaches_the_plan() -> None:
    assert compile_plan(declared(retention="7d"), "2025-10-04").retention == Duration("7d")


# --- planted mistakes -----------------------------------------------------------------------------------------------

INCREMENTAL = PIPELINE.replace(
    "    batch_size: 50000\n",
    "    cursor: updated_at\n    lateness: 1h\n    tombstone: gone\n    deletes: find\n"
    "    columns: [user_id, email, updated_at, gone]\n    filter: id > 0\n    batch_size: 50000\n",
).replace("workdir: ./.maestro\n", "workdir: ./.maestro\nledger: ${APP_DB_URL}\nretention: 7d\n")
# As in tests/config/mistakes.py; `users` begins at line 7, its cursor is line 15.
MISTAKES = [
    ("ledger: ${APP_DB_URL}", "ledger: sqlite:///x.db", 4, "config.ledger", ["no PostgreSQL database", "remove ledger"]),
    ("ledger: ${APP_DB_URL}", "ledger: ${APP_DB_ULR}", 4, "config.unset_variable", ["APP_DB_ULR is not set"]),
    ("retention: 7d", "retention: 7", 5, "config.type", ["expected a text"]),
    ("retention: 7d", "retention: 7 days", 5, "config.value", ["s, m, h, d or w"]),
    ("retention: 7d", "retension: 7d", 5, "config.unknown_key", ["did you mean 'retention'?"]),
    ("    cursor: updated_at\n", "    curser: updated_at\n", 15, "config.unknown_key", ["did you mean 'cursor'?"]),
    ("cursor: updated_at", "cursor: [updated_at]", 15, "config.type", ["expected a text"]),
    ("lateness: 1h", "lateness: an hour", 16, "config.value", ["s, m, h, d or w"]),
    ("lateness: 1h", "lateness: 1.5", 16, "config.type", ["lateness"]),
    ("tombstone: gone", "tombstone: deleted", 17, "config.column_not_read", ["'deleted'", "add 'deleted' to columns"]),
    ("deletes: find", "deletes: keep", 18, "config.value", ["find or ignore"]),
    ("    deletes: find\n", "    deletes: find\n    mode: append\n", 17, "config.mode", ["no use in mode append", "use mode: merge"]),
    ("    deletes: find\n", "    mode: upsert\n", 18, "config.value", ["full, append or merge"]),
    ("[user_id, email, updated_at, gone]", "[user_id, updated_at, gone]", 11, "config.column_not_read", ["'email'"]),
    ("[user_id, email, updated_at, gone]", "[user_id, email, updated_at, gone, gone]", 19, "config.value", ["listed twice"]),
    ("filter: id > 0", "filter: [id > 0]", 20, "config.type", ["expected a text"]),
    ("filter: id > 0", "where: id > 0", 20, "config.unknown_key", ["unknown key 'where'"]),
]  # fmt: skip


def test_the_incremental_file_without_mistakes_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(INCREMENTAL)
    source = compile_plan(load_pipeline(path), "2025-10-04", history=False).sources[0]
    assert (source.mode, INCREMENTAL.splitlines()[14].strip()) == ("merge", "cursor: updated_at")


@pytest.mark.parametrize(("old", "new", "line", "code", "words"), MISTAKES)
def test_each_mistake_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, code: str, words: list[str]
) -> None:
    assert INCREMENTAL.count(old) == 1, f"{old!r} must stand once"
    path = tmp_path / "pipeline.yaml"
    path.write_text(INCREMENTAL.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        compile_plan(load_pipeline(path), history=False)
    first = caught.value.problems[0]
    assert (first.code, first.line) == (code, line)
    assert {p.code for p in caught.value.problems} == {code}
    assert first.column is not None
    assert first.fix
    for word in words:
        assert word in str(caught.value)
    for secret in SECRETS.values():
        assert secret not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path], "nothing may be read or written"

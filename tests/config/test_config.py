"""How the pipeline file is read, and that its Python twin is the same object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine import Pipeline, compile_plan, load_pipeline
from engine.config import json_schema, load_validation
from engine.document import read_document
from engine.errors import ConfigError
from tests.config.mistakes import MISTAKES
from tests.config.whole import PIPELINE, SECRETS

AS_OF = "2025-10-04"


def write(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text)
    return path


def twin(base: Path) -> Pipeline:
    return Pipeline(
        base=base,
        name="work_tracking",
        workdir="./.maestro",
        sources={
            "users": {
                "type": "database",
                "connection_string": SECRETS["APP_DB_URL"],
                "table": "users",
                "column_mapping": {"id": "user_id", "email_address": "email"},
                "required_columns": ["user_id", "email"],
                "critical_columns": ("user_id",),
                "deduplicate": {"keys": ["user_id"], "order_by": "updated_at"},
                "batch_size": 50000,
                "max_retries": 3,
                "timeout_seconds": 300,
            },
            "activities": {"type": "file", "path": "data/activities/*.parquet"},
            "tasks": {
                "type": "api",
                "url": "https://tracker.example.com/tasks",
                "headers": {"Authorization": f"Bearer {SECRETS['API_TOKEN']}"},
                "params": {"state": "all"},
                "data_key": "tasks",
                "pagination": {"style": "page", "param": "page", "size_param": "per_page", "size": 1000},
                "deduplicate": {"keys": ["task_id"]},
            },
            "projects": {
                "type": "s3",
                "bucket": "lake",
                "key": "raw/projects.parquet",
                "endpoint_url": SECRETS["S3_URL"],
                "access_key": SECRETS["S3_KEY"],
                "secret_key": SECRETS["S3_SECRET"],
            },
            "teams": {"type": "file", "path": "data/teams.csv"},
        },
        validation={
            "users": {
                "schema": {"user_id": "string", "email": "string", "experience_years": "float"},
                "required_columns": ["user_id", "email"],
                "max_null_percentage": 0.05,
                "unique_columns": ["user_id", "email", ["user_id", "email"]],
                "range_constraints": {"experience_years": (0, 60), "updated_at": ("2020-01-01", None)},
                "categorical_constraints": {"status": ["active", "inactive", "pending"]},
                "freshness": {"timestamp_column": "updated_at", "max_age_hours": 24},
                "distribution": {"experience_years": 8.0, "hours": {"expected_mean": 8.0, "tolerance": 0.3}},
                "severity": {"range": "error", "range.experience_years": "warning"},
            }
        },
        features={
            "user_features": {
                "set": "user",
                "aggregation_window": "7d",
                "features": ["skill_score_backend", "tasks_completed_7d"],
                "sources": {"users": "users", "activities": "activities"},
            },
            "task_features": {},
            "project_features": {"normalize": False},
            "team_features": {},
        },
        output={"path": "./features"},
        feast={"repo": "./feature_repo", "project": "work_tracking"},
    )


def test_yaml_and_python_build_the_same_object_and_compile_plan(tmp_path: Path) -> None:
    declared, built = load_pipeline(write(tmp_path, PIPELINE)), twin(tmp_path)
    assert declared == built
    assert compile_plan(declared, AS_OF).to_dict() == compile_plan(built, AS_OF).to_dict()
    assert compile_plan(declared, AS_OF).views == compile_plan(built, AS_OF).views
    assert compile_plan(declared, AS_OF).sources == compile_plan(built, AS_OF).sources


def test_a_changed_value_makes_another_pipeline(tmp_path: Path) -> None:
    other = load_pipeline(write(tmp_path, PIPELINE.replace("max_retries: 3", "max_retries: 4")))
    assert other != twin(tmp_path)


def test_a_pipeline_never_changes(tmp_path: Path) -> None:
    pipeline = twin(tmp_path)
    with pytest.raises(Exception, match="frozen"):
        pipeline.name = "other"  # type: ignore[misc]


def test_python_mistakes_name_their_place() -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(name="x", sources={"a": {"type": "file", "path": "a.csv", "batchsize": 1}})
    assert caught.value.where == "sources.a.batchsize"
    assert "did you mean 'batch_size'?" in str(caught.value)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    pipeline = load_pipeline(write(tmp_path, PIPELINE))
    shown = (
        f"{pipeline!r} {pipeline} {json.dumps(compile_plan(pipeline, AS_OF).to_dict())} {pipeline.model_dump_json()}"
    )
    for name in ("APP_DB_URL", "API_TOKEN", "S3_KEY", "S3_SECRET"):
        assert SECRETS[name] not in shown
    assert "hunter2secret" not in shown


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("012", "012"), ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"), ("0x1f", "0x1f"), ("0o17", "0o17"), ("1_000", "1_000"), ("=", "="),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("12", 12), ("-3", -3),
        ("1.5", 1.5), ("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ('"12"', "12"), ("'true'", "true"),
        ("$${HOME}", "${HOME}"), ("a${S3_KEY}b", "aaccesskeyb"),
    ],
)  # fmt: skip
def test_scalars_are_read_as_yaml_1_2_does(tmp_path: Path, written: str, value: object) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"key: {written}\n")
    read = read_document(path).data["key"]
    assert (read, type(read)) == (value, type(value))


def test_a_variable_can_never_become_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", "x\nsecond: {a: 1}\n# &y *y")
    path = tmp_path / "x.yaml"
    path.write_text("key: ${EVIL}\n")
    assert read_document(path).data == {"key": "x\nsecond: {a: 1}\n# &y *y"}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20).map("t{}".format),
    st.lists(st.integers(), max_size=3)), min_size=1))  # fmt: skip
def test_what_pyyaml_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("yaml") / "x.yaml"
    text = yaml.safe_dump(data).replace("${", "$${")
    path.write_text(text, encoding="utf-8")
    assert read_document(path).data == data


def test_the_schema_accepts_what_the_loader_accepts() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(PIPELINE), schema)


STRUCTURAL = {"config.missing_key", "config.unknown_key", "config.type", "config.unknown_name", "config.table_or_query"}
# What JSON Schema cannot say: rules across keys, 1.0 being another number than 1, what a reader makes of long numbers.
ACROSS_KEYS = (
    "users:\n    schema",
    "severity: {ranges",
    "foreign_keys: {user_id: user.x}",
    "range.experience",
    "secret_key",
    "experience_years: [0, 60]",
    "    table:\n",
    "9" * 5000,
    "version: 1.0",
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (old, new)
        for old, new, _, code, _ in MISTAKES
        if code in STRUCTURAL and not any(rule in old or rule in new for rule in ACROSS_KEYS)
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(old: str, new: str) -> None:
    text = PIPELINE.replace(old, new).replace("012", "'012'").replace("normalize: on", "normalize: 'on'")
    data = yaml.safe_load(text.replace("5:00", "'5:00'"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema())


def test_every_key_of_the_schema_is_described_or_plain() -> None:
    text = json.dumps(json_schema())
    for key in ("column_mapping", "aggregation_window", "handle_missing", "max_null_percentage", "data_key"):
        assert f'"{key}"' in text


def test_relative_paths_start_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = write(tmp_path, PIPELINE)
    monkeypatch.chdir(elsewhere)
    compiled = compile_plan(load_pipeline(path), AS_OF)
    assert compiled.output == tmp_path / "features"
    assert compiled.workdir == tmp_path / ".maestro"
    assert compiled.feast_repo == tmp_path / "feature_repo"


def test_checks_can_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, "unique_columns: [a]\nrange_constraints: {b: [0, null]}\n")
    spec = load_validation(path)
    assert spec.unique_columns == ("a",)
    assert spec.range_constraints == {"b": (0, None)}
    write(tmp_path, "unique_columns: [a]\nrange_constraints: {b: [5, 1]}\n")
    with pytest.raises(ConfigError) as caught:
        load_validation(path)
    assert (caught.value.code, caught.value.problems[0].line) == ("config.range", 2)

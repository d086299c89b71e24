"""Planted mistakes: each is refused with its line, what is allowed and what to do, before anything is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli import main
from engine.config import load_pipeline
from engine.errors import ConfigError
from engine.plan import compile_plan
from tests.config.mistakes import MISTAKES
from tests.config.whole import PIPELINE, SECRETS


def compiled(path: Path) -> object:
    return compile_plan(load_pipeline(path))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("untouched")


def test_the_file_without_mistakes_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    assert compiled(path)


@pytest.mark.parametrize(("old", "new", "line", "code", "words"), MISTAKES)
def test_each_mistake_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, code: str, words: list[str]
) -> None:
    assert PIPELINE.count(old) == 1, f"{old!r} must stand once"
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        compiled(path)
    problems = caught.value.problems
    assert [p.code for p in problems] == [code]
    assert problems[0].line == line
    assert problems[0].file is not None
    assert problems[0].file.endswith("pipeline.yaml")
    assert problems[0].column is not None
    assert problems[0].fix
    for word in words:
        assert word in str(caught.value)
    for secret in SECRETS.values():
        assert secret not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path], "nothing may be read or written"


def test_all_mistakes_come_at_once_from_top_to_bottom(tmp_path: Path) -> None:
    text = PIPELINE.replace("batch_size: 50000", "batch_size: 0").replace("workdir:", "work_dir:")
    path = tmp_path / "pipeline.yaml"
    path.write_text(text.replace("normalize: true", "normalize: on"))
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path)
    assert [p.line for p in caught.value.problems] == [3, 13, 45]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "config.not_a_mapping"),
        (b"# nothing\n", "config.not_a_mapping"),
        (b"- a\n- b\n", "config.not_a_mapping"),
        (b"name: \xff\xfe\n", "config.encoding"),
        (b"name: a\x00b\n", "config.yaml"),
        (b"a: " + b"[" * 100 + b"]" * 100, "config.nesting"),
        (b"? [a]\n: b\n", "config.key"),
    ],
)
def test_what_is_no_pipeline_is_refused(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path)
    assert caught.value.code == code
    assert caught.value.problems[0].fix


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the file") as caught:
        load_pipeline(tmp_path / "absent.yaml")
    assert "maestro init" in str(caught.value)


def test_the_command_line_shows_mistakes_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.replace("normalize: true", "normalize: on"))
    assert main(["run", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pipeline.yaml:45:" in captured.err
    assert "Traceback" not in captured.err
    assert main(["check", str(path), "--json"]) == 2
    problem = json.loads(capsys.readouterr().out)["error"]["problems"][0]
    assert (problem["line"], problem["path"]) == (45, "features.user_features.normalize")


@pytest.mark.parametrize(
    "url",
    ["https://u:S3cr3tTok3nValue@h/x", "https://h/x?token=S3cr3tTok3nValue#frag", "ftp://h/?key=S3cr3tTok3nValue"],
)
def test_a_url_is_never_repeated(tmp_path: Path, url: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.replace("https://tracker.example.com/tasks", f"'{url}'"))
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path)
    assert caught.value.problems[0].line == 21
    assert "S3cr3tTok3nValue" not in f"{caught.value} {caught.value.to_dict()}"

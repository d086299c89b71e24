"""A small world with a pipeline file, and the command line as a function."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from tests.run.world import write_world

PIPELINE = """\
version: 1
name: small
sources:
  users:
    type: file
    path: data/users.parquet
    column_mapping: {id: user_id}
    critical_columns: [user_id]
    deduplicate: {keys: [user_id], order_by: updated_at}
  activities: {type: file, path: data/activities/*.parquet}
validation:
  users: {required_columns: [user_id], unique_columns: [user_id], range_constraints: {experience_years: [0, 2]}}
features:
  user_features: {handle_missing: keep, normalize: false}
"""
BLOCKING = "  activities: {categorical_constraints: {task_type: [backend]}}\nfeatures:\n"


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value and no more, without NaN."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


Maestro = Callable[..., Said]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command line sets the engine's logger up; other tests listen to it too."""
    logger = logging.getLogger("engine")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def maestro(capsys: pytest.CaptureFixture[str]) -> Maestro:
    """``maestro ARGUMENTS`` in this process."""

    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as end:  # argparse ends the process itself
            code = int(end.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with data, ``pipeline.yaml``, and ``blocked.yaml``, in which an ERROR check fails."""
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "blocked.yaml").write_text(PIPELINE.replace("features:\n", BLOCKING))
    (tmp_path / "wrong.yaml").write_text(PIPELINE.replace("type: file\n", "type: fiel\n"))
    (tmp_path / "absent.yaml").write_text(PIPELINE.replace("users.parquet", "nobody.parquet"))
    return tmp_path

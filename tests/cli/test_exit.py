"""How the command's process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PIPELINE = """
version: 1
name: small
sources:
  users: {type: file, path: users.csv, deduplicate: {keys: [user_id]}}
validation:
  users: {custom: {named: "user_id <> ''"}}
"""


def test_a_process_that_used_everything_ends_without_a_word(tmp_path: Path) -> None:
    """Native libraries complain of objects that are left when Python takes itself down."""
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "users.csv").write_text("user_id\nu1\nu1\nu2\n")
    command = [sys.executable, "-m", "engine", "run", "pipeline.yaml", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

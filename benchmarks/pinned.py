"""Programs that benchmarks compare, each in an environment of its own with pinned packages.

The pins are in the program's own header (the form of inline script metadata).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

VENVS = Path(__file__).parent / ".data" / "venvs"
HEADER = re.compile(r"^# /// script\n(?P<toml>(?:#.*\n)+?)# ///\n", re.MULTILINE)
INSTALL_SECONDS = 900


@dataclass(frozen=True)
class Program:
    """A script, run by the Python of its own environment."""

    script: Path

    @property
    def pins(self) -> list[str]:
        """What its header names; nothing means that it runs in the engine's own environment."""
        header = HEADER.search(self.script.read_text())
        assert header, f"{self.script} has no header"
        pins: list[str] = tomllib.loads(re.sub(r"^# ?", "", header["toml"], flags=re.MULTILINE))["dependencies"]
        return pins

    @property
    def python(self) -> Path:
        return self._venv / "bin" / "python" if self.pins else Path(sys.executable)

    @property
    def _venv(self) -> Path:
        return VENVS / self.script.parents[1].name / self.script.stem

    def install(self) -> str | None:
        """Makes its environment unless it stands; why it could not, if so."""
        stamp = self._venv / "pins.txt"
        wanted = "\n".join(self.pins)
        if not wanted or (stamp.exists() and stamp.read_text() == wanted):
            return None
        steps = (
            [sys.executable, "-m", "venv", "--clear", str(self._venv)],
            [str(self.python), "-m", "pip", "install", "--quiet", *self.pins],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
            if done.returncode != 0:
                return _last(done.stderr)
        stamp.write_text(wanted)
        return None


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1] if lines else "no message"

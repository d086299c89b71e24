"""Programs that benchmarks compare, each with the packages of its own header in an environment made for them.

The pins are in the form of inline script metadata. Scripts with the same pins share one environment.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

VENVS = Path(__file__).parents[1] / ".data" / "venvs"
HEADER = re.compile(r"^# /// script\n(?P<toml>(?:#.*\n)+?)# ///\n", re.MULTILINE)
INSTALL_SECONDS = 1_800


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
        pins = "\n".join(sorted(self.pins))
        return VENVS / f"{self.script.parents[1].name}-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"

    def install(self) -> str | None:
        """Makes its environment unless it stands; why it could not, if so."""
        if not self.pins or (self._venv / "installed.json").exists():
            return None
        VENVS.mkdir(parents=True, exist_ok=True)
        report = self._venv / "report.json"
        steps = (
            [sys.executable, "-m", "venv", "--clear", str(self._venv)],
            [str(self.python), "-m", "pip", "install", "--quiet", "--report", str(report), *self.pins],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
            if done.returncode != 0:
                return _last(done.stderr)
        found = json.loads(report.read_text())["install"]
        packages = {of["metadata"]["name"].lower(): _package(of) for of in found}
        (self._venv / "installed.json").write_text(json.dumps(packages, indent=1, sort_keys=True))
        return None

    @property
    def installed(self) -> dict[str, str]:
        """Every package of its environment, with its version and the hash of what was installed."""
        return json.loads((self._venv / "installed.json").read_text()) if self.pins else {}


def _package(of: dict) -> str:
    digest = of.get("download_info", {}).get("archive_info", {}).get("hashes", {}).get("sha256", "no hash")
    return f"{of['metadata']['version']} sha256:{digest}"


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1] if lines else "no message"

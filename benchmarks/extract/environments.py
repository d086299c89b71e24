"""One environment per contender, from the pins in its script's header (the form of inline script metadata)."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

CONTENDERS = Path(__file__).parent / "contenders"
VENVS = Path(__file__).parents[1] / ".data" / "venvs"
HEADER = re.compile(r"^# /// script\n(?P<toml>(?:#.*\n)+?)# ///\n", re.MULTILINE)
INSTALL_SECONDS = 900


@dataclass(frozen=True)
class Contender:
    """A script that reads one table; ``slow`` ones are not worth many runs."""

    name: str
    slow: bool = False

    @property
    def script(self) -> Path:
        return CONTENDERS / f"{self.name}.py"

    @property
    def pins(self) -> list[str]:
        """What its header names; nothing means that it runs in the engine's own environment."""
        header = HEADER.search(self.script.read_text())
        assert header, f"{self.script} has no header"
        pins: list[str] = tomllib.loads(re.sub(r"^# ?", "", header["toml"], flags=re.MULTILINE))["dependencies"]
        return pins

    @property
    def python(self) -> Path:
        return VENVS / self.name / "bin" / "python" if self.pins else Path(sys.executable)

    def install(self) -> str | None:
        """Makes its environment unless it stands; why it could not, if so."""
        stamp = VENVS / self.name / "pins.txt"
        wanted = "\n".join(self.pins)
        if not wanted or (stamp.exists() and stamp.read_text() == wanted):
            return None
        steps = (
            [sys.executable, "-m", "venv", "--clear", str(VENVS / self.name)],
            [str(self.python), "-m", "pip", "install", "--quiet", *self.pins],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
            if done.returncode != 0:
                return _last(done.stderr)
        stamp.write_text(wanted)
        return None


# In the order of the report: the floor, ours, then peers.
ALL = (
    Contender("copy"),
    Contender("ours"),
    Contender("connectorx"),
    Contender("polars"),
    Contender("dlt"),
    Contender("ingestr"),
    Contender("dlt_pyarrow", slow=True),
    Contender("pandas", slow=True),
    Contender("sling", slow=True),
)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1] if lines else "no message"

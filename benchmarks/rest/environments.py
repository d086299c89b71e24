"""Who takes part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.programs import Program

OURS = "ours"


@dataclass(frozen=True)
class Contender:
    """A script that reads all pages of a URL into a folder; ``slow`` ones are not worth many runs."""

    name: str
    slow: bool = False

    @property
    def program(self) -> Program:
        return Program(Path(__file__).parent / "contenders" / f"{self.name}.py")


ALL = (Contender(OURS), Contender("httpx_polars"), Contender("dlt", slow=True))

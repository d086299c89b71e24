"""Who is compared, in the order of the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.programs import Program

CONTENDERS = Path(__file__).parent / "contenders"
OURS = "ours"


@dataclass(frozen=True)
class Contender:
    """A script that checks one table; ``mode`` is its own last argument, ``slow`` ones are not worth many runs."""

    name: str
    file: str = ""
    mode: str = ""
    by_hand: bool = False
    slow: bool = False

    @property
    def program(self) -> Program:
        return Program(CONTENDERS / f"{self.file or self.name}.py")


ALL = (
    Contender(OURS),
    Contender("polars_query", by_hand=True),
    Contender("duckdb_query", by_hand=True),
    Contender("pointblank", mode="eager"),
    Contender("pointblank_lazy", "pointblank", mode="lazy"),
    Contender("pandera", mode="lazy"),
    Contender("pandera_eager", "pandera", mode="eager"),
    Contender("dataframely"),
    Contender("soda"),
    Contender("great_expectations", slow=True),
)

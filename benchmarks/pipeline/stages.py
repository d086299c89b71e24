"""What the stages of a contender took."""

import json
import time
from pathlib import Path


class Stages:
    """Begun with the first stage; each takes from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = time.perf_counter()

    def done(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._begun = now - self._begun, now

    def write(self, folder: Path) -> None:
        (folder / "stages.json").write_text(json.dumps(self.seconds))

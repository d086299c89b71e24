"""What hears of a run as it goes on."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears of a run as it goes on."""

    def step(self, stage: str, name: str) -> None:
        """Stage ``read``, ``check``, ``profile``, ``compute``, ``publish`` or ``feast`` begins on ``name``."""

    def rows(self, count: int) -> None:
        """So many rows of the current step are done."""


class Silent:
    """Progress that nobody watches."""

    def step(self, stage: str, name: str) -> None:
        pass

    def rows(self, count: int) -> None:
        pass

"""Every test of the configuration sees the variables that the whole pipeline names."""

from __future__ import annotations

import pytest

from tests.config.whole import SECRETS


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

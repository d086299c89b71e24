from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from engine.checks import groups


@pytest.fixture(scope="session")
def monkeypatch_grouping() -> Callable[[str], AbstractContextManager[None]]:
    """Make uniqueness believe that this is the memory limit, so that it proves by hashes or groups all rows."""

    @contextmanager
    def patched(memory_limit: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(groups, "_bytes", lambda _: 0 if memory_limit == "1KiB" else 2**29)
            yield

    return patched

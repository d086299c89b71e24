from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from engine.checks import groups, keys


@pytest.fixture(scope="session")
def monkeypatch_grouping() -> Callable[[str], AbstractContextManager[None]]:
    """With a limit of 1KiB uniqueness spills hashes, groups all rows, and does so in DuckDB."""

    @contextmanager
    def patched(memory_limit: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            if memory_limit == "1KiB":
                patch.setattr(keys, "_WORTH_FILTERING", -1)
                patch.setattr(groups, "_AT_ONCE", 0)
            yield

    return patched

"""A browser for all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Browser]:
    """A headless Chromium."""
    with chromium.running() as found:
        yield found

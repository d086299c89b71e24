"""The as-ofs that features are computed at; of its own, so that contenders import nothing they do not need."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

DAYS = 400
START = datetime(2024, 1, 1, tzinfo=UTC)
LAST = START + timedelta(days=DAYS - 1)


def as_ofs(count: int) -> list[datetime]:
    """Daily, the last of them near the end of the events."""
    return [LAST - timedelta(days=count - 1 - i) for i in range(count)]

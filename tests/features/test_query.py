"""The helpers that feature expressions may use, against Python's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.duck import connect
from engine.features.query import MACROS, timestamp

moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda d: d.replace(tzinfo=UTC))


@pytest.fixture(scope="module")
def duck() -> Iterator[Any]:
    with connect() as connection:
        for macro in MACROS:
            connection.execute(macro)
        yield connection


def test_strip_knows_all_white_space(duck: Any) -> None:
    spaces = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000 and chr(i).isspace()]
    assert len(spaces) > 20
    for space in spaces:
        text = f"{space}a{space}b{space * 2}"
        assert duck.execute("SELECT strip(?)", [text]).fetchone()[0] == f"a{space}b"


@given(st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8))
def test_strip_is_pythons(duck: Any, text: str) -> None:
    assert duck.execute("SELECT strip(?)", [text]).fetchone()[0] == text.strip()


@given(moments, moments)
def test_whole_days_are_floored_exactly(duck: Any, later: datetime, earlier: datetime) -> None:
    sql = f"SELECT whole_days({timestamp(later)}, {timestamp(earlier)})"
    assert duck.execute(sql).fetchone()[0] == (later - earlier) // timedelta(days=1)

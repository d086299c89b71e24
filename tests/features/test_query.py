"""The helpers that feature expressions may use, against Python's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.duck import connect
from engine.features.definition import Column
from engine.features.inputs import _parsed
from engine.features.query import MACROS, timestamp
from engine.moments import to_moment

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


digits = st.integers(0, 99).map("{:02d}".format)
zones = st.sampled_from(["", "Z", "+02", "+0200", "-03:30", "+14:00", "z", " UTC", "+2"])
texts = st.one_of(
    st.builds(
        lambda y, m, d, sep, h, mi, s, f, z: f"{y}-{m}-{d}{sep}{h}:{mi}{s}{f}{z}",
        st.sampled_from(["2024", "0001", "9999", "12024", "24"]),
        digits,
        digits,
        st.sampled_from(["T", " ", "  ", "t"]),
        digits,
        digits,
        digits.map(":{}".format) | st.just(""),
        st.sampled_from(["", ".5", ".123456789", ".1234567890123", ".9999999"]),
        zones,
    ),
    st.sampled_from(
        ["2024-01-01", " 2024-01-01 ", "2024-1-5", "2024/01/05", "epoch", "infinity", "2024-01-01 (BC)", ""]
    ),
)


@given(texts)
def test_features_read_text_moments_as_the_checks_do(duck: Any, text: str) -> None:
    parsed = _parsed(Column("x", "moment"), "x")
    found = duck.execute(f"SELECT epoch_us({parsed}) FROM (SELECT ? AS x)", [text]).fetchone()[0]
    frame = pl.DataFrame({"x": [text]})
    wanted = frame.select(to_moment(pl.col("x"), pl.String()).to_physical()).item()
    assert found == wanted

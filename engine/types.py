"""Small value types that everything above shares: durations, moments, severities, redaction."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from engine.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
DURATION_PATTERN = r"^[1-9][0-9]{0,8}[smhdw]$"
# A date, or a date and a time; seconds, their fraction and the offset may be absent. Any engine's regular expressions
# read it: Rust's for Polars, RE2 for DuckDB.
FIRST_MOMENT = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z in microseconds since 1970
LAST_MOMENT = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
ISO_MOMENT = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?$"
)
DEFAULT_MEMORY_LIMIT = "512MiB"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Severity(StrEnum):
    """How much a failed check matters. ERROR blocks the pipeline."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Duration:
    """A span of time such as ``7d``; units s, m, h, d, w."""

    text: str

    def __post_init__(self) -> None:
        if not re.match(DURATION_PATTERN, self.text):
            raise UsageError(
                f"{self.text!r} is not a duration",
                code="types.duration",
                allowed="a whole number and one unit of s, m, h, d, w",
                fix="write for example 90s, 15m, 6h, 7d or 4w",
            )

    @property
    def microseconds(self) -> int:
        return int(self.text[:-1]) * _UNITS[self.text[-1]] * 1_000_000

    @property
    def delta(self) -> timedelta:
        return timedelta(microseconds=self.microseconds)

    def __str__(self) -> str:
        return self.text


def parse_moment(value: str | date | datetime) -> datetime:
    """A moment as an aware UTC datetime with microseconds.

    ISO 8601 text, a date (its midnight UTC) or a datetime; without a zone it is UTC; ``now`` is the present;
    digits beyond microseconds are cut off.

    Raises:
        UsageError: the value is none of these.
    """
    if type(value).__module__ == "numpy":
        value = str(value)  # a datetime64 of any unit writes itself in ISO 8601
    if not isinstance(value, str | date) or value != value:  # pandas' NaT is a datetime
        raise UsageError(
            f"{value!r} is not a moment in time",
            code="types.moment",
            allowed="an ISO 8601 text, a date or a datetime",
            fix="write for example 2025-10-04 or 2025-10-04T06:30:00Z",
        )
    if isinstance(value, str):
        text = value.strip()
        if text.lower() == "now":
            return datetime.now(UTC)
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(
                f"{text!r} is not a moment in time",
                code="types.moment",
                allowed="an ISO 8601 date or timestamp, or now; UTC unless it carries an offset",
                fix="write for example 2025-10-04 or 2025-10-04T06:30:00Z",
            ) from None
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise UsageError(
            f"{value.isoformat()} lies outside the calendar in UTC",
            code="types.moment",
            allowed="years 1 to 9999",
            fix="use a moment within these years",
        ) from None


def epoch_microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exact."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def iso(moment: datetime) -> str:
    """``2025-10-04T00:00:00Z``, with microseconds only where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def compact(moment: datetime) -> str:
    """A moment for file names: ``20251004T000000Z``, sortable, no characters that file systems refuse."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return text.replace("-", "").replace(":", "") + "Z"


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret replaced by ``***``, longest first."""
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def size_of(text: str) -> int:
    """The bytes of a size such as ``64MiB``; units MB, GB, MiB, GiB."""
    number, unit = re.findall(r"^([0-9]+)(MB|GB|MiB|GiB)$", text)[0]
    return int(number) * {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}[unit]

"""Results as lines for people: what failed first, bounded; the same on a terminal and in ``print(report)``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.checks.result import Report, Result, json_ready
from engine.types import Severity

MOST = 40  # failed checks that are shown
_LONGEST = 80  # characters of a value
_COUNT = re.compile(r"^[\d,]+ of [\d,]+(?: \([^)]* %\))? ")
_ORDER = list(Severity)


@dataclass(frozen=True)
class Line:
    """One check: what it is called, what it found, and some of the rows that break it."""

    mark: str
    check: str
    failed: str
    share: str
    message: str
    examples: tuple[str, ...]


def lines(results: Iterable[Result]) -> list[Line]:
    """A line per result; errors first, then warnings, then what passed, each in the order given."""
    ordered = sorted(results, key=lambda result: (result.passed, _ORDER.index(result.severity)))
    return [_line(result) for result in ordered]


def _line(result: Result) -> Line:
    fraction = result.failed_fraction
    counts = fraction is not None and not result.cannot_run
    message = result.message.removeprefix(f"{result.column}: ")
    return Line(
        "passed" if result.passed else str(result.severity).upper(),
        _printable(result.name),
        f"{result.failed_records:,}" if counts else "",
        f"{100 * fraction:.3g} %" if counts and fraction is not None else "",
        _printable(_COUNT.sub("", message, count=1) if counts else message),
        tuple(map(example, result.sample)),
    )


def example(row: Mapping[str, Any]) -> str:
    """A failing row of a sample: its number, the place that it came from, its values."""
    names = list(row)
    position, *others = names
    if [name.lstrip("_") for name in names[:3]] == ["row", "origin", "origin_row"]:
        others = names[3:]
        origin, number = row[names[1]], row[names[2]]
        there = f"{origin} row {number:,}" if number is not None else f"{origin}"
        place = there if origin is not None else f"row {row[position]:,}"
    else:
        place = f"row {row[position]:,}"
    values = ", ".join(f"{name}={_short(row[name])}" for name in others)
    return _printable(f"{place}: {values}" if values else place)


def _short(value: Any) -> str:
    text = "null" if value is None else repr(json_ready(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _printable(text: str) -> str:
    """A text that stays on its line and says nothing to a terminal, whatever columns are called."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def sums(report: Report) -> str:
    """``1,000 rows, 3 of 5 checks passed, 1 error, 1 warning``."""
    parts = [f"{report.passed:,} of {_count(report.total_checks, 'check')} passed"]
    if report.rows is not None:
        parts.insert(0, _count(report.rows, "row"))
    if report.failed:
        parts += [_count(report.errors, "error"), _count(report.warnings, "warning")]
    parts += [f"{n:,} {name}" for name, n in (("quarantined", report.quarantined), ("dropped", report.dropped)) if n]
    return ", ".join(parts)


def more(hidden: int) -> str:
    """What to say of checks that are not shown."""
    return f"… and {_count(hidden, 'more failed check')}"


def text(report: Report, most: int = MOST) -> str:
    """The sums and the failed checks, as plain text."""
    failed = [result for result in report.results if not result.passed]
    shown = lines(failed)[:most]
    said = [sums(report)]
    widths = [max((len(cell) for cell in column), default=0) for column in zip(*map(_cells, shown), strict=True)]
    for line in shown:
        mark, check, count, share = (
            cell.rjust(width) if i > 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(_cells(line), widths, strict=True))
        )
        said.append(f"  {mark}  {check}  {count}  {share}  {line.message}")
        said += [f"      {row}" for row in line.examples]
    if len(failed) > len(shown):
        said.append(f"  {more(len(failed) - len(shown))}")
    return "\n".join(said)


def _cells(line: Line) -> Sequence[str]:
    return line.mark, line.check, line.failed, line.share


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

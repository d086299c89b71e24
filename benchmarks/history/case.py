"""Features at one and at many as-ofs: the events, how contenders are called, and whether the features are the same."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # as the contenders see it

import polars as pl
from polars.testing import assert_frame_equal

from benchmarks.harness.contest import DATA, Answer, Contender
from benchmarks.history.world import USERS, make

YEAR = 365  # as-ofs
SAMPLED = 5  # as-ofs that are computed where each needs a scan; scaled to all


@contextmanager
def cases(size: tuple[int, int], name: str) -> Iterator[list[Case]]:
    """Events, and how many as-ofs: one (also over a tenth of the events), and all, of the user set and a mixed view."""
    events, as_ofs = size
    few = events // 10
    for count in (events, few):
        make(DATA / "history" / str(count), count)
    reference = DATA / "history" / f"reference-{name}"
    shutil.rmtree(reference, ignore_errors=True)
    try:
        found = [
            Case("one", "User set, one as-of", "user", 1, events, reference),
            Case("tenth", "User set, one as-of, a tenth of the events", "user", 1, few, reference),
            Case("many", "User set, daily as-ofs", "user", as_ofs, events, reference),
            Case("mixed", "Mixed view, daily as-ofs", "mixed", as_ofs, events, reference),
        ]
        if 30 <= as_ofs < YEAR:
            found.append(Case("year", "Mixed view, daily as-ofs of a year", "mixed", YEAR, events, reference))
        yield found
    finally:
        shutil.rmtree(reference, ignore_errors=True)


class Case:
    """Some as-ofs; the last of every contender are compared with those of the first."""

    def __init__(self, name: str, title: str, kind: str, as_ofs: int, events: int, reference: Path) -> None:
        self.name, self.title, self.kind, self.as_ofs = name, title, kind, as_ofs
        self.folder, self.reference = DATA / "history" / str(events), reference / name
        self.facts = {"events": f"{events:,}", "users": f"{USERS:,}", "as-ofs": str(as_ofs)}

    def _count(self, contender: Contender) -> int:
        return min(SAMPLED, self.as_ofs) if contender.sampled else self.as_ofs

    def environment(self) -> Mapping[str, str]:
        return {"REFERENCE": str(self.reference)}

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        return [self.folder, self.kind, str(self._count(contender)), out]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        count = self._count(contender)
        if not self.reference.exists():
            shutil.copytree(out, self.reference)
        wrong = None
        try:
            for i in range(count) if thorough else ():
                one = pl.read_parquet(self.reference / f"{i + self.as_ofs - count}.parquet")
                other = pl.read_parquet(out / f"{i}.parquet").cast(dict(one.schema))
                assert one.height == USERS
                assert_frame_equal(one, other.select(one.columns), rel_tol=1e-9, abs_tol=1e-9)
        except (AssertionError, OSError, pl.exceptions.PolarsError) as error:
            wrong = str(error).splitlines()[0]
        note = f"its seconds are those of the last {count} as-ofs, times {self.as_ofs} / {count}"
        return Answer(wrong, (note,) if count < self.as_ofs else (), scale=self.as_ofs / count)

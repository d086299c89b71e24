"""Records of a REST server into Parquet: the server, how contenders are called, and whether all records landed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.contest import DATA, Answer, Contender
from benchmarks.rest.records import PAGE, compare, make

LATENCIES = (0, 20)  # ms before each answer


@contextmanager
def cases(size: int, _: str) -> Iterator[Iterator[Case]]:
    """A case per latency, one server at a time, each in a process of its own."""
    folder = DATA / "rest" / str(size)
    make(folder, size)
    yield (case for latency in LATENCIES for case in _case(folder, size, latency))


def _case(folder: Path, rows: int, latency: int) -> Iterator[Case]:
    command = [sys.executable, Path(__file__).parent / "server.py", folder / "pages", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/records"
            yield Case(rows, latency, url, folder / "reference.parquet")
        finally:
            server.terminate()


class Case:
    """One server; what it has is in the reference too."""

    def __init__(self, rows: int, latency: int, url: str, reference: Path) -> None:
        self.url, self.reference = url, reference
        self.name, self.title = f"{latency} ms", f"{latency} ms before each answer"
        self.facts = {"rows": f"{rows:,}", "page": f"{PAGE:,} records"}

    def environment(self) -> Mapping[str, str]:
        return {}

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        return [self.url, str(PAGE), out]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        found = compare(self.reference, out)
        wrong = "; ".join(f"{column}: {what}" for column, what in found.wrong.items())
        types = ", ".join(f"{column} as {kind}" for column, kind in found.types.items())
        return Answer(wrong or None, (f"right values of other types: {types}",) if types else (), size=found.size)

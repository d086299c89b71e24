"""Files on an object store into Parquet: the store, how contenders are called, and whether the whole table landed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.files.tables import bodies, frame, summary
from benchmarks.harness.contest import Answer, Contender


@contextmanager
def cases(size: tuple[int, int], _: str) -> Iterator[list[Case]]:
    """Parquet and CSV of one table, on one gateway: rows, files of each kind."""
    from tests.servers import ceph

    rows, files = size
    each = rows // files
    expected = summary(pl.concat([frame(i, each) for i in range(files)]).lazy())
    with ceph.running(on_disk=True) as server:
        store = server.store()
        for form in ("parquet", "csv"):
            for name, body in bodies(files, each, form):
                store.pipe(f"{ceph.BUCKET}/{name}", body)
        keys = {"ENDPOINT_URL": server.url, "ACCESS_KEY": ceph.ACCESS_KEY, "SECRET_KEY": ceph.SECRET_KEY}
        yield [Case(form, rows, files, keys | {"BUCKET": ceph.BUCKET}, expected) for form in ("parquet", "csv")]


class Case:
    """One kind of files; what landed comes to the same sums as the table."""

    def __init__(
        self, form: str, rows: int, files: int, variables: dict[str, str], expected: dict[str, float | int]
    ) -> None:
        self.name, self.variables, self.expected = form, variables, expected
        self.title = {"parquet": "Parquet", "csv": "CSV"}[form]
        self.facts = {"rows": f"{rows:,}", "files": f"{files:,}", "columns": "12"}

    def environment(self) -> Mapping[str, str]:
        return self.variables

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        return [self.name, out]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        files = [
            f for f in sorted(out.rglob("*.parquet")) if not any(p.startswith("_") for p in f.relative_to(out).parts)
        ]
        if not files:
            return Answer("nothing landed")
        scans = [pl.scan_parquet(f, hive_partitioning=False) for f in files]
        found: dict[str, Any] = summary(pl.concat(scans, how="diagonal_relaxed"))
        differ = [f"{name} {found[name]} for {value}" for name, value in self.expected.items() if found[name] != value]
        return Answer("; ".join(differ) or None, size=sum(f.stat().st_size for f in files))

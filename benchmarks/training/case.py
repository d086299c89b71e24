"""Training sets: what is joined, how contenders are called, and whether every value is that of DuckDB's own join."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from benchmarks.harness.contest import DATA, OURS, Answer, Contender
from benchmarks.training.world import TTLS, make


@contextmanager
def cases(size: tuple[int, int, int], name: str) -> Iterator[list[Case]]:
    """A short and a long ttl: entity rows, keys, days."""
    folder = DATA / "training" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        make(folder, *size)
        yield [Case(folder, size, ttl) for ttl in TTLS]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Case:
    """One ttl; the first contender's answer is what others are compared with."""

    def __init__(self, folder: Path, size: tuple[int, int, int], ttl: str) -> None:
        entities, keys, days = size
        self.folder, self.name, self.title = folder, ttl, f"{ttl} ttl ({TTLS[ttl]})"
        self.reference = folder / f"reference-{ttl}.parquet"
        self.facts = {"entity rows": f"{entities:,}", "feature rows": f"{keys * days:,}", "files": str(days)}

    def environment(self) -> Mapping[str, str]:
        return {"FEAST_USAGE": "False"}

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        return [self.folder, self.name, out / "set.parquet"]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        path = out / "set.parquet"
        if not self.reference.exists():
            shutil.copyfile(path, self.reference)
        said = (out.parent / "log.txt").read_text(errors="replace").splitlines()
        [seconds] = [map(float, line.split()[1:]) for line in said if line.startswith("inside")]
        figures = dict(zip(("inside", "call"), seconds, strict=False))
        wrong = self._differs(contender, path) if thorough else None
        return Answer(wrong, figures=figures, size=path.stat().st_size)

    def _differs(self, contender: Contender, path: Path) -> str | None:
        """In what an answer is not DuckDB's; None: in nothing."""
        expected = pl.read_parquet(self.reference).sort("label")
        found = pl.read_parquet(path, hive_partitioning=False)
        if contender.role == OURS and not found["label"].equals(pl.int_range(found.height, eager=True).alias("label")):
            return "the order"
        found = found.sort("label").select(expected.columns)
        if found.height != expected.height:
            return f"{found.height:,} rows"
        for name in expected.columns:
            # Feast's integers beside nulls are floats, with NaN for null.
            theirs, ours = (frame[name] for frame in (found, expected))
            if theirs.dtype != ours.dtype:
                theirs = (theirs.fill_nan(None) if theirs.dtype.is_float() else theirs).cast(ours.dtype)
            if not (theirs.fill_nan(None) if theirs.dtype.is_float() else theirs).equals(ours):
                return name
        return None

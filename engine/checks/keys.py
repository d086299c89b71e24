"""Which values may stand in more than one row: hashes collected while a table is scanned, in bounded memory.

Equal values have equal hashes, so rows whose hash occurs once need no second look. Most keys are unique, and this
proves it without reading them again. The hashes are those of one process and never stored beyond it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import polars as pl

_HASH_BYTES = 8
_PARTS = 32  # by the first bits of a hash; each is sorted by itself
_WORTH_FILTERING = 0.02  # repeated hashes per row; beyond that, all rows are grouped


class Keys:
    """The hashes of one key's values.

    Args:
        budget: how many bytes of hashes to hold; more are spilled.
        spill: the folder for these; None is one of the system's temporary folders.

    Attributes:
        rows: how many values were added.
    """

    def __init__(self, budget: int, spill: Path | None = None) -> None:
        self.rows = 0
        self._budget = budget
        self._spill = spill
        self._held: list[pl.Series] = []
        self._held_rows = 0
        self._folder: Path | None = None
        self._flushes = 0

    def add(self, values: pl.DataFrame) -> None:
        """Takes values, none of them null; a frame of several columns holds compound ones."""
        hashes = values.select(hash_of(values.columns)).to_series()
        self._held.append(hashes)
        self.rows += len(hashes)
        self._held_rows += len(hashes)
        if self._held_rows * _HASH_BYTES > self._budget:
            self._flush()

    def repeated(self) -> pl.Series | None:
        """The hashes that occur more than once, each once; None where they are too many to be of use."""
        found: list[pl.Series] = []
        count = 0
        for part in range(_PARTS):
            hashes = self._part(part)
            hashes = hashes.sort(in_place=True)
            twice = hashes.filter(hashes == hashes.shift(1)).unique()
            count += len(twice)
            if count > self.rows * _WORTH_FILTERING:
                return None
            found.append(twice)
        return pl.concat(found)

    def close(self) -> None:
        """Gives back memory and disk."""
        self._held = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _part(self, part: int) -> pl.Series:
        pieces = [hashes.filter(_part_of(hashes) == part) for hashes in self._held]
        if self._folder is not None:
            pieces += [pl.read_ipc(path).to_series() for path in sorted(self._folder.glob(f"{part}-*.arrow"))]
        return pl.concat(pieces, rechunk=True) if pieces else pl.Series([], dtype=pl.UInt64)

    def _flush(self) -> None:
        """Writes what is held, parted, so that each part can be read by itself."""
        if self._folder is None:
            if self._spill is not None:
                self._spill.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="maestro-keys-", dir=self._spill))
        parts = [_part_of(hashes) for hashes in self._held]
        for part in range(_PARTS):
            path = self._folder / f"{part}-{self._flushes}.arrow"
            mine = [hashes.filter(of == part) for hashes, of in zip(self._held, parts, strict=True)]
            pl.concat(mine).to_frame("hash").write_ipc(path)
        self._flushes += 1
        self._held, self._held_rows = [], 0


def hash_of(columns: list[str]) -> pl.Expr:
    """The 64-bit hash of a value, compound or not."""
    return (pl.col(columns[0]) if len(columns) == 1 else pl.struct(columns)).hash().alias("hash")


def _part_of(hashes: pl.Series) -> pl.Series:
    return (hashes // (2**64 // _PARTS)).cast(pl.UInt8)

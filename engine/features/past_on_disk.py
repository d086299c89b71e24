"""Looking up more entity rows than memory holds: through files in time order, and back in their own order.

Everything is dealt out into files by the range it falls in, and read again range by range; nothing is sorted that does
not fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from engine.features.past import CODE, NOWHERE, ROW, TIME, Moments, Past, Sweep, values
from engine.frames import column

_KEY_BYTES = 64  # that a key takes while rows are looked up, about
_EVERY = 64  # of the moments, that one is looked at to tell ranges that hold as many rows each
_BUCKET, _PASS = "_bucket", "_pass"


class LookUp:
    """The features of entity rows, by slices of these.

    Args:
        rows: what `engine.features.past.narrow` gives.
        schema: of the entity rows that they come from.
        size: rows that are looked at together, and that a slice has.
        memory: bytes that keys may take.
        folder: for files; new.
    """

    def __init__(
        self, rows: pl.LazyFrame, past: Past, schema: pl.Schema, *, size: int, memory: int, folder: Path
    ) -> None:
        self._past, self._schema, self._size, self._folder = past, schema, size, folder
        self._keys = [str(i) for i in range(len(past.keys))]
        folder.mkdir(parents=True)
        passes = self._dealt_out(rows, memory)
        for number in range(passes):
            self._pass(number)

    def slice(self, number: int, count: int) -> tuple[pl.DataFrame, int]:
        """The features of the rows of a slice, and how many of them held something."""
        found = self._read(f"found-{number}-*")
        if found is None:
            return pl.DataFrame(schema=dict(self._past.features)).clear(count), 0
        order = pl.repeat(None, count, dtype=pl.UInt32, eager=True)
        places = found[ROW] - number * self._size
        order = order.scatter(places, pl.int_range(found.height, dtype=pl.UInt32, eager=True))
        return found.select(column(name).gather(order) for name in self._past.features), found.height

    def _dealt_out(self, rows: pl.LazyFrame, memory: int) -> int:
        """Writes the rows by ranges of time, and by a hash of the key where the keys are too many; gives how many."""
        keys = pl.struct(self._keys).hash()
        told = rows.select(pl.len(), keys.approx_n_unique().alias("keys")).collect(engine="streaming")
        count, distinct = told.row(0)
        passes = 1 + int(distinct) * _KEY_BYTES * len(self._keys) // memory
        moments = rows.select(pl.col(TIME).gather_every(_EVERY)).collect(engine="streaming")[TIME].drop_nulls().sort()
        ranges = 1 + count // self._size * passes
        bounds = moments[[moments.len() * i // ranges for i in range(1, ranges) if moments.len()]].unique().sort()
        for start in range(0, count, self._size):
            chunk = rows.slice(start, self._size).collect(engine="in-memory")
            place = pl.int_range(pl.len(), dtype=pl.UInt32) + start
            chunk = chunk.with_columns(place.alias(ROW), (keys % passes).alias(_PASS)).drop_nulls()
            # A moment that bounds a range is a range of its own: any number of rows may have it.
            sides = [bounds.search_sorted(chunk[TIME], side=side) for side in ("left", "right")]
            chunk = chunk.with_columns((sides[0] + sides[1]).alias(_BUCKET))
            for (number, bucket), part in chunk.partition_by(_PASS, _BUCKET, include_key=False, as_dict=True).items():
                self._write(f"rows-{number}-{bucket:06}-{start}", part)
        return passes

    def _pass(self, number: int) -> None:
        files = sorted(self._folder.glob(f"rows-{number}-*.arrow"))
        if not files:
            return
        codes = pl.scan_ipc(files).select(self._keys).unique().collect(engine="streaming").with_row_index(CODE)
        sweep = Sweep(self._past, codes, self._schema)
        ranges: dict[str, list[Path]] = {}
        for file in files:
            ranges.setdefault(file.stem.split("-")[2], []).append(file)
        for bucket, mine in ranges.items():
            for i, rows in enumerate(self._fitting(mine)):
                coded = rows.join(codes, on=self._keys, maintain_order="left")
                passing = Moments(self._past, coded[TIME].to_numpy())
                at = sweep.places(coded[CODE].to_numpy().astype(np.int64), passing)
                held = at != NOWHERE
                hits = coded[ROW].filter(pl.Series(held))
                found = values(self._past, at[held])
                found = found.with_columns(hits, (hits // self._size).alias(_BUCKET))
                for (part,), held in found.partition_by(_BUCKET, include_key=False, as_dict=True).items():
                    self._write(f"found-{part}-{number}-{bucket}-{i}", held)
            for file in mine:
                file.unlink()

    def _fitting(self, files: Sequence[Path]) -> Iterator[pl.DataFrame]:
        """The rows of a range together; of one moment, that many may have, as many as fit."""
        held: list[pl.DataFrame] = []
        for file in files:
            held.append(pl.read_ipc(file))
            if int(files[0].stem.split("-")[2]) % 2 and sum(frame.height for frame in held) >= self._size:
                yield pl.concat(held)
                held = []
        if held:
            yield pl.concat(held)

    def _write(self, name: str, frame: pl.DataFrame) -> None:
        frame.write_ipc(self._folder / f"{name}.arrow", compression="lz4")

    def _read(self, pattern: str) -> pl.DataFrame | None:
        """The frames of files, which are gone then; None where there are none."""
        files = list(self._folder.glob(f"{pattern}.arrow"))
        frames = [pl.read_ipc(file) for file in files]
        for file in files:
            file.unlink()
        return pl.concat(frames, rechunk=True) if frames else None

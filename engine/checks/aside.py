"""Rows set aside: written as they are, with what they broke and where they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.errors import SinkError
from engine.frames import column, compacted

_FLUSH_ROWS = 50_000


@dataclass(frozen=True)
class Quarantine:
    """Where rows are set aside.

    Attributes:
        path: the Parquet file; written only if there are such rows. Its columns are the table's, and one more,
            ``quarantine`` (``_quarantine`` … where the table has a column of that name), a struct of ``id``,
            ``checks``, ``origin``, ``row``, ``run`` and ``read``.
        run: the run that judges.
        read: the read that is judged: that of rows of which the origins do not name another.
    """

    path: Path
    run: str = ""
    read: str = ""


class Aside:
    """Writes quarantined rows batch by batch."""

    def __init__(self, quarantine: Quarantine, columns: Sequence[str]) -> None:
        self._quarantine = quarantine
        self._columns = list(columns)
        self._name = struct_name(columns)
        self._held: list[pl.DataFrame] = []
        self._parts: list[Path] = []
        self._held_rows = 0
        self.rows = 0

    def add(self, rows: pl.DataFrame, broken: pl.Series, places: pl.DataFrame) -> None:
        """Sets rows aside.

        Args:
            rows: with at least the table's columns.
            broken: the names of the checks that each broke: List(String).
            places: ``origin`` (String), ``row`` (Int64) and ``read`` (String) of each, null where they are not known.

        Raises:
            SinkError: they cannot be written.
        """
        number = pl.int_range(self.rows, self.rows + rows.height, eager=True).cast(pl.String)
        about = pl.DataFrame(
            {
                "id": pl.Series([f"{self._quarantine.path.stem}:"]).new_from_index(0, rows.height) + number,
                "checks": broken,
                "origin": places["origin"],
                "row": places["row"],
                "run": pl.Series([self._quarantine.run]).new_from_index(0, rows.height),
                "read": places["read"].fill_null(self._quarantine.read),
            }
        ).to_struct(self._name)
        self._held.append(compacted(rows.select([column(name) for name in self._columns]).with_columns(about)))
        self.rows += rows.height
        self._held_rows += rows.height
        if self._held_rows >= _FLUSH_ROWS:
            self._flush()

    def close(self) -> None:
        """Puts all parts together; nothing is written where no row was set aside.

        Raises:
            SinkError: as `add`.
        """
        path = self._quarantine.path
        if not self._parts:
            if self._held:
                with writing(path):
                    self._write(path)
            return
        self._flush()
        with writing(path):
            parts = pl.concat([pl.scan_parquet(part, glob=False, hive_partitioning=False) for part in self._parts])
            parts.sink_parquet(path, compression="zstd", compression_level=1, maintain_order=True)
            for part in self._parts:
                part.unlink()

    def _flush(self) -> None:
        if not self._held:
            return
        path = self._quarantine.path
        part = path.with_name(f"{path.stem}.part{len(self._parts)}")
        with writing(path):
            self._write(part)
        self._parts.append(part)

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.concat(self._held).write_parquet(path, compression="zstd", compression_level=1)
        self._held, self._held_rows = [], 0


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a quarantine file is written into the engine's error."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SinkError(
            f"rows in quarantine could not be written: {str(error).strip().splitlines()[0]}",
            code="quarantine.unwritable",
            where=str(path),
            fix=f"make {path.parent} a folder that is there, can be written and has room, or name another",
        ) from None


def struct_name(columns: Sequence[str]) -> str:
    """The name of the column that tells about a quarantined row."""
    name = "quarantine"
    while name in columns:
        name = f"_{name}"
    return name

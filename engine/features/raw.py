"""The raw features of one as-of, on disk: whoever fills and scales them holds a slice at a time, never a whole day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.ipc
from polars.io.plugins import register_io_source

from engine.errors import SinkError
from engine.features.fit import missing

if TYPE_CHECKING:
    from collections.abc import Mapping

_CELLS = 2**19  # of a slice
_KEPT = "the rows of an as-of are kept there until they are published"
_LEAST = 8_192  # rows of a slice, however many columns there are


@dataclass(frozen=True)
class Raw:
    """Rows in an Arrow file of slices, in their order.

    Attributes:
        nulls: how many each column has, NaN counted.
    """

    path: Path
    schema: pl.Schema
    rows: int
    nulls: Mapping[str, int]

    def slices(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows, or just these columns of them; of no rows there is one empty slice."""
        chosen = list(self.schema) if columns is None else list(columns)
        places = [self.schema.names().index(name) for name in chosen]
        with pa.OSFile(str(self.path)) as file:  # not mapped: pages of a mapped file are memory of this process
            reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=places))
            for number in range(reader.num_record_batches):
                yield _frame(reader.get_batch(number)).select(chosen)
            if not reader.num_record_batches:
                yield pl.DataFrame(schema={name: self.schema[name] for name in chosen})

    def scan(self) -> pl.LazyFrame:
        """The rows, read slice by slice as they are asked for."""

        def read(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            left = self.rows if rows is None else rows
            for frame in self.slices(columns):
                part = frame.head(left)
                left -= part.height
                yield part if predicate is None else part.filter(predicate)

        return register_io_source(read, schema=self.schema)

    def remove(self) -> None:
        """Takes the file away."""
        self.path.unlink(missing_ok=True)


def slice_rows(columns: int) -> int:
    """How many rows a slice of so many columns has."""
    return max(_LEAST, _CELLS // max(columns, 1))


def write(reader: pa.RecordBatchReader, path: Path) -> Raw:
    """What a reader gives, in a file.

    Raises:
        SinkError: the disk is full or cannot be written; whatever the reader raises comes as it is.
    """
    schema = pl.DataFrame(pa.Table.from_batches([], reader.schema)).schema  # empty_table() imports pandas
    nulls, rows = dict.fromkeys(schema, 0), 0
    with ExitStack() as stack:
        with writing(path.parent, _KEPT):
            file = stack.enter_context(pa.OSFile(str(path), "wb"))
            writer = pa.ipc.new_file(file, reader.schema)
        for batch in reader:
            for name, count in missing(_frame(batch)).items():
                nulls[name] += count
            rows += batch.num_rows
            with writing(path.parent, _KEPT):
                writer.write_batch(batch)
        with writing(path.parent, _KEPT):
            writer.close()
            file.close()
    return Raw(path, schema, rows, nulls)


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(batch))


@contextmanager
def writing(folder: Path, kept: str) -> Iterator[None]:
    """Whatever cannot be written to a folder of a run's own is one error.

    Args:
        kept: what is kept there, and how long or how much.

    Raises:
        SinkError: it could not.
    """
    try:
        yield
    except OSError as error:
        raise SinkError(
            f"cannot write: {error.strerror or error}",
            code="output.unwritable",
            where=str(folder),
            fix=f"free disk space there; {kept}",
        ) from None

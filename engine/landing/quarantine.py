"""Rows set aside: as they are, with one column more that says why, where they came from, and in which run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.checks.aside import struct_name
from engine.landing import files, origin
from engine.landing.origin import Segment

REASONS = pl.Struct(
    {
        "id": pl.String,  # of the row, in all quarantine
        "checks": pl.List(pl.String),  # all that it broke
        "origin": pl.String,
        "row": pl.Int64,  # its number in the origin
        "run": pl.String,
        "read": pl.String,  # that it came in
    }
)


@dataclass(frozen=True)
class Aside:
    """Where the rows of a read go that do not go on.

    Attributes:
        folder: for their files; None: they are only counted.
        read: the read's identity, which the rows that do go on carry along too.
        run: the run's.
        held: the files of rows of the source that were set aside before: a row of them that is read again goes nowhere.
        ended: those of rows that were mended or given up since: what the table has in their place stays.
    """

    folder: Path | None = None
    read: str = ""
    run: str = ""
    held: Sequence[Path] = ()
    ended: Sequence[Path] = ()


def reasons_of(path: Path) -> str:
    """The name of the column of reasons in a quarantine file: the last."""
    return list(files.schema(path))[-1]


def without_reasons(path: Path, but: Sequence[Path] = ()) -> pl.LazyFrame:
    """The rows of a quarantine file, as they were, without those that also stand in one of the files ``but``."""
    reasons = reasons_of(path)
    rows = files.scan(path)
    for other in but:
        ids = files.scan(other).select(pl.col(reasons_of(other)).struct["id"])
        rows = rows.join(ids, left_on=pl.col(reasons).struct["id"], right_on="id", how="anti", maintain_order="left")
    return rows.select(pl.exclude(reasons))


def repeated(path: Path, known: Sequence[Path]) -> pl.Series:
    """The rows of a quarantine file, by number, that other files have already: of equal ones, as many as those have.

    Only files of the same columns and types have equal rows.
    """
    index = files.index_name(files.schema(path))
    schema = _schema(path)
    alike = [other for other in known if _schema(other) == schema]
    if not alike:
        return pl.Series(dtype=pl.get_index_type())
    before = pl.concat([without_reasons(other, alike[:i]) for i, other in enumerate(alike)])
    text = pl.struct(pl.all()).struct.json_encode().alias("text")
    nth = pl.int_range(pl.len()).over("text").alias("nth")
    now = without_reasons(path).select(text).with_row_index(index).with_columns(nth)
    both = now.join(before.select(text).with_columns(nth), on=["text", "nth"], how="semi")
    try:
        return both.select(index).collect()[index].sort()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):  # bytes and the like have no JSON: not compared
        return pl.Series(dtype=pl.get_index_type())


def _schema(path: Path) -> list[tuple[str, pl.DataType]]:
    return list(files.schema(path).items())[:-1]


def write(rows: pl.LazyFrame, path: Path, index: str, checks: pl.Expr, segments: Sequence[Segment], run: str) -> None:
    """Writes a quarantine file.

    Args:
        rows: those set aside, with their number among all in the column ``index``.
        checks: the names of what each of them broke.
        segments: where all rows came from.
    """
    columns = [name for name in rows.collect_schema().names() if name != index]
    number = pl.int_range(pl.len()).cast(pl.String)
    if len(segments) == 1 and (segments[0].runs is None or len(segments[0].runs) == 1):
        [at] = segments
        row = pl.lit(None, pl.Int64) if at.runs is None else pl.col(index).cast(pl.Int64) + at.runs[0][0]
        where = {"origin": pl.lit(at.origin), "row": row, "read": pl.lit(at.read)}
    else:
        table = origin.table([segments]).select(
            pl.col("start").cast(pl.get_index_type()).alias(index),
            pl.struct(pl.col("start").alias(index), "origin", "row", "read").alias(f"{index}#"),
        )
        rows = rows.join_asof(table.lazy(), on=index, check_sortedness=False)
        place = pl.col(f"{index}#").struct
        row = place["row"] + pl.col(index).cast(pl.Int64) - place[index]
        where = {"origin": place["origin"], "row": row, "read": place["read"]}
    fields = {"id": pl.lit(f"{path.stem}:") + number, "checks": checks, "run": pl.lit(run), **where}
    reasons = pl.struct([fields[field.name].cast(field.dtype).alias(field.name) for field in REASONS.fields])
    files.write(rows.with_columns(reasons.alias(struct_name(columns))).drop(index, f"{index}#", strict=False), path)

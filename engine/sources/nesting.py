"""Pages of records put together, and nested columns made flat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import polars as pl

from engine.frames import column as exactly
from engine.widening import Inexact, exact, fields, merged, widened

JOINT = "__"  # between the name of an object and that of its field


class Clash(Exception):  # noqa: N818 - for the caller to word
    """Two columns get this name."""


def stacked(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of all frames, each column in the type that holds all its values.

    Raises:
        Unfit: there is none, or it does not hold them exactly.
    """
    target: dict[str, pl.DataType] = {}
    for frame in frames:
        target = merged(target, dict(frame.schema))
    if not target:
        return pl.DataFrame(height=sum(frame.height for frame in frames))
    return pl.concat([_of(frame, target) for frame in frames], rechunk=False)


def _of(frame: pl.DataFrame, target: dict[str, pl.DataType]) -> pl.DataFrame:
    have = frame.schema
    if list(have.items()) == list(target.items()):
        return frame
    for name, dtype in have.items():
        if dtype != target[name] and not exact(frame[name], target[name]):
            raise Inexact(name, dtype, target[name])
    columns = {n: widened(exactly(n), have[n], t) if n in have else pl.lit(None, t) for n, t in target.items()}
    if not have:
        return pl.DataFrame([pl.Series(n, [None] * frame.height, dtype=t) for n, t in target.items()])
    return frame.with_columns(**columns).select(map(exactly, target))


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Objects as one column per field, at any depth; null where there is no object. Lists stay lists.

    Raises:
        Clash: a name would be there twice.
    """
    parts = [part for name, dtype in frame.schema.items() for part in _parts(exactly(name), name, dtype)]
    names = [name for name, _ in parts]
    for name, count in Counter(names).items():
        if count > 1:
            raise Clash(name)
    return frame.select(part.alias(name) for name, part in parts) if parts else frame


def _parts(value: pl.Expr, name: str, dtype: pl.DataType) -> Iterator[tuple[str, pl.Expr]]:
    if not isinstance(dtype, pl.Struct):
        yield name, value
        return
    for number, (field, inner) in enumerate(fields(dtype).items()):
        yield from _parts(value.struct[number], f"{name}{JOINT}{field}", inner)

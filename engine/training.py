"""Training sets: published features joined to entity rows as of the rows' own moments, never of a later one."""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.checks.result import json_ready
from engine.errors import SinkError, UsageError, did_you_mean
from engine.features.ways import TRAINED
from engine.frames import parquet_files, scan, to_lazy, to_rows
from engine.join import Join
from engine.plan import Plan, compile_plan
from engine.published import Published
from engine.spec import Pipeline

TIMESTAMP = "event_timestamp"


@dataclass(frozen=True)
class Written:
    """A training set in a file.

    Attributes:
        matched: view: rows for which it held something.
        features: the columns that were added.
        fits: view: feature: the fit that its values were made with, "" is none; the file's footer has it too, which
            `engine.serving.check` reads.
    """

    path: str
    rows: int
    matched: Mapping[str, int]
    features: tuple[str, ...]
    fits: Mapping[str, Mapping[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = {"rows": self.rows, "matched": dict(self.matched)}
        return {"file": self.path, **counts, "features": list(self.features), "fits": dict(self.fits)}


def training_set(
    pipeline: Pipeline,
    entities: Any,
    *,
    features: str | Sequence[str],
    timestamp: str = TIMESTAMP,
    full_names: bool = False,
    mixed_fits: bool = False,
) -> pl.LazyFrame:
    """The entity rows, each with the newest published features of its keys that are not younger than its moment.

    All rows come back in the order given, with all their columns; features are null where nothing held, where a key or
    the moment is null, or where what is newest is older than the view's ``ttl`` (both ends included). Of two rows of a
    key and as-of the one created later counts, then the one that comes later in its file. Nothing is read before the
    frame is, and then only the files, and columns, that are needed.

    Args:
        entities: a Parquet file, a folder of such, a glob, or a frame (polars, pyarrow, pandas), with the key columns
            of the views and a moment per row.
        features: ``view:feature`` and ``view:*``, as a list or parted by commas.
        timestamp: the column of moments; UTC where they carry no zone, nanoseconds are floored.
        full_names: names all features ``view__feature``; else only those whose name is there twice.
        mixed_fits: takes values of a feature that were made with several fits; else they are an error.

    Raises:
        ConfigError, UsageError: a view, a feature or a column is not there; nothing is published of a view.
        DataError: the entity rows, or a published file, cannot be read.
    """
    return _TrainingSet(
        compile_plan(pipeline, history=False), entities, features, timestamp, full_names, mixed_fits
    ).lazy()


def write_training_set(
    pipeline: Pipeline,
    entities: Any,
    out: str | Path,
    *,
    features: str | Sequence[str],
    timestamp: str = TIMESTAMP,
    full_names: bool = False,
    mixed_fits: bool = False,
) -> Written:
    """Writes `training_set` to the Parquet file ``out``, which appears as a whole, in memory within ``memory_limit``.

    Raises:
        ConfigError, UsageError, DataError: as there.
        SinkError: the file cannot be written.
    """
    target = Path(out)
    if target.suffix != ".parquet" or target.is_dir():
        raise UsageError(
            f"{out} would be a Parquet file", code="training.out", where="out", fix="name a file that ends in .parquet"
        )
    local = isinstance(entities, str | Path) and "://" not in str(entities)
    if target.exists() and local and any(target.samefile(file) for file in parquet_files(entities)):
        raise UsageError(
            f"{out} is a file of entities", code="training.out", where="out", fix="name another file for the result"
        )
    made = _TrainingSet(compile_plan(pipeline, history=False), entities, features, timestamp, full_names, mixed_fits)
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Polars calls metadata unstable
            made.lazy().sink_parquet(
                staged,
                compression="snappy",
                maintain_order=True,
                metadata=lambda _: {TRAINED: json.dumps(made.fits)},
            )
        with staged.open("rb") as handle:
            os.fsync(handle.fileno())
        staged.replace(target)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SinkError(
            f"cannot write: {getattr(error, 'strerror', None) or error}",
            code="training.unwritable",
            where=str(target),
            fix="free disk space, or name another file",
        ) from None
    finally:
        staged.unlink(missing_ok=True)
    return Written(str(target), made.rows, made.matched, made.names, made.fits)


def first_rows(
    pipeline: Pipeline,
    entities: Any,
    count: int,
    *,
    features: str | Sequence[str],
    timestamp: str = TIMESTAMP,
    full_names: bool = False,
    mixed_fits: bool = False,
) -> list[dict[str, Any]]:
    """The first rows of `training_set` as JSON-ready values.

    Raises:
        ConfigError, UsageError, DataError: as there.
    """
    made = _TrainingSet(compile_plan(pipeline, history=False), entities, features, timestamp, full_names, mixed_fits)
    found = pl.concat(made.slices([*made.schema, *made.names], count))
    return [json_ready(row) for row in to_rows(found)]


class _TrainingSet(Join):
    """What is asked for, once it is known to make sense."""

    def __init__(
        self, plan: Plan, entities: Any, features: str | Sequence[str], timestamp: str, full: bool, mixed: bool
    ) -> None:
        wanted = _wanted(plan, features)
        self.published = Published(plan, wanted)
        plans = {view.name: view for view in plan.views}
        super().__init__(
            scan(entities) if isinstance(entities, str | Path) else to_lazy(entities),
            [self.published.past(plans[view], names) for view, names in wanted.items()],
            timestamp=timestamp,
            full=full,
            memory_limit=plan.memory_limit,
            spill=plan.workdir / "spill",
            kept=isinstance(entities, str | Path | pl.DataFrame),
            mixed=mixed,
        )

    def begin(self, folder: Path) -> None:
        self.published.folder = folder / "published"


def _wanted(plan: Plan, features: str | Sequence[str]) -> dict[str, tuple[str, ...] | None]:
    """view: the features of it that are wanted, None for all, in the order they are named."""
    known = {view.name for view in plan.views}
    wanted: dict[str, tuple[str, ...] | None] = {}
    for text in ",".join([features] if isinstance(features, str) else features).split(","):
        view, parted, name = text.strip().partition(":")
        if not parted or not view or not name:
            raise UsageError(
                f"{text.strip()!r} names no feature",
                code="training.reference",
                where="features",
                allowed="view:feature, or view:* for all of a view",
                fix=f"write {view}:*" if view in known else "write for example user_features:*",
            )
        if view not in known:
            raise UsageError(
                f"there is no view {view!r}",
                code="training.view",
                where="features",
                allowed=", ".join(sorted(known)),
                fix=did_you_mean(view, known, "use one of the names above"),
            )
        before = wanted.get(view, ())
        wanted[view] = None if name == "*" or before is None else tuple(dict.fromkeys((*before, name)))
    return wanted

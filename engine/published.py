"""The published files of views, here or in a store, as the pasts that rows are looked up in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow.parquet as pq

from engine.access import opened
from engine.errors import DataError, SinkError, UsageError, did_you_mean
from engine.features.part_file import Seen, extremes, identity, marks_in, replaced
from engine.features.past import CREATED, Part, Past
from engine.frames import reading
from engine.objects import Objects
from engine.plan import Plan, ViewPlan
from engine.types import Duration, epoch_microseconds, parse_moment

_STAMPS = ("event_timestamp", CREATED)


class Published:
    """What a pipeline has published, by the ledger.

    Attributes:
        folder: for copies of files in a store; set before one is fetched.
    """

    folder: Path

    def __init__(self, plan: Plan, views: Iterable[str]) -> None:
        self._output = plan.output
        self._seen: dict[str, Seen] = {}
        with opened(plan) as ledger:
            self._files = {
                view: [f for f in ledger.published(plan.pipeline, view) if f["state"] != "publishing"] for view in views
            }

    def past(self, view: ViewPlan, wanted: Sequence[str] | None) -> Past:
        """A view with the features that are wanted; None: all.

        Raises:
            UsageError: nothing is published of the view, or it has no such feature.
            DataError: a file is not as it was published.
        """
        files = self._files[view.name]
        if not files:
            raise UsageError(
                f"nothing is published of {view.name}",
                code="training.unpublished",
                where=view.name,
                fix="run the pipeline first",
            )
        schemas, parts = [], []
        for file in files:
            schema, part = self._described(file)
            schemas.append(schema)
            parts.append(part)
        keys = view.view.keys
        names = [name for name in schemas[-1].names() if name not in (*keys, *_STAMPS)]
        for name in wanted or ():
            if name not in names:
                raise UsageError(
                    f"{view.name} has no feature {name!r}",
                    code="training.feature",
                    where="features",
                    allowed=", ".join(names),
                    fix=did_you_mean(name, names, "use one of the names above, or * for all"),
                )
        types = _common(view.name, schemas)
        ttl = Duration(view.spec.ttl).microseconds if view.spec.ttl else None
        chosen = names if wanted is None else wanted
        return Past(view.name, {k: types[k] for k in keys}, {n: types[n] for n in chosen}, parts, ttl)

    def _described(self, file: Mapping[str, Any]) -> tuple[pl.Schema, Part]:
        """What the footer says of a file."""
        name, as_of = str(file["path"]), epoch_microseconds(parse_moment(file["as_of"]))
        target = f"{self._output}/{name}"
        with (
            reading(f"the published file {target}", "`maestro verify` names what is amiss; publish that as-of again"),
            self._open(name) as handle,
        ):
            if not isinstance(self._output, Objects):
                self._seen[name] = identity(handle)
            footer = pq.read_metadata(handle)
            handle.seek(0)
            schema = pl.Schema(pl.read_parquet_schema(handle))
        lowest, highest = extremes(footer, _STAMPS[0])
        if footer.num_rows and (lowest, highest) != (as_of, as_of):
            raise DataError(
                f"the file has rows of another as-of than {file['as_of']}",
                code="training.damaged",
                where=target,
                fix="publish that as-of again",
            )
        first, last = extremes(footer, CREATED)
        alike = first is not None and first == last
        return schema, Part(as_of, footer.num_rows, partial(self._fetch, name, file["sha256"]), alike, marks_in(footer))

    def _open(self, name: str) -> AbstractContextManager[BinaryIO]:
        return self._output.open(name) if isinstance(self._output, Objects) else (self._output / name).open("rb")

    def _fetch(self, name: str, sha256: str | None) -> Path:
        """The path of a published file, if it is the one whose footer was read."""
        target = f"{self._output}/{name}"
        if not isinstance(self._output, Objects):
            return self._seen[name].check(self._output / name)
        path = self.folder / name
        if path.exists():
            return path
        if not self._output.get(name, path):
            raise SinkError(
                "the published file is gone", code="training.gone", where=target, fix="publish that as-of again"
            )
        with path.open("rb") as handle:
            if sha256 not in (None, hashlib.file_digest(handle, "sha256").hexdigest()):
                raise replaced(target)
        return path


def _common(view: str, schemas: Sequence[pl.Schema]) -> Mapping[str, pl.DataType]:
    """The columns of all files, each in a type that holds the values of all."""
    if all(schema == schemas[0] for schema in schemas):
        return schemas[0]
    with reading(f"the published files of {view}", "publish its as-ofs again"):
        frames = [pl.LazyFrame(schema=schema) for schema in dict.fromkeys(tuple(s.items()) for s in schemas)]
        return pl.concat(frames, how="diagonal_relaxed").collect_schema()

"""A view's pinned fit as a document, and its application to raw features wherever a model is served.

The document is JSON; `docs/transforms.md` says what stands in it. `load(path).apply(frame)` gives the very values that
a run publishes; it needs Polars and no ledger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.access import opened
from engine.errors import UsageError, did_you_mean
from engine.features.fit import ColumnFit, Fit, apply
from engine.frames import like, to_lazy
from engine.plan import compile_plan
from engine.spec import Pipeline

FORMAT, VERSION = "maestro.transforms", 1


@dataclass(frozen=True)
class Transforms:
    """What is done to the raw features of a view.

    Attributes:
        fit_version: of the pinned fit, as reports of runs have it.
    """

    view: str
    fit_version: int
    fit: Fit

    def apply(self, frame: Any) -> Any:
        """Raw features (polars, pyarrow or pandas) as the view publishes them; other columns stay as they are.

        Raises:
            UsageError: a feature is not there.
        """
        data = to_lazy(frame)
        there = data.collect_schema().names()
        for name in self.fit.columns:
            if name not in there:
                raise UsageError(
                    f"the frame has no feature {name!r}",
                    code="transforms.column",
                    where=self.view,
                    allowed=", ".join(there),
                    fix=did_you_mean(name, there, "give all features of the view, null where one is not known"),
                )
        done, _ = apply(data, self.fit, list(self.fit.columns))
        return like(done.collect(engine="in-memory"), frame)


def export(pipeline: Pipeline, view: str, version: int | None = None) -> dict[str, Any]:
    """The pinned fit of a view as a document, JSON-ready.

    Args:
        version: default: the newest.

    Raises:
        ConfigError, UsageError: there is no such view, or no such fit of it.
    """
    plan = compile_plan(pipeline, history=False)
    plans = {v.name: v for v in plan.views}
    if view not in plans:
        raise UsageError(
            f"there is no view {view!r}",
            code="transforms.view",
            where="view",
            allowed=", ".join(plans),
            fix=did_you_mean(view, plans, "use one of the names above"),
        )
    with opened(plan) as ledger:
        found = ledger.fit(plan.pipeline, view, version)
    if found is None:
        raise UsageError(
            f"{view} has no fit" if version is None else f"{view} has no fit of version {version}",
            code="transforms.no_fit",
            where=view,
            fix="run the pipeline first" if version is None else "leave the version out for the newest",
        )
    fit = Fit.from_dict(found[1])
    dtypes = {f.name: f.dtype for f in plans[view].view.features}
    return {
        "format": FORMAT,
        "version": VERSION,
        "pipeline": plan.pipeline,
        "view": view,
        "fit_version": found[0],
        "handle_missing": fit.handle_missing,
        "features": [
            {
                "name": name,
                "fill": fit.columns[name].fill,
                "steps": [dict(step) for step in fit.steps(name, _kind(fit.columns[name], dtype))],
            }
            for name, dtype in dtypes.items()
            if name in fit.columns
        ],
    }


def _kind(known: ColumnFit, dtype: str | None) -> pl.DataType:
    """A number, or anything else; of a declared feature its range says so."""
    is_number = known.low is not None if dtype is None else dtype.startswith(("Int", "Float"))
    return pl.Float64() if is_number else pl.String()


def load(document: str | Path | Mapping[str, Any]) -> Transforms:
    """What `export` gave: the path of a JSON file, or the document itself.

    Raises:
        UsageError: it is none, or of a version that is not known here.
    """
    where = str(document) if isinstance(document, str | Path) else None
    try:
        data = json.loads(Path(document).read_text(encoding="utf-8")) if isinstance(document, str | Path) else document
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise ValueError(data["format"], data["version"])
        columns = {f["name"]: ColumnFit(f["fill"], steps=tuple(f["steps"])) for f in data["features"]}
        return Transforms(data["view"], data["fit_version"], Fit(data["handle_missing"], False, columns))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"this is no document of transforms: {error}",
            code="transforms.document",
            where=where,
            allowed=f"{FORMAT}, version {VERSION}",
            fix="make it with maestro fit export",
        ) from None

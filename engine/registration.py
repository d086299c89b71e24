"""A pipeline's views and services as Feast is to know them, and what its registry says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from engine.access import opened
from engine.errors import ConfigError, Problem, SinkError
from engine.features.fit import Fit
from engine.features.part_file import marks_in
from engine.features.ways import FITS
from engine.frames import reading
from engine.ledger import Ledger
from engine.objects import Objects
from engine.plan import Plan, ViewPlan, compile_plan
from engine.sinks.feast import Difference, FeatureRepo, OfflineView, Service, check_files
from engine.sinks.feast.view import difference
from engine.spec import Pipeline
from engine.types import Duration

_STAMPS = ("event_timestamp", "created_timestamp")


@dataclass(frozen=True)
class Definitions:
    """What a pipeline has to register.

    Attributes:
        pending: (kind, name) of what is declared, and cannot be registered before its view is published.
    """

    views: tuple[OfflineView, ...]
    services: tuple[Service, ...]
    pending: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Registry:
    """What the registry of a feature repo lacks, or lacked.

    Attributes:
        differences: between what is declared and what is registered.
        pending: views and services that are declared, and cannot be registered before something is published.
    """

    differences: tuple[Difference, ...]
    pending: tuple[str, ...]

    @property
    def is_current(self) -> bool:
        """Whether all that is declared, and can be registered, is."""
        return all(d.what == "foreign" for d in self.differences)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = [d.to_dict() for d in self.differences]
        return {"version": 1, "current": self.is_current, "differences": found, "unpublished": list(self.pending)}


def diff(pipeline: Pipeline) -> Registry:
    """In what the registry of the pipeline's feature repo differs from what the pipeline declares and has published.

    Raises:
        ConfigError: the pipeline has no feast section.
        UsageError: it has not run yet.
        MissingExtra, SinkError: Feast or the registry cannot be used.
    """
    plan = compile_plan(pipeline, history=False)
    repo = repo_of(pipeline, plan)
    with opened(plan) as ledger:
        found = definitions_of(plan, ledger)
    there = repo.diff(found.views, found.services, found.pending)
    return Registry(tuple(there), _told(found))


def apply(pipeline: Pipeline) -> Registry:
    """Writes the definitions and registers them; gives what that changed.

    Raises:
        ConfigError, UsageError, MissingExtra, SinkError: as `diff`; what others registered is in the way: then nothing
            is written.
        LedgerError: a run is at work.
    """
    plan = compile_plan(pipeline, history=False)
    repo = repo_of(pipeline, plan)
    with opened(plan) as ledger, ledger.lease(plan.pipeline):
        found = definitions_of(plan, ledger)
        done = repo.apply(found.views, found.services, found.pending)
    return Registry(tuple(done), _told(found))


def repo_of(pipeline: Pipeline, plan: Plan) -> FeatureRepo:
    """The feature repo of a pipeline that has one.

    Raises:
        ConfigError: it has none.
        MissingExtra, SinkError: Feast is not installed; the repo is another project's.
    """
    if plan.feast is None or plan.feast_repo is None:
        problem = Problem(
            "config.no_feast",
            "the pipeline has no online store",
            (),
            fix="add a section such as feast: {repo: ./feature_repo, project: NAME}, and run it",
        )
        raise ConfigError([pipeline.locate(problem)])
    repo = FeatureRepo(plan.feast_repo, plan.feast.project, plan.pipeline)
    repo.check()
    return repo


def definitions_of(plan: Plan, ledger: Ledger, dtypes: Mapping[str, Mapping[str, str]] | None = None) -> Definitions:
    """All that a plan's pipeline has to register.

    Args:
        dtypes: view: column: dtype, of those that have just been published; of others their newest file says.

    Raises:
        SinkError: a file cannot be read, or a view's files differ in their columns.
    """
    views, pending = [], set()
    for view in (*plan.views, *plan.beside):
        files = published(plan, ledger, view.name)
        if dtypes and view.name in dtypes:
            views.append(offline_view(plan, view, dtypes[view.name]))
        elif files:
            views.append(published_view(plan, view, files))
        else:
            pending |= {("view", view.name), ("source", f"{view.name}_source")}
            keys = view.view.keys
            pending |= {("entity", name) for name in (keys if len(keys) > 1 else (view.entity,))}
    known = {view.name for view in views}
    services = []
    for name, spec in plan.feast.services.items() if plan.feast else ():
        if spec.by_view.keys() <= known:
            fits = {view: _fits(plan, ledger, view, wanted) for view, wanted in spec.by_view.items()}
            tags = {**spec.tags, **{f"{FITS}.{view}": json.dumps(marks) for view, marks in fits.items() if marks}}
            told = (spec.description or "", spec.owner or "", tuple(tags.items()))
            kept = tuple(f"{FITS}.{view}" for view in fits) if spec.refit == "refuse" else ()
            services.append(Service(name, tuple(spec.by_view.items()), *told, kept))
        else:
            pending.add(("service", name))
    return Definitions(tuple(views), tuple(services), frozenset(pending))


def _fits(plan: Plan, ledger: Ledger, view: str, wanted: Sequence[str] | None) -> dict[str, str]:
    """feature: the fit that the newest file has it by, of those that are fitted; on values, if there were any."""
    files, pinned = published(plan, ledger, view), ledger.fit(plan.pipeline, view)
    marks = (marks_in(footer_of(plan, str(files[-1]["path"]))) if files else None) or {}
    vague = Fit.from_dict(pinned[1]).vague if pinned else ()
    return {name: mark for name, mark in marks.items() if (wanted is None or name in wanted) and name not in vague}


def footer_of(plan: Plan, name: str) -> pq.FileMetaData:
    """Of a published file, wherever it lies.

    Raises:
        DataError: it cannot be read.
    """
    with reading(f"the published file {name}", "`maestro verify` names what is amiss; publish that as-of again"):
        if isinstance(plan.output, Path):
            return pq.read_metadata(plan.output / name)
        with plan.output.open(name) as handle:
            return pq.read_metadata(handle)


def published(plan: Plan, ledger: Ledger, view: str) -> list[dict[str, Any]]:
    """The files of a view that are in place."""
    return [f for f in ledger.published(plan.pipeline, view) if f["state"] != "publishing"]


def published_view(plan: Plan, view_plan: ViewPlan, files: Sequence[Mapping[str, Any]]) -> OfflineView:
    """A published view as its newest file has it.

    Raises:
        SinkError: a file cannot be read, or the view's files differ in their columns.
    """
    schema = _schema(plan, files[-1]["path"])
    view = offline_view(plan, view_plan, schema)
    _check(plan, view, files)
    return view


def check_published(plan: Plan, ledger: Ledger, view: OfflineView) -> None:
    """Makes sure that all files of a view have the same columns, wherever they lie.

    Raises:
        SinkError: they have not, or cannot be read.
    """
    _check(plan, view, published(plan, ledger, view.name))


def _check(plan: Plan, view: OfflineView, files: Sequence[Mapping[str, Any]]) -> None:
    check_files(view)
    if not view.url:
        return
    for file in files:
        if found := difference(_schema(plan, file["path"]), view):
            raise SinkError(
                f"a published file of {view.name} does not have its present columns: {found}, and Feast would read it "
                "wrongly",
                code="feast.mixed_files",
                where=f"{plan.output}/{file['path']}",
                fix="give the view a new name, or publish those as-ofs again, or remove those files",
            )


def offline_view(plan: Plan, view: ViewPlan, dtypes: Mapping[str, str]) -> OfflineView:
    """A view whose columns are of these dtypes."""
    keys = view.view.keys
    features = tuple((name, dtype) for name, dtype in dtypes.items() if name not in (*keys, *_STAMPS))
    notes = {f.name: f.description for f in view.view.features if f.description}
    remote = plan.output if isinstance(plan.output, Objects) else None
    return OfflineView(
        name=view.name,
        entity=view.entity,
        key=keys[0],
        key_dtype=dtypes.get(keys[0], "absent"),
        more_keys=tuple((key, dtypes.get(key, "absent")) for key in keys[1:]),
        features=features,
        path=Path(view.name) if remote else Path(str(plan.output)) / view.name,
        url=f"{remote.url}/{view.name}" if remote else "",
        endpoint=(remote.endpoint or "") if remote else "",
        description=view.spec.description
        or f"{f'The {view.set} set' if view.set else 'Declared'}, published by the pipeline {plan.pipeline}",
        ttl=Duration(view.spec.ttl).microseconds // 1_000_000 if view.spec.ttl else 0,
        owner=view.spec.owner or "",
        tags=tuple(view.spec.tags.items()),
        notes=tuple((name, notes[name]) for name, _ in features if name in notes),
    )


def _schema(plan: Plan, name: str) -> dict[str, str]:
    where = f"{plan.output}/{name}"
    try:
        if isinstance(plan.output, Objects):
            with plan.output.open(name) as handle:
                found = pl.read_parquet_schema(handle)
        else:
            found = pl.read_parquet_schema(where)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SinkError(
            f"the published file cannot be read: {error}",
            code="online.unreadable",
            where=where,
            fix="`maestro verify` names what is amiss; publish that as-of again",
        ) from None
    return {column: str(dtype) for column, dtype in found.items()}


def _told(found: Definitions) -> tuple[str, ...]:
    return tuple(sorted(f"{kind} {name}" for kind, name in found.pending if kind in ("view", "service")))

"""The online store of a pipeline: loading it, and looking an entity up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError, did_you_mean
from engine.features.ways import TRAINED
from engine.plan import Plan, ViewPlan, compile_plan
from engine.progress import Progress, Silent
from engine.registration import opened, published, published_view, repo_of
from engine.sinks.feast import Key, OfflineView
from engine.sinks.feast.aside import Aside
from engine.spec import Pipeline

if TYPE_CHECKING:
    from engine.loading import Loaded


def materialize(
    pipeline: Pipeline,
    *,
    views: Sequence[str] = (),
    full: bool = False,
    proof: int | None = 100,
    progress: Progress | None = None,
) -> list[Loaded]:
    """Loads what the online store does not hold yet of the published views.

    Args:
        views: only these.
        full: loads everything, whatever the ledger says.
        proof: how many entities per view are read back through Feast and compared; None is all, 0 none.

    Raises:
        ConfigError, UsageError: before anything is read.
        MissingExtra: Feast or the store's client is not installed.
        SinkError: the store cannot be written, or gives back other values; loading again goes on.
        LedgerError: a run is at work.
    """
    plan = compile_plan(pipeline, history=False)
    repo = repo_of(pipeline, plan)
    chosen = [_view(plan, name) for name in views] or list(plan.views)
    from engine.loading import load_views

    with Aside(repo) as aside, opened(plan) as ledger, ledger.lease(plan.pipeline):
        told = progress or Silent()
        return load_views(plan, ledger, repo, chosen, aside=aside, full=full, proof=proof, progress=told)


def get(pipeline: Pipeline, view: str, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """What the online store holds for each key, through Feast; None for what it does not know.

    Args:
        keys: of a compound key, mappings, or JSON texts of such.

    Raises:
        ConfigError, UsageError: the pipeline has no such view, or a key is not of its type.
        MissingExtra: Feast or the store's client is not installed.
        SinkError: Feast cannot answer.
    """
    plan = compile_plan(pipeline, history=False)
    repo, view_plan = repo_of(pipeline, plan), _view(plan, view)
    with opened(plan) as ledger:
        files = published(plan, ledger, view_plan.name)
    if not files:
        raise UsageError(f"nothing is published of {view}", code="online.unpublished", where=view, fix="run it first")
    found = published_view(plan, view_plan, files)
    return repo.online(view, [_key(key, found) for key in keys])


def check(pipeline: Pipeline, trained: str | Path) -> list[dict[str, str]]:
    """In which features what the online store holds was made with another fit than a training set.

    Args:
        trained: a Parquet file of `maestro training-set`, or of a job of our Feast offline store.

    Returns:
        ``view``, ``feature``, and the fingerprints ``trained`` and ``online``; "" is none.

    Raises:
        ConfigError, UsageError: there is no online store; the file does not say what it was made with; a view of it has
            not been loaded, or was published by an earlier version.
        DataError: a file cannot be read.
    """
    import pyarrow.parquet as pq

    from engine.features.part_file import marks_in
    from engine.frames import reading

    plan = compile_plan(pipeline, history=False)
    repo_of(pipeline, plan)
    with reading(str(trained), "name the Parquet file of a training set"):
        text = (pq.read_metadata(trained).metadata or {}).get(TRAINED.encode())
    if text is None:
        raise UsageError(
            "the file does not say which fits its features were made with",
            code="online.untold",
            where=str(trained),
            fix="make it with maestro training-set, or with our Feast offline store and persist",
        )
    found = []
    with opened(plan) as ledger:
        for view, marks in json.loads(text).items():
            files = [f for f in ledger.published(plan.pipeline, _view(plan, view).name) if f["state"] == "loaded"]
            if not files:
                raise UsageError(
                    f"nothing is loaded of {view}", code="online.unloaded", where=view, fix="maestro materialize"
                )
            whole = plan.feast is not None and plan.feast.deleted == "remove"
            for file in files[-1:] if whole else files:
                online = marks_in(_footer(plan, str(file["path"])))
                if online is None:
                    raise UsageError(
                        f"{file['path']} does not say which fit it was made with",
                        code="online.untold",
                        where=view,
                        fix="publish that as-of again",
                    )
                now = {name: online.get(name, "") for name in marks}
                found += [
                    {"view": view, "feature": name, "trained": mark, "online": now[name]}
                    for name, mark in marks.items()
                    if now[name] != mark
                ]
    return [dict(pairs) for pairs in dict.fromkeys(tuple(row.items()) for row in found)]


def _footer(plan: Plan, name: str) -> Any:
    import pyarrow.parquet as pq

    from engine.frames import reading

    output: Any = plan.output
    with reading(f"the published file {name}", "`maestro verify` names what is amiss; publish that as-of again"):
        if isinstance(output, Path):
            return pq.read_metadata(output / name)
        with output.open(name) as handle:
            return pq.read_metadata(handle)


def _key(key: Key, view: OfflineView) -> Key:
    """A key with the types that the view's key columns have."""
    if not view.more_keys and not isinstance(key, Mapping):
        return _typed(key, view.key, view.key_dtype)
    parts: Any = key
    if isinstance(key, str):
        with suppress(ValueError):
            parts = json.loads(key)
    if not isinstance(parts, Mapping) or set(parts) != set(view.key_names):
        raise UsageError(
            f"the key of {view.name} is {len(view.keys)} columns, {key!r} is no value for each",
            code="online.key",
            where=", ".join(view.key_names),
            allowed=json.dumps(dict.fromkeys(view.key_names, "…"), ensure_ascii=False),
            fix="write the values by name, as JSON",
        )
    return {name: _typed(parts[name], name, dtype) for name, dtype in view.keys}


def _typed(key: str | int, name: str, dtype: str) -> str | int:
    if dtype == "String":
        return str(key)
    try:
        return int(key)
    except (TypeError, ValueError):
        raise UsageError(
            f"the key {name!r} is a number, {key!r} is none", code="online.key", where=name, fix="write the number"
        ) from None


def _view(plan: Plan, name: str) -> ViewPlan:
    known = {view.name: view for view in plan.views}
    if name not in known:
        raise UsageError(
            f"there is no view {name!r}",
            code="online.view",
            where="view",
            allowed=", ".join(known),
            fix=did_you_mean(name, known, "use one of the names above"),
        )
    return known[name]

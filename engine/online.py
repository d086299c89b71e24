"""The online store of a pipeline: loading it, and looking an entity up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.access import opened
from engine.errors import UsageError, did_you_mean
from engine.plan import Plan, ViewPlan, compile_plan
from engine.progress import Progress, Silent
from engine.registration import published, published_view, repo_of
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
        if proof != 0:
            aside.begin()  # while it loads
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

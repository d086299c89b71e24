"""Views that feature services serve: what would give their models other numbers is refused before anything is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from engine.errors import UsageError
from engine.features.fit import Fit
from engine.features.ways import FITS
from engine.ledger import Ledger
from engine.plan import Plan, ViewPlan
from engine.sinks.feast import FeatureRepo
from engine.sinks.feast.refusals import served_fix
from engine.sinks.feast.scan import defined_in


def check_served(plan: Plan, ledger: Ledger, *, refit: bool) -> None:
    """Makes sure that a run keeps the fits and definitions of what services serve, unless they are to follow.

    What nothing was learnt of yet may still be fitted, and features may be added.

    Raises:
        UsageError: it would not.
    """
    registered: dict[str, Mapping[str, str]] | None = None
    for service, view, features in _served(plan):
        known = ledger.fit(plan.pipeline, view.name)
        if known is not None:
            _check(service, view, features, Fit.from_dict(known[1]), refit=refit)
            continue
        if registered is None:
            registered = _registered(plan)
        marks = json.loads(registered.get(service, {}).get(f"{FITS}.{view.name}", "{}"))
        if lost := [name for name in features if name in marks]:
            raise UsageError(
                f"the feature service {service} serves {', '.join(lost)} of {view.name}, and the ledger no longer has "
                "the fit that made them: another one would serve its model other numbers than it was trained on",
                code="fit.lost",
                where=str(plan.workdir),
                fix=f"bring back the ledger of {plan.workdir}; or {served_fix(service, view.name)}",
            )


def _served(plan: Plan) -> Iterator[tuple[str, ViewPlan, tuple[str, ...]]]:
    """Services that are not to follow a refit, with each view that this run computes and the features taken of it."""
    views = {view.name: view for view in plan.views}
    for name, spec in plan.feast.services.items() if plan.feast else ():
        for view, features in spec.by_view.items() if spec.refit == "refuse" else ():
            if view in views:
                yield name, views[view], features or views[view].view.feature_names


def _check(service: str, view: ViewPlan, features: tuple[str, ...], fit: Fit, *, refit: bool) -> None:
    pinned = [name for name in features if name in fit.columns]
    learnt = [name for name in pinned if fit.columns[name].is_learnt]
    spec = view.spec
    what, moved = "", list[str]()
    if (fit.handle_missing, fit.normalize) != (spec.handle_missing, spec.normalize):
        now = f"{spec.handle_missing} and {str(spec.normalize).lower()}"
        was = f"{fit.handle_missing} and {str(fit.normalize).lower()}"
        what, moved = f"handle_missing and normalize are {now} now, and were {was}", pinned
    elif moved := [name for name in pinned if fit.columns[name].definition != view.definitions[name]]:
        what = "they are defined otherwise now"
    elif refit and (moved := learnt):
        what = "a refit would make them anew"
    if moved:
        raise UsageError(
            f"the feature service {service} serves {', '.join(moved)} of {view.name}: {what}, and its model would be "
            "served other numbers than it was trained on",
            code="fit.served",
            where=f"feast.services.{service}",
            fix=served_fix(service, view.name),
        )


def _registered(plan: Plan) -> dict[str, Mapping[str, str]]:
    """service: its tags, by the definitions that the pipeline has written."""
    if plan.feast is None or plan.feast_repo is None:
        return {}
    path = FeatureRepo(plan.feast_repo, plan.feast.project, plan.pipeline).definitions
    return {found.name: found.tags for found in defined_in(path) if found.kind == "service"}

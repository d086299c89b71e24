"""Whether what is served is what a model was trained on: the fits of a training set and of the online store."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from engine.access import opened
from engine.errors import UsageError
from engine.features.part_file import marks_in
from engine.features.ways import TRAINED
from engine.frames import reading
from engine.plan import compile_plan
from engine.registration import footer_of, repo_of
from engine.spec import Pipeline


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
            files = [f for f in ledger.published(plan.pipeline, view) if f["state"] == "loaded"]
            if not files:
                raise UsageError(
                    f"nothing is loaded of {view}", code="online.unloaded", where=view, fix="maestro materialize"
                )
            whole = any(known.name == view and plan.keeps_newest_only(known) for known in plan.views)
            for file in files[-1:] if whole else files:
                online = marks_in(footer_of(plan, str(file["path"])))
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

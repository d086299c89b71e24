"""Loading published views into the online store, and the proof that it holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import polars as pl

from engine.errors import SinkError
from engine.ledger import Ledger
from engine.plan import Plan, ViewPlan
from engine.progress import Progress
from engine.sinks.feast import FeatureRepo, OfflineView, check_files
from engine.sinks.online.config import read_config
from engine.sinks.online.gone import remove_gone
from engine.sinks.online.load import load
from engine.sinks.online.newest import newest, sample
from engine.sinks.online.store import Removing, Store, open_store
from engine.sinks.online.values import as_stored
from engine.types import iso, parse_moment

PROVEN = 100  # entities that are read back after a load
_AT_ONCE = 500  # keys that are asked for
_STAMPS = ("event_timestamp", "created_timestamp")
File = Mapping[str, Any]


@dataclass(frozen=True)
class Loaded:
    """What was loaded of a view.

    Attributes:
        as_of: the moments of the files whose newest rows were loaded; none where the store held them all.
        rows: entities handed to the store now, also such as it has newer rows of; fewer than there are where a load
            went on that had been cut off.
        proven: entities read back through Feast and found equal to their newest published row.
        removed: entities taken out of the store, since the newest file no longer has them.
    """

    view: str
    as_of: tuple[datetime, ...]
    rows: int
    proven: int
    removed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = {"rows": self.rows, "proven": self.proven, "removed": self.removed}
        return {"view": self.view, "as_of": [iso(t) for t in self.as_of], **counts}


def load_views(
    plan: Plan,
    ledger: Ledger,
    repo: FeatureRepo,
    views: Sequence[ViewPlan],
    *,
    progress: Progress,
    full: bool = False,
    proof: int | None = PROVEN,
) -> list[Loaded]:
    """Loads what the online store does not hold yet of the published views; the caller holds the pipeline's lease.

    Args:
        full: loads everything, whatever the ledger says.
        proof: how many entities per view are read back through Feast and compared; None is all, 0 none.

    Raises:
        SinkError: the store cannot be reached or written, or gives back other values; loading again goes on.
    """
    config = read_config(repo.folder)
    done = []
    with open_store(config, repo) as store:
        for view_plan in views:
            files = [f for f in ledger.published(plan.pipeline, view_plan.name) if f["state"] != "publishing"]
            if files:
                progress.step("feast", view_plan.name)
                view = offline_view(plan, view_plan, files)
                whole = config.own and plan.feast is not None and plan.feast.deleted == "remove"
                identity = f"{config.identity}-newest" if whole else config.identity
                anew = full or not store.holds(view)
                loading = _Loading(plan, ledger, store, identity, view, files, full=anew, whole=whole)
                done.append((view, files[-1:] if whole else files, loading.run(progress, older_wins=not config.own)))
    spill = plan.workdir / "spill"
    found = []
    for view, files, (fresh, rows, removed) in done:
        paths = [_output(plan) / f["path"] for f in files]
        among = [_output(plan) / f["path"] for f in fresh if f in files] or paths
        proven = 0
        if proof != 0:
            progress.step("feast", f"{view.name}: proof")
            asked = None if proof is None else sample(view, among, proof)
            expected = newest(view, paths, memory_limit=plan.memory_limit, spill=spill, among=asked)
            proven = prove(repo, view, expected)
        found.append(Loaded(view.name, tuple(parse_moment(f["as_of"]) for f in fresh), rows, proven, removed))
    return found


class _Loading:
    """One view on its way into the store.

    Args:
        whole: whether the store is to hold just what the newest file has: older ones are not loaded then, and entities
            that it lacks are removed.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        store: Store,
        identity: str,
        view: OfflineView,
        files: Sequence[File],
        *,
        full: bool,
        whole: bool,
    ) -> None:
        self.plan, self.ledger, self.store, self.whole = plan, ledger, store, whole
        self.identity, self.view, self.files = identity, view, files
        self.last = ledger.load(plan.pipeline, view.name)
        if full or self.last is None or self.last["store"] != identity:
            ledger.unload(plan.pipeline, view.name)
            self.last, self.fresh = None, list(files)
        else:
            self.fresh = [f for f in files if f["state"] != "loaded"]

    def run(self, progress: Progress, *, older_wins: bool) -> tuple[list[File], int, int]:
        """Loads the files that no load has seen; gives them, and how many rows were stored and entities removed.

        Args:
            older_wins: whether the store lets older rows take the place of newer ones.
        """
        if not self.fresh:
            return [], 0, 0
        pipeline, view = self.plan.pipeline, self.view.name
        asked: dict[str, str | None] = {f["path"]: f["sha256"] for f in self.fresh}
        held = {f["path"]: f["sha256"] for f in self.files[-1:]} if self.whole else {}
        if self.whole and self.files[-1] not in self.fresh:
            self.ledger.loaded(pipeline, view, list(asked), held)
            return self.fresh, 0, 0
        after, removed = None, 0
        if self.last is not None and self.last["files"] == asked:
            after = self.last["position"]
        elif self.whole:
            progress.step("feast", f"{view}: removal")
            removed = self._remove_gone()
        self.ledger.loading(pipeline, view, self.identity, asked, after)

        def loaded(key: Any, rows: int) -> None:
            self.ledger.loading(pipeline, view, self.identity, asked, key)
            progress.rows(rows)

        count = load(
            self.store,
            self.view,
            [_output(self.plan) / f["path"] for f in self._beside(older_wins)],
            memory_limit=self.plan.memory_limit,
            spill=self.plan.workdir / "spill",
            after=after,
            loaded=loaded,
        )
        self.ledger.loaded(pipeline, view, list(asked), held)
        return self.fresh, count, removed

    def _remove_gone(self) -> int:
        """Takes out of the store what the newest file lacks; the file loaded last tells what the store holds, as long
        as it is the same."""
        known = dict(self.last["files"]) if self.last is not None else {}
        before = [f for f in self.files if f["state"] == "loaded" and known.get(f["path"], "") == f["sha256"]]
        return remove_gone(
            cast(Removing, self.store),
            self.view,
            _output(self.plan) / self.files[-1]["path"],
            _output(self.plan) / before[0]["path"] if len(before) == len(known) == 1 else None,
            memory_limit=self.plan.memory_limit,
            spill=self.plan.workdir / "spill",
        )

    def _beside(self, older_wins: bool) -> list[File]:
        """The fresh files, and those loaded ones whose rows theirs could wrongly take the place of: those of the same
        second, as SQLite keeps no more; all newer ones, where the store itself does not look."""
        seconds = {parse_moment(f["as_of"]).replace(microsecond=0) for f in self.fresh}
        first = min(seconds)
        if self.whole:
            return list(self.files[-1:])
        return [
            f
            for f in self.files
            if f in self.fresh
            or (second := parse_moment(f["as_of"]).replace(microsecond=0)) in seconds
            or (older_wins and second >= first)
        ]


def offline_view(plan: Plan, view_plan: ViewPlan, files: Sequence[File]) -> OfflineView:
    """A published view as its newest file has it.

    Raises:
        SinkError: a file cannot be read, or the view's files differ in their columns.
    """
    path = _output(plan) / files[-1]["path"]
    try:
        schema = {name: str(dtype) for name, dtype in pl.read_parquet_schema(path).items()}
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SinkError(
            f"the published file cannot be read: {error}",
            code="online.unreadable",
            where=str(path),
            fix="`maestro verify` names what is amiss; publish that as-of again",
        ) from None
    names = view_plan.view.keys
    features = tuple((name, dtype) for name, dtype in schema.items() if name not in (*names, *_STAMPS))
    (key, dtype), *more = [(name, schema.get(name, "absent")) for name in names]
    folder = _output(plan) / view_plan.name
    view = OfflineView(view_plan.name, view_plan.entity, key, dtype, features, folder, more_keys=tuple(more))
    check_files(view)
    return view


def _output(plan: Plan) -> Path:
    """Where the published files lie; a local folder, where there is Feast."""
    return Path(str(plan.output))


def prove(repo: FeatureRepo, view: OfflineView, expected: Iterator[pl.DataFrame]) -> int:
    """Reads rows back through Feast and compares them; gives how many there were.

    Raises:
        SinkError: values differ; features, counts and an example are named.
    """
    count = 0
    wrong: dict[str, tuple[int, str]] = {}
    for batch in expected:
        for rows in batch.iter_slices(_AT_ONCE):
            keys = rows.select(view.key_names).to_dicts() if view.more_keys else rows[view.key].to_list()
            found, since = repo.online_since(view.name, keys)
            moments = rows["event_timestamp"].dt.epoch("s").to_list()
            count += len(keys)
            for name, _ in view.features:
                values = as_stored(rows[name]).to_list()
                for key, want, have, moment, then in zip(keys, values, found[name], moments, since[name], strict=True):
                    if then <= moment and not _equal(want, have):  # what came later from elsewhere is not ours
                        example = f"{', '.join(view.key_names)} {key!r}: online {have!r}, published {want!r}"
                        times, first = wrong.get(name, (0, example))
                        wrong[name] = (times + 1, first)
    if wrong:
        listed = "; ".join(f"{name} ({times:,}, such as {example})" for name, (times, example) in wrong.items())
        raise SinkError(
            f"of {count:,} entities compared, the online store gives other values than the newest published row in "
            f"{listed}",
            code="online.differs",
            where=view.name,
            fix="load everything: maestro materialize PIPELINE --full",
        )
    return count


def _equal(want: Any, have: Any) -> bool:
    if not isinstance(want, list) or not isinstance(have, list):
        return bool(want == have)
    return len(want) == len(have) and all(map(_same_item, want, have))


def _same_item(want: Any, have: Any) -> bool:
    """Within a list, Feast has NaN, and an empty text, empty bytes, false or NaN in place of null."""
    if isinstance(have, float) and math.isnan(have):
        return want is None or math.isnan(want)
    if isinstance(want, datetime) and isinstance(have, datetime):
        return int(want.timestamp()) == int(have.timestamp())  # as Feast cuts what is in a list
    return bool(want == have) or (want is None and have in ("", b"", False))

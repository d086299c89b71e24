"""Loading published views into the online store, and the proof that it holds them."""

from __future__ import annotations

import hashlib
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from engine.errors import SinkError
from engine.ledger import Ledger
from engine.objects import Objects
from engine.plan import Plan, ViewPlan
from engine.progress import Progress
from engine.registration import published, published_view
from engine.sinks.feast import FeatureRepo, OfflineView
from engine.sinks.feast.aside import Aside
from engine.sinks.online.config import read_config
from engine.sinks.online.gone import remove_gone
from engine.sinks.online.load import load
from engine.sinks.online.newest import sample
from engine.sinks.online.nulls import write_nulls
from engine.sinks.online.store import Removing, Store, open_store
from engine.types import iso, parse_moment

log = logging.getLogger(__name__)
PROVEN = 100  # entities that are read back after a load
File = Mapping[str, Any]
_Gone = Literal["remove", "nulls", "keep"]
# What the ledger has beside a store's identity: where that is declared otherwise, the store is loaded anew.
_HELD: Mapping[_Gone, str] = {"remove": "-newest", "nulls": "-nulls", "keep": ""}


@dataclass(frozen=True)
class Loaded:
    """What was loaded of a view.

    Attributes:
        as_of: the moments of the files whose newest rows were loaded; none where the store held them all.
        rows: entities handed to the store now, also such as it has newer rows of; fewer than there are where a load
            went on that had been cut off.
        proven: entities read back through Feast and found equal to their newest published row.
        removed: entities taken out of the store, since the newest file no longer has them; in stores that Feast
            cannot take them out of, given nulls.
        warning: what could not be done.
    """

    view: str
    as_of: tuple[datetime, ...]
    rows: int
    proven: int
    removed: int = 0
    warning: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = {"rows": self.rows, "proven": self.proven, "removed": self.removed}
        told = {"warning": self.warning} if self.warning else {}
        return {"view": self.view, "as_of": [iso(t) for t in self.as_of], **counts, **told}


def load_views(
    plan: Plan,
    ledger: Ledger,
    repo: FeatureRepo,
    views: Sequence[ViewPlan],
    *,
    aside: Aside,
    progress: Progress,
    full: bool = False,
    proof: int | None = PROVEN,
    then: Callable[[], None] | None = None,
) -> list[Loaded]:
    """Loads what the online store does not hold yet of the published views; the caller holds the pipeline's lease.

    Args:
        aside: Feast, for the proof.
        full: loads everything, whatever the ledger says.
        proof: how many entities per view are read back through Feast and compared; None is all, 0 none.
        then: what is to be done once all is loaded, before anything is proven.

    Raises:
        SinkError: the store cannot be reached or written, or gives back other values; loading again goes on.
    """
    config = read_config(repo.folder)
    done = []
    with _fetched(plan) as fetched:
        with open_store(config, repo) as store:
            for view_plan in views:
                files = published(plan, ledger, view_plan.name)
                if files:
                    progress.step("feast", view_plan.name)
                    view = published_view(plan, view_plan, files)
                    newest_only = plan.keeps_newest_only(view_plan)
                    whole = config.own and newest_only
                    gone: _Gone = "remove" if whole else "nulls" if newest_only else "keep"
                    identity = f"{config.identity}{_HELD[gone]}"
                    anew = full or not store.holds(view)
                    loading = _Loading(plan, ledger, store, identity, view, files, fetched, full=anew, gone=gone)
                    ran = loading.run(progress, older_wins=not config.own)
                    done.append((view, files[-1:] if whole else files, ran, loading.warning))
        if then:
            then()
        spill = plan.workdir / "spill"
        found = []
        for view, files, (fresh, rows, removed), warning in done:
            proven = 0
            if proof != 0:
                progress.step("feast", f"{view.name}: proof")
                new = [f for f in fresh if f in files]
                all_of_it: Sequence[File] = files
                if fetched.is_remote:  # what the store has newer is not compared: that takes no other files
                    all_of_it = new or files[-1:]
                asked = None if proof is None else sample(view, fetched.paths(new or all_of_it), proof)
                proven = aside.prove(view, fetched.paths(all_of_it), asked, plan.memory_limit, spill)
            moments = tuple(parse_moment(f["as_of"]) for f in fresh)
            found.append(Loaded(view.name, moments, rows, proven, removed, warning))
    return found


class _Loading:
    """One view on its way into the store.

    Args:
        gone: what becomes of entities that the newest file lacks. ``remove``: the store is to hold just what that
            file has: older ones are not loaded; ``nulls``: they are given nulls; ``keep``: they stay.

    Attributes:
        warning: what could not be done.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        store: Store,
        identity: str,
        view: OfflineView,
        files: Sequence[File],
        fetched: _Files,
        *,
        full: bool,
        gone: _Gone,
    ) -> None:
        self.plan, self.ledger, self.store = plan, ledger, store
        self.whole, self.nulls, self.warning = gone == "remove", gone == "nulls", ""
        self.fetched = fetched
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
        held = {f["path"]: f["sha256"] for f in self.files[-1:]} if self.whole or self.nulls else {}
        known = dict(self.last["files"]) if self.last is not None else {}
        if self.whole and self.files[-1] not in self.fresh:
            self.ledger.loaded(pipeline, view, list(asked), held)
            return self.fresh, 0, 0
        after, removed = None, 0
        if self.last is not None and self.last["files"] == asked:
            after = self.last["position"]
        elif self.whole:
            progress.step("feast", f"{view}: removal")
            removed = self._remove_gone()
            progress.step("feast", view)
        self.ledger.loading(pipeline, view, self.identity, asked, after)

        def loaded(key: Any, rows: int) -> None:
            self.ledger.loading(pipeline, view, self.identity, asked, key)
            progress.rows(rows)

        count = load(
            self.store,
            self.view,
            self.fetched.paths(self._beside(older_wins)),
            memory_limit=self.plan.memory_limit,
            spill=self.plan.workdir / "spill",
            after=after,
            loaded=loaded,
        )
        if self.nulls:
            progress.step("feast", f"{view}: removal")
            removed = self._give_nulls(known)
        self.ledger.loaded(pipeline, view, list(asked), held)
        return self.fresh, count, removed

    def _give_nulls(self, known: Mapping[str, Any]) -> int:
        """Gives nulls to what the newest file lacks of what was loaded now, or before it.

        Args:
            known: the newest file of the load before.
        """
        newest = self.files[-1]
        if newest in self.fresh and known.get(newest["path"], newest["sha256"]) != newest["sha256"]:
            self.warning = (
                f"{newest['path']} was published again: entities that only its earlier version had stay in the online "
                "store as they were, which cannot be asked what it holds"
            )
            log.warning("%s: %s", self.view.name, self.warning)
        loaded = [f for f in self.files[:-1] if f["state"] == "loaded"][-1:] if newest in self.fresh else []
        before = [f for f in self.files[:-1] if f in self.fresh or f in loaded]
        if not before:
            return 0
        return write_nulls(
            self.store,
            self.view,
            self.fetched.paths([newest])[0],
            self.fetched.paths(before),
            parse_moment(newest["as_of"]),
            memory_limit=self.plan.memory_limit,
            spill=self.plan.workdir / "spill",
        )

    def _remove_gone(self) -> int:
        """Takes out of the store what the newest file lacks; the file loaded last tells what the store holds, as long
        as it is the same."""
        known = dict(self.last["files"]) if self.last is not None else {}
        before = [f for f in self.files if f["state"] == "loaded" and known.get(f["path"], "") == f["sha256"]]
        if not len(before) == len(known) == 1:
            before = []
        return remove_gone(
            cast(Removing, self.store),
            self.view,
            self.fetched.paths(self.files[-1:])[0],
            self.fetched.paths(before)[0] if before else None,
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


class _Files:
    """Published files as paths; those in a store are fetched to ``folder`` at first use."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._output, self._folder = plan.output, folder
        self.is_remote = isinstance(plan.output, Objects)

    def paths(self, files: Sequence[File]) -> list[Path]:
        """Where they lie on this machine.

        Raises:
            SinkError: one cannot be fetched, or is not what was published.
        """
        return [self._path(file) for file in files]

    def _path(self, file: File) -> Path:
        name = str(file["path"])
        if not isinstance(self._output, Objects):
            return self._output / name
        path = self._folder / name
        if path.exists():
            return path
        found = self._output.get(name, path)
        if found and file["sha256"] is not None:
            with path.open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest() == file["sha256"]
        if not found:
            raise SinkError(
                "the published file is gone, or is not what was published",
                code="online.unreadable",
                where=f"{self._output}/{name}",
                fix="`maestro verify` names what is amiss; publish that as-of again",
            )
        return path


@contextmanager
def _fetched(plan: Plan) -> Iterator[_Files]:
    folder = plan.workdir / "spill" / f"published-{uuid.uuid4().hex[:8]}"
    try:
        yield _Files(plan, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

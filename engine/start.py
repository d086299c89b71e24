"""Where the computing of a view starts: from the state that an earlier run saved, or from the whole tables, and why.

Decided from definitions and the ledger alone, so that a plan says what the run then does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from engine.features.definition import FeatureView
from engine.features.reach import Kept, event_roles, kept, unsaved
from engine.spec import AnySource, ViewSpec
from engine.types import EPOCH, FIRST_MOMENT, LAST_MOMENT, Duration, epoch_microseconds, iso

if TYPE_CHECKING:
    from engine.ledger import Checkpoint, File

FORMAT = 1  # of saved state


@dataclass(frozen=True)
class Start:
    """What a run over the tables as they landed last would read and write of a view.

    Attributes:
        because: why it reads its events' whole tables; None: it goes on from saved state.
        rows_read: of events.
        files_read: with them.
        since: the moment that they are read from; None: the first there is.
        new: as-ofs that are not published yet.
        again: as-ofs published under another definition.
        replaced: further as-ofs that were asked for, and are published already.
        unchanged: published as-ofs that stay as they are.
        days: with as-ofs to be written.
        rows_written: about; as many per as-of as were published last. None: nothing has been.
    """

    because: str | None
    rows_read: int
    files_read: int
    since: str | None
    new: int
    again: int
    replaced: int
    unchanged: int
    days: int
    rows_written: int | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"from": "tables" if self.because else "saved state", **asdict(self)}


@dataclass(frozen=True)
class Subject:
    """A view and where its rows come from.

    Attributes:
        sources: role: source.
        specs: source: its declaration.
    """

    view: FeatureView
    spec: ViewSpec
    sources: Mapping[str, str]
    specs: Mapping[str, AnySource]

    @property
    def definition(self) -> str:
        """A fingerprint of all that raw values rest on, the data aside: state is of no use under another."""
        parts = {name: self.view.fingerprint(name) for name in self.view.feature_names}
        text = json.dumps([parts, dict(self.sources)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def fed(self) -> dict[str, str]:
        """Role: source, of those events whose tables are added to: what is new in them can be told."""
        mine = {role: self.sources[role] for role in event_roles(self.view)}
        return {r: s for r, s in mine.items() if getattr(self.specs[s], "effective_mode", "full") != "full"}

    def lateness(self, source: str) -> int:
        """How late events of a source may come, in microseconds, and still move what is published."""
        stated = self.spec.lateness
        if stated is None:
            stated = getattr(self.specs[source], "lateness", None)
        return Duration(stated).microseconds if isinstance(stated, str) else 0

    def needed(self, as_ofs: Iterable[datetime], newest: datetime) -> Kept:
        """What of the past is needed at these as-ofs, and at any that late events may touch once ``newest`` is."""
        late = max(map(self.lateness, self.fed.values()), default=0)
        earliest = min([*map(epoch_microseconds, as_ofs), epoch_microseconds(newest) - late])
        return kept(self.view, max(earliest, FIRST_MOMENT))

    def never(self) -> str | None:
        """Why there can be no state to go on from; None: there can."""
        if why := unsaved(self.view):
            return why
        fed = self.fed
        whole = next((self.sources[role] for role in event_roles(self.view) if role not in fed), None)
        return whole and f"all of {whole} is read each time, so what is new in it cannot be told"

    def because(self, checkpoint: Checkpoint | None, as_ofs: Iterable[datetime], newest: datetime) -> str | None:
        """Why whole tables of events are read; None: there is state to go on from.

        Args:
            as_ofs: to be computed.
            newest: the latest as-of that will be published then.
        """
        if why := self.never():
            return why
        if checkpoint is None:
            return "no state has been saved yet"
        if checkpoint.definition != self.definition:
            return "its definition has changed"
        state = checkpoint.state
        if state is None:
            return "no state has been saved yet"
        if "because" in state:
            return str(state["because"])
        if state["format"] != FORMAT:
            return "another version of the engine saved its state"
        needed = self.needed(as_ofs, newest)
        if not saved_since(state).serves(needed):
            return f"the saved state is of a later time than as-ofs from {iso(min(as_ofs))} on need"
        return None

    def start(
        self,
        checkpoint: Checkpoint | None,
        tables: Mapping[str, tuple[File, ...]],
        as_ofs: tuple[datetime, ...],
        published: Mapping[datetime, Mapping[str, Any]],
        definition: str,
    ) -> Start:
        """What a run over tables as they landed last would do.

        Args:
            tables: source: its files.
            published: by as-of, what the ledger has of it.
            definition: of what is published today.
        """
        newest = max([*as_ofs, *published])
        why = self.because(checkpoint, as_ofs, newest)
        reads = {file.path: file for role in event_roles(self.view) for file in tables.get(self.sources[role], ())}
        since = None
        if why is None and checkpoint is not None and checkpoint.state is not None:
            known = {file.path for files in checkpoint.tables.values() for file in files}
            fresh = {path: file for path, file in reads.items() if path not in known}
            rows = {file.path: file for name, file in checkpoint.files.items() if name.startswith("rows ")}
            reads = rows | fresh
            since = iso(moment_of(min(saved_since(checkpoint.state).rows.values())))
        last = published[max(published)]["rows"] if published else None
        others = {t for t, file in published.items() if file["definition"] != definition}
        return Start(
            because=why,
            rows_read=sum(file.rows for file in reads.values()),
            files_read=len(reads),
            since=since,
            new=sum(t not in published for t in as_ofs),
            again=sum(t in others for t in as_ofs),
            replaced=sum(t in published and t not in others for t in as_ofs),
            unchanged=len(published.keys() - set(as_ofs)),
            days=len({t.date() for t in as_ofs}),
            rows_written=None if last is None else last * len(as_ofs),
        )


def saved_since(state: Mapping[str, Any]) -> Kept:
    """What of the past a saved state is of."""
    return Kept(state["upto"], state["rows"])


def moment_of(microseconds: int) -> datetime:
    """Microseconds since 1970; the first or the last moment there is, where they lie beyond."""
    return EPOCH + timedelta(microseconds=min(max(microseconds, FIRST_MOMENT), LAST_MOMENT))

"""How far back a view looks: what of its events has to be kept, so that later as-ofs need not read them all again.

Decided from the definition alone. Aggregates over windows need the rows within them. Those over the whole history that
add up need one state per entity, and the rows after it. Everything else needs all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from engine.features.definition import Aggregate, FeatureView, Rows, mentions
from engine.features.query import lookup_alias
from engine.features.ways import adds_up, is_over_events, shown


@dataclass(frozen=True)
class Stateful:
    """Aggregates over the whole history of a set of rows, which go on from saved state.

    Attributes:
        name: of the state; the same for the same definition.
    """

    view: FeatureView
    rows: Rows
    name: str
    aggregates: tuple[Aggregate, ...]


@dataclass(frozen=True)
class Kept:
    """Moments, in microseconds, that are early enough for some as-of and for all later ones.

    Attributes:
        state: that of the state: all rows up to it, and none after it, are in it; None: the view needs none.
        rows: role: rows after this moment are needed one by one.
    """

    state: int | None
    rows: Mapping[str, int] = field(default_factory=dict)

    def serves(self, needed: Kept) -> bool:
        """Whether what is kept since these moments is enough where ``needed`` would do."""
        if (self.state is None) != (needed.state is None) or self.rows.keys() != needed.rows.keys():
            return False
        return (self.state or 0) <= (needed.state or 0) and all(self.rows[r] <= needed.rows[r] for r in needed.rows)


def parts(view: FeatureView, alias: str = "") -> Iterator[tuple[FeatureView, Rows, str]]:
    """The sets of event rows that a view reads, those of views it looks features up in too, with their alias."""
    for rows in view.rows:
        if view.role(rows.role).timestamp:
            yield view, rows, alias
        if rows.lookup:
            yield from parts(rows.lookup[0], lookup_alias(rows))


def event_roles(view: FeatureView) -> tuple[str, ...]:
    """The roles whose rows are events."""
    known = [view.known_by.role] if view.known_by else []
    return tuple(sorted({*known, *(rows.role for _, rows, _ in parts(view))}))


def unsaved(view: FeatureView) -> str | None:
    """Why later as-ofs need all rows of the view's events again; None: they do not."""
    if not event_roles(view):
        return "it reads no events"
    for own, rows, _ in parts(view):
        for aggregate in own.over(rows):
            if not (_is_windowed(aggregate) or _has_state(own, rows, aggregate)):
                return f"{shown(own, aggregate)} is a {aggregate.function} over the whole history, which needs all rows"
    if view.known_by and mentions(view.known_by.where or "", "as_of"):
        return "which entities there are depends on the as-of"
    return None


def stateful(view: FeatureView) -> tuple[Stateful, ...]:
    """What of the view goes on from state."""
    found = []
    for own, rows, alias in parts(view):
        if aggregates := tuple(a for a in own.over(rows) if not _is_windowed(a)):
            found.append(Stateful(own, rows, f"{alias}{rows.name}", aggregates))
    return tuple(found)


def kept(view: FeatureView, as_of: int) -> Kept:
    """What of the past the view needs at ``as_of`` (microseconds), and at any later moment."""
    whole = stateful(view)
    state = None
    if whole or view.known_by:
        offsets = [a.offset.microseconds for s in whole for a in s.aggregates if a.offset]
        state = as_of - max(offsets, default=0)
    rows: dict[str, int] = {}
    for own, related, _ in parts(view):
        for start in (a.bounds(as_of)[0] for a in own.over(related) if _is_windowed(a)):
            if start is not None:
                rows[related.role] = min(rows.get(related.role, start), start)
    if state is not None:
        for role in {*(s.rows.role for s in whole), *([view.known_by.role] if view.known_by else [])}:
            rows[role] = min(rows.get(role, state), state)
    return Kept(state, rows)


def bounds(view: FeatureView, role: str, as_of: int) -> set[tuple[int | None, int]]:
    """The stretches of time, in microseconds, that rows of ``role`` within may move values as of ``as_of``: later than
    the first (None: all) and not later than the second."""
    if view.known_by and view.known_by.role == role:
        return {(None, as_of)}
    found: set[tuple[int | None, int]] = set()
    for own, rows, _ in parts(view):
        for aggregate in own.over(rows) if rows.role == role else ():
            found.add(aggregate.bounds(as_of) if aggregate.timestamp is None else (None, as_of))
    return found


def same_states(aggregates: Iterable[Aggregate]) -> list[tuple[str, str | None, str | None]]:
    """The states that aggregates come to, in a fixed order: function (of those that share one, the first), value,
    condition."""
    return sorted({state_of(a) for a in aggregates}, key=repr)


def state_of(aggregate: Aggregate) -> tuple[str, str | None, str | None]:
    """The state that an aggregate rests on."""
    function = {"mean": "sum", "var": "std"}.get(aggregate.function, aggregate.function)
    return function, aggregate.value, aggregate.where


def _is_windowed(aggregate: Aggregate) -> bool:
    return aggregate.window is not None and aggregate.timestamp is None


def _has_state(view: FeatureView, rows: Rows, aggregate: Aggregate) -> bool:
    """Whether its rows may be forgotten once they are in a state; not where it rests on what else is known of the
    entity, which may change."""
    of_entity = rows.via or any(mentions(sql or "", "entity") for sql in (aggregate.where, aggregate.value))
    return is_over_events(view, rows, aggregate) and adds_up(aggregate) and not of_entity

"""How the aggregates of a view are computed where there are many as-ofs; decided from the definition alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Literal

from engine.features.definition import Aggregate, FeatureView, Rows, mentions

Way = Literal["running", "by entity", "per as-of"]
FITS = "maestro.fits"  # in the footer of a published file: by column, a fingerprint of the fit it was made with
TRAINED = "maestro.trained"  # in that of a training set: the same by view and feature
MANY = 3  # as-ofs, from which on one scan for all of them is cheaper than one query for each
_RUNNING = ("count", "sum", "mean", "min", "max", "std", "var", "first", "last")


def is_over_events(view: FeatureView, rows: Rows, aggregate: Aggregate) -> bool:
    """Whether which rows there are, and what they hold, does not depend on the as-of."""
    texts = [rows.where or "", *rows.columns.values(), aggregate.where or "", aggregate.value or ""]
    timeless = not any(mentions(text, "as_of") for text in texts)
    return bool(view.role(rows.role).timestamp) and aggregate.timestamp is None and rows.lookup is None and timeless


def adds_up(aggregate: Aggregate) -> bool:
    """Whether the aggregate's results over two sets of rows give that over both, and take a few numbers."""
    return aggregate.function in _RUNNING


def runs(aggregate: Aggregate) -> bool:
    """Whether the aggregate is computed with running state: it adds up, or what it is estimated from does."""
    return adds_up(aggregate) or aggregate.error is not None


def is_carried(view: FeatureView, rows: Rows, aggregate: Aggregate) -> bool:
    """Whether many as-ofs of it are computed from one scan; what does not add up needs numba for that."""
    return is_over_events(view, rows, aggregate) and (runs(aggregate) or _compiles())


@cache
def _compiles() -> bool:
    return find_spec("numba") is not None


def ways(view: FeatureView, as_ofs: Sequence[object]) -> dict[Way, list[str]]:
    """The names of the view's aggregates (and of those it looks up) by the way they are computed.

    ``running``: from one scan, with running state per entity; ``by entity``: from one scan, for one stripe of entities
    after the other, where numba is installed; ``per as-of``: by a query for each. Values of types that are no numbers,
    texts, moments or booleans are queried too, which shows only once the tables have been read.
    """
    found: dict[Way, list[str]] = {"running": [], "by entity": [], "per as-of": []}
    for rows in view.rows:
        for aggregate in view.over(rows):
            if len(as_ofs) < MANY or not is_carried(view, rows, aggregate):
                found["per as-of"].append(shown(view, aggregate))
            else:
                found["running" if runs(aggregate) else "by entity"].append(shown(view, aggregate))
        if rows.lookup:
            for way, names in ways(rows.lookup[0], as_ofs).items():
                found[way] += names
    return {way: list(dict.fromkeys(names)) for way, names in found.items() if names}


def shown(view: FeatureView, aggregate: Aggregate) -> str:
    """An aggregate's name; where that is private, that of the feature it serves."""
    if not aggregate.name.startswith("_"):
        return aggregate.name
    return next((f.name for f in view.features if mentions(f.sql, aggregate.name)), aggregate.name)


def spilled(view: FeatureView, rows: Mapping[str, int]) -> int:
    """About how many bytes of events lie on disk while many as-ofs are computed.

    Args:
        rows: role: how many it has.
    """
    found = 0
    for related in view.rows:
        carried = [a for a in view.over(related) if is_carried(view, related, a)]
        if carried:
            values = {a.value for a in carried if a.value is not None}
            read = {a.value for a in carried if a.value is not None and a.function != "count"}
            flags = len(values) + len({a.where for a in carried if a.where is not None})
            width = 4 + 8 + 8 * len(read) + -(-flags // 8)  # entity, moment, values, flags
            found += width * rows.get(related.role, 0)
        if related.lookup:
            found += spilled(related.lookup[0], rows)
    return found

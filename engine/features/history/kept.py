"""The table of a view's entities, kept for all as-ofs: in order, and with what no as-of changes computed once."""

from __future__ import annotations

from dataclasses import replace

from engine.duck import identifier
from engine.features.definition import Feature, FeatureView, mentions
from engine.features.query import typed


def kept(view: FeatureView) -> tuple[str, FeatureView]:
    """The query of the entities that there are as of ``as_of()``, and the view over what it gives.

    Features that rest on nothing but the entity's own columns become columns; what only they read is left out.
    """
    entity, key = view.entity, identifier(view.entity.key)
    exists = f"({identifier(view.created_at)} IS NULL OR {identifier(view.created_at)} <= as_of())"
    source = f"FROM {identifier(entity.name)} WHERE {key} IS NOT NULL AND {exists} ORDER BY _source_key"
    lookups = {r.lookup[0].entity.name for r in view.rows if r.lookup}
    if entity.name in lookups | {r.role for r in view.rows}:  # all its columns are asked for
        return f"SELECT * {source}", view
    features: list[Feature] = []
    made: list[str] = []
    for feature in view.features:
        if _is_timeless(view, feature):
            name = identifier(f"_made_{len(made)}")
            made.append(f"{typed(feature)} AS {name}")
            feature = replace(feature, sql=name, dtype=None)
        features.append(feature)
    over = replace(view, features=tuple(features))
    read = dict.fromkeys([entity.key, view.created_at, *(c.name for c in over.used(entity)), "_source_key"])
    return f"SELECT {', '.join([*map(identifier, read), *made])} {source}", over


def _is_timeless(view: FeatureView, feature: Feature) -> bool:
    """Whether its value is the same at every as-of that its entity exists at."""
    own = {c.name for c in view.entity.columns}
    others = {f.name for f in view.features} - own  # SQL may name a column that stands before it
    names = {"as_of", "entity", "_key", *(a.name for a in view.aggregates), *others}
    return not any(mentions(feature.sql, name) for name in names)

"""The objects of a Feast project as plain data: what is declared, what is registered, and in what the two differ."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.sinks.feast.definitions import OWNER, TAG
from engine.sinks.feast.service import Service
from engine.sinks.feast.view import KEY_TYPES, OfflineView, entities_of, feast_type

if TYPE_CHECKING:
    from feast import FeatureStore

KINDS = ("entity", "source", "view", "service")
Value = str | int | bool | None


@dataclass(frozen=True)
class FeastObject:
    """An entity, source, view or service.

    Attributes:
        fields: its properties; of a view ``schema.FEATURE`` is the feature's type, of a service ``features.VIEW`` are
            those that it takes of a view.
        ours: whether the engine registered it, or would.
        pipeline: whose it is then; "": it does not say, as an entity, which is any pipeline's that has views of it.
    """

    kind: str
    name: str
    fields: Mapping[str, Value] = field(default_factory=dict)
    ours: bool = True
    pipeline: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """What no two objects share: Feast tells views apart without regard to case."""
        return self.kind, self.name.lower() if self.kind == "view" else self.name


@dataclass(frozen=True)
class Change:
    """One field: what is registered and what is declared; None where it is not there."""

    field: str
    old: Value
    new: Value


@dataclass(frozen=True)
class Difference:
    """What `apply` would do about one object, and why not.

    Attributes:
        what: ``added``, ``changed``, ``removed`` (ours, and no longer declared); ``foreign``: of others, stays;
            ``clash``: of others, under a name that is declared here; ``used``: ours, no longer declared, but what
            others registered needs it.
        changes: by field; of what is removed or foreign none.
        by: what needs it, of ``used`` and of a clash about an entity.
        owner: the pipeline whose it is, of what is another one's.
    """

    what: str
    kind: str
    name: str
    changes: tuple[Change, ...] = ()
    by: str = ""
    owner: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        changes = [{"field": c.field, "old": c.old, "new": c.new} for c in self.changes]
        found = {"what": self.what, "kind": self.kind, "name": self.name, "changes": changes}
        more = {"by": self.by, "owner": self.owner}
        return {**found, **{name: value for name, value in more.items() if value}}


def declared(views: Sequence[OfflineView], services: Sequence[Service], pipeline: str = "") -> list[FeastObject]:
    """The objects that a pipeline's ``definitions.py`` makes of them."""
    found = [
        FeastObject("entity", name, {"join_key": key, "value_type": dtype.upper()})
        for (name, key), dtype in entities_of(views).items()
    ]
    for view in views:
        source = {"path": view.location, "s3_endpoint_override": view.endpoint, "format": "parquet"}
        stamps = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created_timestamp"}
        found.append(FeastObject("source", view.source, {**source, **stamps}, pipeline=pipeline))
        facts: dict[str, Value] = {
            "entities": ", ".join(entity for entity, *_ in view.entities),
            "source": view.source,
            "ttl": view.ttl,
            "online": True,
        }
        schema = {
            **{f"schema.{name}": KEY_TYPES[dtype] for name, dtype in view.keys},
            **{f"schema.{name}": feast_type(view, name, dtype) for name, dtype in view.features},
        }
        notes = {f"about.{name}": text for name, text in view.notes}
        found.append(FeastObject("view", view.name, {**facts, **schema, **notes, **_about(view)}, pipeline=pipeline))
    known = {view.name: [name for name, _ in view.features] for view in views}
    for service in services:
        taken = {f"features.{v}": ", ".join(known[v] if names is None else names) for v, names in service.features}
        found.append(FeastObject("service", service.name, {**taken, **_about(service)}, pipeline=pipeline))
    return found


def registered(store: FeatureStore) -> list[FeastObject]:
    """The objects of the registry, those of others too."""
    found = [
        FeastObject("entity", e.name, {"join_key": e.join_key, "value_type": e.value_type.name}, _is_ours(e))
        for e in store.list_entities()
    ]
    found += [FeastObject("source", s.name, _source(s), *_whose(s)) for s in store.list_data_sources()]
    found += [FeastObject("view", v.name, _view(v), *_whose(v)) for v in store.list_all_feature_views()]
    for s in store.list_feature_services():
        taken = {f"features.{p.name}": ", ".join(f.name for f in p.features) for p in s.feature_view_projections}
        found.append(FeastObject("service", s.name, {**taken, **_told(s)}, *_whose(s)))
    return found


def differences(
    wanted: Sequence[FeastObject],
    there: Sequence[FeastObject],
    pending: Collection[tuple[str, str]] = (),
    pipeline: str = "",
) -> list[Difference]:
    """In what the registry differs from what a pipeline declares, by kind and name.

    What other pipelines registered is theirs, but for entities, which all share that mean the same by them.

    Args:
        pending: (kind, name) of what is declared and cannot be registered yet; it is left as it is.
    """
    by_place = {o.place: o for o in there}
    kept = {o.place for o in wanted}
    others = [o for o in there if o.kind != "entity" and (not o.ours or o.pipeline not in ("", pipeline))]
    found = []
    for new in wanted:
        old = by_place.get(new.place)
        if old is None:
            found.append(Difference("added", new.kind, new.name, _changes({}, new.fields)))
            continue
        changes, by = _changes(old.fields, new.fields), _user(others, old)
        if new.kind == "entity":
            if changes:
                what = "changed" if old.ours and not by else "clash"
                found.append(Difference(what, new.kind, new.name, changes, by if old.ours else ""))
        elif not old.ours or old.name != new.name or old.pipeline not in ("", pipeline):
            found.append(Difference("clash", new.kind, new.name, changes, owner=old.pipeline))
        elif old.pipeline != pipeline or changes:
            whose = (Change(f"tags.{OWNER}", None, pipeline),) if old.pipeline != pipeline else ()
            found.append(Difference("changed", new.kind, new.name, (*changes, *whose)))
    for old in there:
        if old.place in kept or (old.kind, old.name) in pending:
            continue
        by = _user(others, old)
        if not old.ours or (old.kind != "entity" and old.pipeline != pipeline):
            found.append(Difference("foreign", old.kind, old.name, owner=old.pipeline))
        elif by and old.kind != "entity":
            found.append(Difference("used", old.kind, old.name, by=by))
        elif not by:
            found.append(Difference("removed", old.kind, old.name))
    return sorted(found, key=lambda d: (KINDS.index(d.kind), d.name))


def refitted(service: FeastObject, kept: Collection[str], changes: Sequence[Change]) -> dict[str, list[str]]:
    """view: its features that a service would come to serve by another fit than it is registered with.

    Args:
        service: as it is declared.
        kept: its tags that hold fits; see `Service`.
    """
    found: dict[str, list[str]] = {}
    for change in changes:
        tag = change.field.removeprefix("tags.")
        if tag in kept and change.old:
            view = tag.rpartition(".")[2]
            now = json.loads(str(change.new or "{}"))
            served = str(service.fields.get(f"features.{view}", "")).split(", ")
            wrong = [name for name, mark in json.loads(str(change.old)).items() if name in served]
            if wrong := [name for name in wrong if json.loads(str(change.old))[name] != now.get(name)]:
                found[view] = wrong
    return found


def _user(others: Sequence[FeastObject], one: FeastObject) -> str:
    """What of others' rests on an object; "": nothing."""
    return next((f"{o.kind} {o.name}" for o in others if _uses(o, one)), "")


def _uses(one: FeastObject, other: FeastObject) -> bool:
    """Whether an object rests on another."""
    if one.kind == "view" and other.kind == "entity":
        return other.name in str(one.fields.get("entities", "")).split(", ")
    if one.kind == "view" and other.kind == "source":
        return one.fields.get("source") == other.name
    return one.kind == "service" and other.kind == "view" and f"features.{other.name}" in one.fields


def _changes(old: Mapping[str, Value], new: Mapping[str, Value]) -> tuple[Change, ...]:
    names = dict.fromkeys((*new, *old))
    return tuple(Change(n, old.get(n), new.get(n)) for n in names if (old.get(n) or None) != (new.get(n) or None))


def _about(it: OfflineView | Service) -> dict[str, Value]:
    tags = {f"tags.{name}": value for name, value in it.tags if name not in (*TAG, OWNER)}
    return {"description": it.description, "owner": it.owner, **tags}


def _told(it: Any) -> dict[str, Value]:
    tags = {f"tags.{name}": value for name, value in it.tags.items() if name not in (*TAG, OWNER)}
    return {"description": it.description, "owner": it.owner, **tags}


def _is_ours(it: Any) -> bool:
    return TAG.items() <= dict(it.tags).items()


def _whose(it: Any) -> tuple[bool, str]:
    return _is_ours(it), dict(it.tags).get(OWNER, "") if _is_ours(it) else ""


def _source(source: Any) -> dict[str, Value]:
    """Of others', what they have of it."""
    facts: dict[str, Value] = {
        name: str(getattr(source, name, None) or "")
        for name in ("path", "s3_endpoint_override", "timestamp_field", "created_timestamp_column")
    }
    form = type(getattr(source, "file_format", None)).__name__
    return {**facts, "format": form.removesuffix("Format").lower()}


def _view(view: Any) -> dict[str, Value]:
    """Of others', such as views on demand, what they have of it."""
    ttl = getattr(view, "ttl", None)
    columns = [*getattr(view, "entity_columns", ()), *view.features]
    return {
        "entities": ", ".join(getattr(view, "entities", None) or ()),
        "source": getattr(getattr(view, "batch_source", None), "name", ""),
        "ttl": int(ttl.total_seconds()) if ttl else 0,
        "online": bool(getattr(view, "online", False)),
        **{f"schema.{f.name}": str(f.dtype) for f in columns},
        **{f"about.{f.name}": f.description for f in columns if f.description},
        **_told(view),
    }

"""A published feature view, as Feast needs to know it; and whether its files are what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.errors import SinkError

KEY_TYPES = {
    "String": "String",
    **dict.fromkeys(("Int64", "Int32", "Int16", "Int8", "UInt32", "UInt16", "UInt8"), "Int64"),
}
_SCALARS = {
    **{name: name for name in ("Int64", "Int32", "Float64", "Float32", "String")},
    "Boolean": "Bool",
    "Binary": "Bytes",
    "Datetime(time_unit='us', time_zone='UTC')": "UnixTimestamp",
}
FEATURE_TYPES = _SCALARS | {f"List({dtype})": f"Array({name})" for dtype, name in _SCALARS.items()}


@dataclass(frozen=True)
class OfflineView:
    """A published feature view, as Feast needs to know it.

    Attributes:
        name: of the view.
        entity: what a row describes, such as ``user``; views with the same entity share its key.
        key: the key column, never null.
        key_dtype: its Polars dtype: String, or an integer that fits in Int64.
        more_keys: (name, dtype) of further key columns; each is an entity of its own to Feast, as `key` is then.
        features: (name, Polars dtype) of each feature: Int64, Int32, Float64, Float32, String, Boolean, Binary,
            Datetime in microseconds UTC, or a list of these. Values may be null.
        path: absolute folder ``<output>/<view>`` with ``event_date=…/*.parquet`` below it, each row with
            ``event_timestamp`` and ``created_timestamp`` in microseconds UTC, (key, event_timestamp) unique.
        description, owner: for people.
        tags: the user's own.
        ttl: seconds that a row holds; 0: until a newer one.
        notes: (feature, description) of those that have one.
        url: ``s3://…`` of the folder, where it lies in a store; ``path`` is of no use then.
        endpoint: of the store, where it is not Amazon's.
    """

    name: str
    entity: str
    key: str
    key_dtype: str
    features: tuple[tuple[str, str], ...]
    path: Path
    description: str = ""
    owner: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    ttl: int = 0
    more_keys: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    url: str = ""
    endpoint: str = ""

    @property
    def location(self) -> str:
        """The folder, as Feast's registry has it."""
        return self.url or str(self.path.resolve())

    @property
    def source(self) -> str:
        """What its source is called."""
        return f"{self.name}_source"

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """(name, Polars dtype) of each key column."""
        return ((self.key, self.key_dtype), *self.more_keys)

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.keys)

    @property
    def entities(self) -> tuple[tuple[str, str, str], ...]:
        """(entity, key column, Polars dtype) of each entity that its rows describe together."""
        if not self.more_keys:
            return ((self.entity, self.key, self.key_dtype),)
        return tuple((name, name, dtype) for name, dtype in self.keys)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> OfflineView:
        """A view from its dict."""
        pairs = {name: tuple(map(tuple, found[name])) for name in ("features", "tags", "more_keys", "notes")}
        return cls(**{**found, **pairs, "path": Path(found["path"])})


def entities_of(views: Sequence[OfflineView]) -> dict[tuple[str, str], str]:
    """(entity, key column) and the key's Feast type, one per entity.

    Raises:
        SinkError: a key has no place in Feast, or two views disagree about the key of one entity.
    """
    found: dict[str, tuple[str, str]] = {}
    for view, (entity, name, dtype) in [(v, e) for v in views for e in v.entities]:
        if dtype not in KEY_TYPES:
            raise SinkError(
                f"the key {name!r} is of type {dtype}, which cannot be an entity key",
                code="feast.key_type",
                where=view.name,
                allowed=", ".join(KEY_TYPES),
                fix="cast the key in the source to a text or a 64-bit integer",
            )
        key = (name, KEY_TYPES[dtype])
        if found.setdefault(entity, key) != key:
            raise SinkError(
                f"the entity {entity!r} has the key {key} here and {found[entity]} in another view",
                code="feast.entity",
                where=view.name,
                fix="give the views of one entity the same key column and type",
            )
    return {(entity, key): dtype for entity, (key, dtype) in found.items()}


def feast_type(view: OfflineView, feature: str, dtype: str) -> str:
    if dtype not in FEATURE_TYPES:
        raise SinkError(
            f"the feature {feature!r} is of type {dtype}",
            code="feast.feature_type",
            where=view.name,
            allowed=", ".join(FEATURE_TYPES),
            fix="publish it as one of these types",
        )
    return FEATURE_TYPES[dtype]


def check_files(view: OfflineView) -> None:
    """Makes sure that all files of a view have the same columns: Feast reads them with those of the first, and casts
    in silence what differs. Files in a store are not looked at here.

    Raises:
        SinkError: they have not, or cannot be read.
    """
    if view.url:
        return
    files = sorted(view.path.glob("**/*.parquet"))
    odd = [(path, found) for path in files if (found := difference(_schema(path), view))]
    if odd:
        first, found = odd[0]
        raise SinkError(
            f"{len(odd)} of {len(files)} published files of {view.name} do not have its present columns; in this one "
            f"{found}, and Feast would read it wrongly",
            code="feast.mixed_files",
            where=str(first),
            fix="give the view a new name, or publish those as-ofs again, or remove those files",
        )


def difference(schema: Mapping[str, str], view: OfflineView) -> str | None:
    """In which column a file differs from the view; None where it does not."""
    for column, dtype in (*view.keys, *view.features):
        found = schema.get(column, "absent")
        if found != dtype:
            return f"{column!r} is {found} instead of {dtype}"
    return None


def _schema(path: Path) -> dict[str, str]:
    try:
        return {name: str(dtype) for name, dtype in pl.read_parquet_schema(path).items()}
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SinkError(
            f"the published file cannot be read: {error}",
            code="feast.unreadable",
            where=str(path),
            fix="publish that as-of again",
        ) from None

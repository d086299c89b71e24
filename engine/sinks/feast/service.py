"""A feature service: the features that a model takes, out of several views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Service:
    """A feature service.

    Attributes:
        features: (view, its features) in order; None: all that the view has.
        description, owner: for people.
        tags: the user's own, and what says by which fits its features are served.
        kept: those of the tags that hold such fits, as JSON by feature, and must not come to tell of others.
    """

    name: str
    features: tuple[tuple[str, tuple[str, ...] | None], ...]
    description: str = ""
    owner: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    kept: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Service:
        """A service from its dict."""
        features = tuple((view, None if names is None else tuple(names)) for view, names in found["features"])
        tags, kept = tuple(map(tuple, found["tags"])), tuple(found["kept"])
        return cls(**{**found, "features": features, "tags": tags, "kept": kept})

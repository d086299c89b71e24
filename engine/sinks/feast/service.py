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
        tags: the user's own.
    """

    name: str
    features: tuple[tuple[str, tuple[str, ...] | None], ...]
    description: str = ""
    owner: str = ""
    tags: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Service:
        """A service from its dict."""
        features = tuple((view, None if names is None else tuple(names)) for view, names in found["features"])
        return cls(**{**found, "features": features, "tags": tuple(map(tuple, found["tags"]))})

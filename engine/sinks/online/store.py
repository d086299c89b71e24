"""What every online store can do, and which of them a feature repo has."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

import polars as pl

from engine.sinks.feast import FeatureRepo, OfflineView
from engine.sinks.online.config import StoreConfig


class Store(Protocol):
    """An open online store."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def holds(self, view: OfflineView, /) -> bool:
        """Whether anything has been loaded of the view, as far as can be told; True where it cannot."""

    def prepare(self, view: OfflineView, rows: pl.DataFrame) -> Any:
        """The newest rows of entities as `write` takes them; may be called while another batch is written.

        Args:
            rows: the key, the features, ``event_timestamp`` and ``created_timestamp``.

        Raises:
            SinkError: a value has no place in the store.
        """

    def write(self, prepared: Any) -> None:
        """Stores what was prepared; what is stored and newer stays.

        Raises:
            SinkError: the store cannot be reached or written; writing the same rows again is right.
        """


class Removing(Store, Protocol):
    """A store that entities can be removed from."""

    config: StoreConfig

    def stored(self, view: OfflineView, /) -> Iterator[Any]:
        """The keys that are stored, of the view or of others of its entity too, encoded, in Arrow arrays."""

    def remove(self, view: OfflineView, encoded: Any, /) -> int:
        """Removes what is stored of the view for these keys, as if it had never been; gives for how many it was."""


def open_store(config: StoreConfig, repo: FeatureRepo) -> Store:
    """The store of a feature repo: by our own loader, or through Feast.

    Raises:
        SinkError: it cannot be reached.
        MissingExtra: what it takes is not installed.
    """
    if config.own and config.type == "sqlite":
        from engine.sinks.online import sqlite

        return sqlite.Store(config)
    if config.own and config.type == "redis":
        from engine.sinks.online import redis

        return redis.Store(config)
    from engine.sinks.online import other

    return other.Store(repo)

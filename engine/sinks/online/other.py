"""Any online store that Feast knows, through Feast's own ``online_write_batch``."""

from __future__ import annotations

import polars as pl

from engine.sinks.feast import FeatureRepo, OfflineView


class Store:
    """An open store; a context manager. Whether older rows give way to newer ones is for Feast's store to see to."""

    def __init__(self, repo: FeatureRepo) -> None:
        self._writer = repo.writer()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def holds(self, _: OfflineView) -> bool:
        return True

    def prepare(self, view: OfflineView, rows: pl.DataFrame) -> tuple[OfflineView, pl.DataFrame]:
        """They are taken as they are."""
        return view, rows

    def write(self, prepared: tuple[OfflineView, pl.DataFrame]) -> None:
        view, rows = prepared
        self._writer(view.name, rows)

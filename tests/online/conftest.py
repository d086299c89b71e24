"""Stores that several modules load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.online.world import own_repo
from tests.run.world import write_world


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world with a store that Feast finds by its class, and that lets older rows take the place of newer ones."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "elsewhere.py").write_text(
        "from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig\n\n\n"
        "class ElsewhereOnlineStoreConfig(SqliteOnlineStoreConfig):\n"
        "    type: str = 'elsewhere.ElsewhereOnlineStore'\n\n\n"
        "class ElsewhereOnlineStore(SqliteOnlineStore):\n"
        "    @staticmethod\n"
        "    def _get_db_path(config):\n"
        "        return str(config.repo_path / config.online_store.path)\n"
    )
    write_world(tmp_path)
    own_repo(tmp_path, {"type": "elsewhere.ElsewhereOnlineStore", "path": "data/online_store.db"})
    return tmp_path

# /// script
# dependencies = []
# ///
"""``feast materialize`` of the whole view, as its own command calls it."""

import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

from feast import FeatureStore


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    started = time.monotonic()
    store = FeatureStore(repo_path=str(folder / "repo"))
    store.materialize(datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), feature_views=["users"])
    print("inside", time.monotonic() - started, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

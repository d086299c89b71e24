# /// script
# dependencies = []
# ///
"""Feast's ``get_historical_features`` with its DuckDB store or with ours, into a Parquet file."""

import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from feast import FeatureStore

sys.path.insert(0, str(Path(__file__).parents[1]))

from world import FEATURES, VIEW


def main(folder: Path, ttl: str, out: Path, offline: str) -> None:
    warnings.simplefilter("ignore")
    started = time.monotonic()
    store = FeatureStore(repo_path=str(folder / f"repo-{ttl}-{offline}"))
    entities = pd.read_parquet(folder / "entities.parquet")
    called = time.monotonic()
    job = store.get_historical_features(entity_df=entities, features=[f"{VIEW}:{name}" for name in FEATURES])
    found = job.to_arrow()
    call = time.monotonic() - called
    pq.write_table(found, out)
    print("inside", time.monotonic() - started, call)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])

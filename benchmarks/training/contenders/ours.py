# /// script
# dependencies = []
# ///
"""``maestro training-set``, with its default memory limit."""

import sys
import time
from pathlib import Path

from engine.training import write_training_set

sys.path.insert(0, str(Path(__file__).parents[1]))

from world import VIEW, pipeline_of


def main(folder: Path, ttl: str, out: Path) -> None:
    started = time.monotonic()
    write_training_set(pipeline_of(folder, ttl), folder / "entities.parquet", out, features=f"{VIEW}:*")
    print("inside", time.monotonic() - started)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

"""A folder of temporary copies, which lasts as long as its process: what a killed one leaves, the next one removes."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "maestro-files-"
_LOCK = "lock"


class Copies:
    """A new folder, held by a lock that ends with the process, whatever ends that.

    Attributes:
        path: of the folder.
    """

    def __init__(self) -> None:
        _remove_left()
        hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
        self._lock = (hidden / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = hidden.rename(hidden.with_name(hidden.name[1:]))  # seen by others from now on, with its lock held

    def remove(self) -> None:
        """With all that lies there."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_left() -> None:
    """Removes the folders of processes that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError), (folder / _LOCK).open("r+") as lock:  # of another user: left to that one
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)

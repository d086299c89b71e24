"""Landed files in an object store. The ledger says which of them count; what lies in the workdir are copies."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from engine.errors import SinkError
from engine.ledger import File
from engine.objects import Objects
from engine.steps import KEPT, reached


class Remote:
    """The landed files of a pipeline, in the store and in the workdir under the same names.

    Args:
        folders: of the pipeline, as they begin the names.
    """

    def __init__(self, objects: Objects, root: Path, folders: Iterable[str]) -> None:
        self._objects, self._root, self._folders = objects, root, tuple(folders)

    @cached_property
    def _there(self) -> set[str]:
        return {name for folder in self._folders for name in self._objects.names(folder)}

    def claim(self) -> None:
        """Makes sure that no other ledger's files lie there: this one knows of none.

        Raises:
            SinkError: some do.
        """
        if self._there:
            raise SinkError(
                f"{self._objects} holds {len(self._there)} landed files of this pipeline that the ledger does not know",
                code="landing.occupied",
                where="landing.path",
                fix="use the ledger that they belong to, name another folder, or remove them",
            )

    def keep(self, files: Iterable[File]) -> None:
        """Puts those files into the store that are not there yet; the ledger may name them from then on.

        Raises:
            SinkError: it cannot be written.
        """
        for file in files:
            if file.path not in self._there:
                self._objects.put(self._root / file.path, file.path)
                self._there.add(file.path)
                reached(KEPT)

    def fetch(self, files: Iterable[File]) -> None:
        """Copies those files to the workdir that are not there, as far as the store has them.

        Raises:
            SinkError: it cannot be read.
        """
        for file in files:
            path = self._root / file.path
            if not (path.is_file() and path.stat().st_size == file.bytes) and file.path in self._there:
                self._objects.get(file.path, path)

    def drop_unnamed(self, named: set[str], listed: set[str]) -> None:
        """Removes what was listed and is not named."""
        gone = listed - named
        self._objects.remove(sorted(gone))
        self._there.difference_update(gone)

    def listed(self) -> set[str]:
        """What is there now."""
        self.__dict__.pop("_there", None)
        return set(self._there)

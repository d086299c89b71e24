"""A Feast feature repo on local disk: written, applied and read by Feast's own means.

Nothing here prints: what Feast prints, draws and warns about stays inside, and what it raises becomes a `SinkError`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import runpy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from engine.errors import MaestroError, MissingExtra, SinkError
from engine.sinks.feast.definitions import HEADER, MARK, TAG, definitions, literal
from engine.sinks.feast.view import OfflineView, check_files
from engine.sinks.online.config import read_config
from engine.types import redact

if TYPE_CHECKING:
    from feast import FeatureStore

Key = str | int | Mapping[str, str | int]
_FIXES = {
    "apply": "check that definitions.py lies in the repo as the last run wrote it, and run again",
    "load": "check that the view is applied, and that the online store can be written; then run again",
    "online": "check the names of view and features and the type of the keys; `maestro run` loads the store",
}


@dataclass(frozen=True)
class FeatureRepo:
    """A Feast feature repo on local disk.

    A ``feature_store.yaml`` that lies there and is not the engine's stays, and says where registry and online store
    are; without one, they lie in the repo's ``data`` folder.

    Attributes:
        folder: absolute path of the repo.
        project: Feast project.
    """

    folder: Path
    project: str

    def check(self, views: Sequence[OfflineView] = ()) -> None:
        """Finds out what would stop `write` whatever is published; writes nothing, imports nothing.

        Raises:
            MissingExtra: Feast is not installed.
            SinkError: the repo has definitions of its own, or is another project's; a dtype or a path has no place
                in Feast, or two views disagree about the key of one entity.
        """
        if importlib.util.find_spec("feast") is None:
            raise MissingExtra("feast", "feast", "publishing to a feature store")
        for path in self._files(views):
            _check_ours(path)

    def write(self, views: Sequence[OfflineView]) -> None:
        """Writes ``feature_store.yaml`` and ``definitions.py``, each as a whole or not at all.

        Raises:
            MissingExtra: as `check`.
            SinkError: as `check`; or a published file lacks a column or holds it as another type.
        """
        self.check(views)
        for view in views:
            check_files(view)
        for path, text in self._files(views).items():
            _replace(path, text)

    def apply(self) -> None:
        """Registers exactly what ``definitions.py`` defines.

        What an earlier run registered and ``definitions.py`` no longer holds is removed, its online rows too.
        Objects that others registered in the project stay.

        Raises:
            SinkError: Feast refuses the definitions.
            MissingExtra: Feast is not installed.
        """
        with self._open("apply") as store:
            from feast import Entity, FeatureView, FileSource

            names = runpy.run_path(str(self.folder / "definitions.py"))
            defined: list[Any] = [o for o in names.values() if isinstance(o, Entity | FeatureView | FileSource)]
            kept = {(type(o), o.name) for o in defined}
            registered: list[Any] = [
                *store.list_feature_views(tags=TAG),
                *store.list_entities(tags=TAG),
                *store.list_data_sources(tags=TAG),
            ]
            gone = [o for o in registered if (type(o), o.name) not in kept]
            store.apply(defined, objects_to_delete=gone, partial=False)

    def writer(self) -> Callable[[str, pl.DataFrame], None]:
        """What writes rows of a view into the online store through its ``online_write_batch``, whatever store it is.

        Raises:
            SinkError: the repo cannot be opened; on writing: the view is not applied, or the store cannot be written.
            MissingExtra: Feast is not installed.
        """
        with self._open("load") as store:
            provider = store._get_provider()

        def write(view: str, rows: pl.DataFrame) -> None:
            with self._worded("load"):
                from feast.utils import _convert_arrow_to_proto

                definition = store.get_feature_view(view)
                keys = {column.name: column.dtype.to_value_type() for column in definition.entity_columns}
                table = rows.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
                data = _convert_arrow_to_proto(table, definition, keys)
                provider.online_write_batch(store.config, definition, data, None)

        return write

    def online(self, view: str, keys: Sequence[Key], features: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """What the online store holds for each key, through ``FeatureStore.get_online_features``.

        Args:
            view: name of an applied view.
            keys: entity keys, of the type that the view's key has; a compound one as a mapping.
            features: names of features; None for all of the view.

        Returns:
            One row per key, in the order of ``keys``: the key columns and each feature. None stands for a null
            value and for a key that the store does not know.

        Raises:
            SinkError: the view or a feature is not applied, or a key has the wrong type.
            MissingExtra: Feast is not installed.
        """
        if not keys:
            return []
        columns, join_keys, wanted = self._online(view, keys, features)
        return [{name: columns[name][i] for name in (*join_keys, *wanted)} for i in range(len(keys))]

    def online_since(self, view: str, keys: Sequence[Key]) -> tuple[dict[str, list[Any]], dict[str, list[int]]]:
        """The same by feature, and the event timestamps of the values in seconds since 1970, 0 where there is none.

        Raises:
            SinkError, MissingExtra: as `online`.
        """
        columns, _, names = self._online(view, keys, None)
        return {name: columns[name] for name in names}, {name: columns[f"{name}__ts"] for name in names}

    def _online(
        self, view: str, keys: Sequence[Key], features: Sequence[str] | None
    ) -> tuple[dict[str, list[Any]], list[str], list[str]]:
        with self._open("online") as store:
            definition = store.get_feature_view(view)
            rows = [dict(key) if isinstance(key, Mapping) else {definition.join_keys[0]: key} for key in keys]
            wanted = list(features) if features is not None else [f.name for f in definition.features]
            response = store.get_online_features(features=[f"{view}:{name}" for name in wanted], entity_rows=rows)
            return response.to_dict(include_event_timestamps=True), definition.join_keys, wanted

    def _files(self, views: Sequence[OfflineView]) -> dict[Path, str]:
        files = {self.folder / "definitions.py": definitions(views, self.folder.resolve(), self.project)}
        configuration = self.folder / "feature_store.yaml"
        if _is_ours(configuration):
            return {configuration: self._configuration(), **files}
        if (project := read_config(self.folder).project) != self.project:
            raise SinkError(
                f"the feature repo is the project {project!r}, the pipeline's feast.project is {self.project!r}",
                code="feast.project",
                where=str(configuration),
                fix="name the same project in both, or choose another feast.repo",
            )
        return files

    def _configuration(self) -> str:
        return "\n".join(
            [
                HEADER,
                f"project: {literal(self.project)}",
                "provider: local",
                "registry: data/registry.db",
                "online_store:",
                "  type: sqlite",
                "  path: data/online_store.db",
                "offline_store:",
                "  type: duckdb",
                "entity_key_serialization_version: 3",
                "",
            ]
        )

    @contextlib.contextmanager
    def _open(self, step: str) -> Iterator[FeatureStore]:
        """Feast's view of the repo for one ``step``: silent, and failing with a SinkError."""
        with self._worded(step):
            try:
                from feast import FeatureStore
            except ImportError:
                raise MissingExtra("feast", "feast", "publishing to a feature store") from None
            yield FeatureStore(repo_path=str(self.folder))

    @contextlib.contextmanager
    def _worded(self, step: str) -> Iterator[None]:
        with contextlib.ExitStack() as quiet:
            quiet.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
                quiet.enter_context(redirect(io.StringIO()))
            try:
                yield
            except MaestroError:
                raise
            except Exception as error:  # noqa: BLE001 - Feast raises whatever its parts raise: duckdb, sqlite3 …
                reason = redact(str(error).strip() or type(error).__name__, read_config(self.folder).secrets)
                raise SinkError(
                    f"Feast failed: {reason}",
                    code=f"feast.{step}",
                    where=str(self.folder),
                    fix=_FIXES[step],
                ) from None


def _is_ours(path: Path) -> bool:
    """Whether the engine generated the file, or may: there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().startswith(MARK)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, UnicodeDecodeError):
        return False


def _check_ours(path: Path) -> None:
    if not _is_ours(path):
        raise SinkError(
            "the file was not generated by maestro and is not overwritten",
            code="feast.not_ours",
            where=str(path),
            fix="choose another feast.repo, or move the file away",
        )


def _replace(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` at once; whoever reads sees the old file or the new one."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text, encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise SinkError(
            f"cannot write the file: {error.strerror}",
            code="feast.unwritable",
            where=str(path),
            fix="check that the folder of feast.repo can be written and has room",
        ) from None

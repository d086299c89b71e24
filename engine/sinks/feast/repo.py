"""A Feast feature repo on local disk: written, applied and read by Feast's own means.

Nothing here prints: what Feast prints, draws and warns about stays inside, and what it raises becomes a `SinkError`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import re
import runpy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from engine.errors import MaestroError, MissingExtra, SinkError
from engine.sinks.feast.definitions import HEADER, TAG, author, definitions, literal
from engine.sinks.feast.files import check_ours, is_ours, locked, own_definitions, replace
from engine.sinks.feast.objects import Difference, FeastObject, declared, differences, refitted, registered
from engine.sinks.feast.refusals import clash, served
from engine.sinks.feast.scan import defined
from engine.sinks.feast.service import Service
from engine.sinks.feast.view import OfflineView, check_files
from engine.sinks.online.config import read_config
from engine.types import redact

if TYPE_CHECKING:
    from feast import FeatureStore

Key = str | int | Mapping[str, str | int]
# The versions of Feast whose stored bytes and registry are known to be those that the engine writes and reads.
OLDEST, BEYOND = (0, 66), (0, 68)
_FIXES = {
    "apply": "check that the definitions lie in the repo as they were written, and apply again",
    "read": "check that the registry that feature_store.yaml names can be reached",
    "load": "check that the view is applied, and that the online store can be written; then run again",
    "online": "check the names of view and features and the type of the keys; `maestro run` loads the store",
}


@dataclass(frozen=True)
class FeatureRepo:
    """A Feast feature repo on local disk.

    A ``feature_store.yaml`` that lies there and is not the engine's stays, and says where registry and online store
    are; without one, they lie in the repo's ``data`` folder. So do all other files and objects of others: the engine
    writes ``definitions.py``, or ``maestro_definitions.py`` beside one of somebody else's, and registers what that
    defines. Of several pipelines with one repo each has its own file and its own objects; entities are shared.

    Attributes:
        folder: absolute path of the repo.
        project: Feast project.
        pipeline: whose definitions are written and registered.
    """

    folder: Path
    project: str
    pipeline: str = ""

    def check(self, views: Sequence[OfflineView] = (), services: Sequence[Service] = ()) -> None:
        """Finds out what would stop `apply` whatever is published; writes nothing, imports nothing.

        Raises:
            MissingExtra: Feast is not installed.
            SinkError: it is not a version that the engine knows; the repo is another project's, or one of its files
                defines what is declared here, and is no equal entity; a dtype or a path has no place in Feast, or two
                views disagree about the key of one entity.
        """
        check_version()
        self._files(views, services, ())
        wanted = {(o.kind, o.name): o for o in declared(views, services, self.pipeline)}
        for other in defined(self.folder) if wanted else ():
            one = wanted.get((other.kind, other.name))
            if one is None or other.pipeline in ("", self.pipeline):
                continue
            unlike = [f"{name} {known}" for name, known in other.facts.items() if one.fields[name] != known]
            if unlike or one.kind != "entity":
                raise clash(one, str(other.path), other.pipeline or "", unlike)

    def write(self, views: Sequence[OfflineView], services: Sequence[Service] = ()) -> None:
        """Writes ``feature_store.yaml`` and the definitions, each as a whole or not at all.

        Raises:
            MissingExtra: as `check`.
            SinkError: as `check`; or a published file lacks a column or holds it as another type.
        """
        self.check(views, services)
        for view in views:
            check_files(view)
        with locked(self.folder):
            self._write(views, services, ())

    def _write(self, views: Sequence[OfflineView], services: Sequence[Service], shared: Collection[str]) -> None:
        for path, text in self._files(views, services, self._shared(shared)).items():
            replace(path, text)

    def diff(
        self,
        views: Sequence[OfflineView],
        services: Sequence[Service] = (),
        pending: Collection[tuple[str, str]] = (),
    ) -> list[Difference]:
        """In what the registry differs from what is declared; writes nothing, but for an empty registry's own file.

        Args:
            pending: (kind, name) of what is declared and cannot be registered yet.

        Raises:
            SinkError, MissingExtra: as `check`; the registry cannot be read.
        """
        self.check(views, services)
        return differences(declared(views, services, self.pipeline), self._registered(), pending, self.pipeline)

    def _registered(self) -> list[FeastObject]:
        if not (self.folder / "feature_store.yaml").exists():
            return []
        with self._open("read") as store:
            return registered(store)

    def apply(
        self,
        views: Sequence[OfflineView],
        services: Sequence[Service] = (),
        pending: Collection[tuple[str, str]] = (),
    ) -> list[Difference]:
        """Writes the definitions and registers exactly what they define; gives what that changed.

        What an earlier run registered and is no longer declared is removed, its online rows too. Objects that others
        registered in the project stay.

        Raises:
            SinkError: as `write`; others have registered an object of the same name, or what rests on one that would
                be removed, or a service would come to serve what another fit made: nothing is written then; Feast
                refuses the definitions.
            MissingExtra: Feast is not installed.
        """
        self.check(views, services)
        with locked(self.folder):
            there, wanted = self._registered(), declared(views, services, self.pipeline)
            found = differences(wanted, there, pending, self.pipeline)
            self._check(found, wanted, services)
            theirs = {o.name for o in there if o.kind == "entity" and not o.ours}
            shared = sorted(theirs & {o.name for o in wanted if o.kind == "entity"})
            done = [d for d in found if d.what in ("added", "changed", "removed")]
            files = self._state(views, services, shared)
            is_same = bool(files) and self._stamped()[0] == files  # but for what others did to the registry
            for view in views:
                check_files(view)
            self._write(views, services, shared)
            if done or not is_same:
                missing = {o.place for o in wanted if o.kind == "entity"} - {o.place for o in there}
                hand = [o for o in wanted if o.place in missing and o.name in self._shared(())]
                self._register([(d.kind, d.name) for d in found if d.what == "removed"], hand)
            if files := self._state(views, services, shared):
                replace(self._stamp, "\n".join([files, self._registry_state(), *shared]))
        return done

    def _check(self, found: Sequence[Difference], wanted: Sequence[FeastObject], services: Sequence[Service]) -> None:
        """That nothing that was found forbids to register."""
        by_place = {(o.kind, o.name): o for o in wanted}
        kept = {service.name: service.kept for service in services}
        for one in found:
            if one.what == "clash":
                unlike = [f"{c.field} {c.old}" for c in one.changes]
                raise clash(by_place[one.kind, one.name], str(self.folder), one.owner, unlike, one.by)
            if one.kind == "service" and one.what == "changed":
                new = refitted(by_place[one.kind, one.name], kept[one.name], one.changes)
                for view, features in new.items():
                    raise served(one.name, view, ", ".join(features))
            if one.what == "used":
                raise SinkError(
                    f"the {one.kind} {one.name} is no longer declared, and the {one.by} of someone else's needs it",
                    code="feast.used",
                    where=str(self.folder / "feature_store.yaml"),
                    fix=f"declare it again, or remove the {one.by} first",
                )

    def _register(self, gone: Collection[tuple[str, str]], hand: Sequence[FeastObject]) -> None:
        """Has Feast register what the definitions define, and remove what is gone.

        Args:
            hand: hand-written entities that have not been registered: without one, a key would be taken for a feature.
        """
        with self._open("apply") as store:
            from feast import Entity, FeatureService, FeatureView, FileSource, ValueType

            names = runpy.run_path(str(self.definitions))
            kinds = Entity | FeatureView | FileSource | FeatureService
            objects: list[Any] = [o for o in names.values() if isinstance(o, kinds)]
            for one in hand:
                key, kind = one.fields["join_key"], ValueType[str(one.fields["value_type"])]
                objects.append(Entity(name=one.name, join_keys=[str(key)], value_type=kind))
            there: dict[str, list[Any]] = {
                "view": store.list_feature_views(tags=TAG),
                "entity": store.list_entities(tags=TAG),
                "source": store.list_data_sources(tags=TAG),
                "service": store.list_feature_services(tags=TAG),
            }
            gone_objects = [o for kind, known in there.items() for o in known if (kind, o.name) in gone]
            store.apply(objects, objects_to_delete=gone_objects, partial=False)

    def is_applied(self, views: Sequence[OfflineView], services: Sequence[Service] = ()) -> bool:
        """Whether the registry is, byte for byte, what `apply` of the same left behind; Feast is not asked.

        Never of a registry that is not a local file.
        """
        files, registry, *shared = self._stamped()
        try:
            is_same = bool(files) and files == self._state(views, services, shared)
            return is_same and registry == self._registry_state()
        except OSError:
            return False

    @property
    def was_applied(self) -> bool:
        """Whether `is_applied` may be so."""
        return self._stamp.exists()

    @property
    def is_new(self) -> bool:
        """Whether its registry is a local file that is not there yet, and its online store one that we load."""
        if not (self.folder / "feature_store.yaml").exists():
            return not (self.folder / "data/registry.db").exists()
        config = read_config(self.folder)
        return config.own and config.registry_file is not None and not config.registry_file.exists()

    @property
    def is_loaded_by_feast(self) -> bool:
        """Whether its online store is written through Feast."""
        return (self.folder / "feature_store.yaml").exists() and not read_config(self.folder).own

    def warm(self) -> None:
        """Imports what Feast needs for this repo, as far as there is one; whatever is amiss shows when it is used."""
        with contextlib.suppress(SinkError, MissingExtra), self._worded("read"):
            import feast

            if (self.folder / "feature_store.yaml").exists():
                feast.FeatureStore(repo_path=str(self.folder))._get_provider()

    @property
    def definitions(self) -> Path:
        """The file that the engine writes its definitions to."""
        return own_definitions(self.folder, self.pipeline)

    @property
    def _stamp(self) -> Path:
        return self.folder / (f".maestro_applied_{self.pipeline}" if self.pipeline else ".maestro_applied")

    def _stamped(self) -> list[str]:
        """Fingerprints of files and registry as the last `apply` left them, and the entities that it shared."""
        try:
            found = self._stamp.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError):
            found = []
        return found if len(found) > 1 else ["", ""]

    def _state(self, views: Sequence[OfflineView], services: Sequence[Service], shared: Collection[str]) -> str:
        """A fingerprint of the pipeline's files and of who made them; empty where they are not as they are to be, or
        the registry is no local file."""
        if not (self.folder / "feature_store.yaml").exists() or read_config(self.folder).registry_file is None:
            return ""
        found = hashlib.sha256(repr([str(self.folder), feast_version(), self.project, self.pipeline]).encode())
        files = self._files(views, services, self._shared(shared))
        for path in (self.definitions, self.folder / "feature_store.yaml"):
            if not path.exists() or (path in files and path.read_text(encoding="utf-8") != files[path]):
                return ""
            found.update(hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()

    def _registry_state(self) -> str:
        registry = read_config(self.folder).registry_file
        return hashlib.sha256(registry.read_bytes()).hexdigest() if registry else ""

    def _shared(self, registered: Collection[str]) -> set[str]:
        """The entities that are hand-written: those registered so, and those in files."""
        return {*registered, *(o.name for o in defined(self.folder) if o.kind == "entity" and o.pipeline is None)}

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

    def _files(
        self, views: Sequence[OfflineView], services: Sequence[Service], shared: Collection[str]
    ) -> dict[Path, str]:
        path = self.definitions
        check_ours(path)
        files = {path: definitions(views, services, self.folder.resolve(), self.project, self.pipeline, shared)}
        configuration = self.folder / "feature_store.yaml"
        if is_ours(configuration):
            return {configuration: self._configuration(any(view.url for view in views) or self._others_remote), **files}
        if (project := read_config(self.folder).project) != self.project:
            raise SinkError(
                f"the feature repo is the project {project!r}, the pipeline's feast.project is {self.project!r}",
                code="feast.project",
                where=str(configuration),
                fix="name the same project in both, or choose another feast.repo",
            )
        return files

    @property
    def _others_remote(self) -> bool:
        """Whether other pipelines' views lie in a store."""
        others = [path for path in self.folder.glob("*.py") if author(path) not in (None, "", self.pipeline)]
        return any('    path="s3://' in path.read_text(encoding="utf-8") for path in others)

    def _configuration(self, remote: bool) -> str:
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
                f"  type: {'file' if remote else 'duckdb'}",  # its duckdb store cannot be told of an endpoint
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
            store = FeatureStore(repo_path=str(self.folder))
            try:
                yield store
            finally:
                for engine in ("write_engine", "read_engine"):  # of a SQL registry, which keeps its connections open
                    if hasattr(store.registry, engine):
                        getattr(store.registry, engine).dispose()

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


def feast_version() -> str:
    """Of the Feast that is installed; it is not imported.

    Raises:
        MissingExtra: there is none.
    """
    if importlib.util.find_spec("feast") is None:
        raise MissingExtra("feast", "feast", "publishing to a feature store")
    return importlib.metadata.version("feast")


def check_version() -> None:
    """Makes sure that Feast is there, in a version whose stored bytes are known.

    Raises:
        MissingExtra, SinkError: it is not.
    """
    found = feast_version()
    numbers = tuple(int(n) for n in re.findall(r"\d+", found)[:2])
    if not OLDEST <= numbers < BEYOND:
        oldest, beyond = (".".join(map(str, version)) for version in (OLDEST, BEYOND))
        raise SinkError(
            f"Feast {found} is installed, which is not known to store what the engine does",
            code="feast.version",
            where="feast",
            allowed=f"from {oldest} on, before {beyond}",
            fix=f"pip install 'feast>={oldest},<{beyond}'",
        )

"""What is registered is what is declared: differences by object and field, and nothing of others is touched."""

from __future__ import annotations

import dataclasses
import json
import runpy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import SinkError
from engine.sinks.feast import Change, Difference, FeatureRepo, OfflineView, Service
from engine.sinks.feast.objects import declared, registered
from tests.servers.postgres import PASSWORD, Postgres

FEATURES = (("score", "Float64"), ("tasks", "Int64"), ("names", "List(String)"))
REGISTRIES = ("file", "sql")


@pytest.fixture(autouse=True)
def _feast_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class World:
    """Two views of one entity and one of a compound key, and a service, in a repo with either registry."""

    def __init__(self, root: Path, url: str | None = None) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.stores: list[Any] = []
        self.repo = FeatureRepo(root / "repo", "shop")
        if url is not None:
            registry = {"registry_type": "sql", "path": url, "cache_ttl_seconds": 0}
            self.configure(registry=registry)
        users = OfflineView(
            *("users", "user", "user_id", "String", FEATURES, root / "features/users"),
            description="Who «they» are",
            owner="ann@example.com",
            tags=(("team", "growth"),),
            ttl=86_400,
            notes=(("score", 'how "good"'),),
        )
        more = OfflineView("more", "user", "user_id", "String", FEATURES[:1], root / "features/more")
        sales = OfflineView(
            *("sales", "sale", "shop", "String", FEATURES[1:2], root / "features/sales"), more_keys=(("day", "Int64"),)
        )
        self.views = (users, more, sales)
        self.services = (
            Service("churn", (("users", ("tasks", "score")), ("more", None)), "Leaves?", "bob", (("model", "m1"),)),
        )

    def configure(self, **more: Any) -> None:
        whole = {"project": "shop", "provider": "local", "registry": "data/registry.db", **more}
        whole |= {"online_store": {"type": "sqlite", "path": "data/online.db"}, "offline_store": {"type": "duckdb"}}
        self.repo.folder.mkdir(parents=True, exist_ok=True)
        (self.repo.folder / "feature_store.yaml").write_text(
            json.dumps({**whole, "entity_key_serialization_version": 3})
        )

    def store(self) -> Any:
        from feast import FeatureStore

        store = FeatureStore(repo_path=str(self.repo.folder))
        self.stores.append(store)
        return store

    def close(self) -> None:
        for store in self.stores:
            if hasattr(store.registry, "write_engine"):
                store.registry.write_engine.dispose()
                store.registry.read_engine.dispose()

    def diff(self) -> list[Difference]:
        return self.repo.diff(self.views, self.services)

    def apply(self) -> list[Difference]:
        return self.repo.apply(self.views, self.services)

    def everything(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.repo.folder.rglob("*") if path.is_file()}


@pytest.fixture
def worlds(tmp_path: Path, postgres_server: Postgres) -> Iterator[Any]:
    """Makes a world with a registry in a file or on a server."""

    made = []

    def make(kind: str) -> World:
        url = None
        if kind == "sql":
            postgres_server.execute("DROP SCHEMA IF EXISTS registry CASCADE; CREATE SCHEMA registry")
            url = postgres_server.url.replace("postgresql://", "postgresql+psycopg://")
            url += "?options=-csearch_path%3Dregistry"
        made.append(World(tmp_path / kind, url))
        return made[-1]

    yield make
    for world in made:
        world.close()
    postgres_server.execute("DROP SCHEMA IF EXISTS registry CASCADE")


def summary(found: list[Difference]) -> list[tuple[str, str, str]]:
    return [(d.what, d.kind, d.name) for d in found]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_what_is_applied_is_what_is_declared(worlds: Any, kind: str) -> None:
    world = worlds(kind)
    expected = [
        ("added", "entity", "day"),
        ("added", "entity", "shop"),
        ("added", "entity", "user"),
        *(("added", "source", f"{name}_source") for name in ("more", "sales", "users")),
        *(("added", "view", name) for name in ("more", "sales", "users")),
        ("added", "service", "churn"),
    ]
    assert summary(world.diff()) == expected
    assert summary(world.apply()) == expected
    assert world.diff() == []
    assert world.apply() == []
    store = world.store()
    view = store.get_feature_view("users")
    assert (view.owner, view.description, view.ttl.total_seconds()) == ("ann@example.com", "Who «they» are", 86_400)
    assert view.tags == {"team": "growth", "managed_by": "maestro-engine"}
    assert {f.name: (str(f.dtype), f.description) for f in view.schema} == {
        "user_id": ("String", ""),
        "score": ("Float64", 'how "good"'),
        "tasks": ("Int64", ""),
        "names": ("Array(String)", ""),
    }
    assert store.get_feature_view("sales").join_keys == ["shop", "day"]
    service = store.get_feature_service("churn")
    assert (service.owner, service.description) == ("bob", "Leaves?")
    assert [(p.name, [f.name for f in p.features]) for p in service.feature_view_projections] == [
        ("users", ["tasks", "score"]),
        ("more", ["score"]),
    ]
    assert {(o.kind, o.name): o for o in registered(store)} == {
        (o.kind, o.name): dataclasses.replace(o, fields={**o.fields}) for o in declared(world.views, world.services)
    }


@pytest.mark.parametrize("kind", REGISTRIES)
def test_differences_are_told_by_field_and_only_what_was_ours_is_removed(worlds: Any, kind: str) -> None:
    from feast import Entity, ValueType

    world = worlds(kind)
    world.apply()
    world.store().apply([Entity(name="theirs", join_keys=["id"], value_type=ValueType.STRING)])
    users = dataclasses.replace(
        world.views[0],
        ttl=0,
        owner="",
        tags=(("team", "sales"),),
        features=(("score", "Int64"), ("names", "List(String)"), ("fresh", "Boolean")),
    )
    world.views = (users, world.views[2])
    world.services = ()
    found = world.diff()
    assert summary(found) == [
        ("foreign", "entity", "theirs"),
        ("removed", "source", "more_source"),
        ("removed", "view", "more"),
        ("changed", "view", "users"),
        ("removed", "service", "churn"),
    ]
    assert set(found[3].changes) == {
        Change("ttl", 86_400, 0),
        Change("owner", "ann@example.com", ""),
        Change("tags.team", "growth", "sales"),
        Change("schema.score", "Float64", "Int64"),
        Change("schema.tasks", "Int64", None),
        Change("schema.fresh", None, "Bool"),
    }
    assert summary(world.apply()) == [t for t in summary(found) if t[0] != "foreign"]
    assert summary(world.diff()) == [("foreign", "entity", "theirs")]
    store = world.store()
    assert sorted(e.name for e in store.list_entities()) == ["day", "shop", "theirs", "user"]
    assert sorted(v.name for v in store.list_feature_views()) == ["sales", "users"]
    assert store.list_feature_services() == []


THEIRS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64

client = Entity(name="client", join_keys=["client_id"], value_type=ValueType.STRING)
source = FileSource(name="hand_source", path="/data/hand.parquet", file_format=ParquetFormat(), timestamp_field="ts")
hand = FeatureView(
    name="hand", entities=[client], ttl=timedelta(days=1), source=source,
    schema=[Field(name="client_id", dtype=__import__("feast").types.String), Field(name="amount", dtype=Float64)],
)
model = FeatureService(name="hand_model", features=[hand])
"""


@pytest.fixture
def extended(tmp_path: Path) -> World:
    """A hand-written repo, applied by Feast's own means."""
    from feast import Entity, FeatureService, FeatureView, FileSource

    world = World(tmp_path / "hand")
    world.configure()
    (world.repo.folder / "definitions.py").write_text(THEIRS)
    (world.repo.folder / "notes.txt").write_text("mine")
    made = runpy.run_path(str(world.repo.folder / "definitions.py")).values()
    world.store().apply([o for o in made if isinstance(o, Entity | FeatureService | FeatureView | FileSource)])
    return world


def test_a_hand_written_repo_is_extended_and_stays_as_it_is(extended: World) -> None:
    before = {p: b for p, b in extended.everything().items() if "data" not in p.parts}
    theirs = [o for o in registered(extended.store()) if not o.ours]
    assert {o.name for o in theirs} == {"client", "hand_source", "hand", "hand_model"}
    extended.apply()
    after = extended.everything()
    assert {p: after[p] for p in before} == before
    assert {p.name for p in after.keys() - before.keys() if "data" not in p.parts} == {
        "maestro_definitions.py",
        ".maestro_applied",
    }
    assert [o for o in registered(extended.store()) if not o.ours] == theirs
    feast = [str(Path(sys.executable).with_name("feast")), "-c", str(extended.repo.folder), "apply"]
    subprocess.run([*feast, "--skip-source-validation"], check=True, capture_output=True, timeout=120)
    assert {d.what for d in extended.diff()} == {"foreign"}, "feast apply takes both files, and neither from the other"
    assert [o for o in registered(extended.store()) if not o.ours] == theirs
    extended.views = extended.views[2:]
    extended.services = ()
    extended.apply()
    assert [o for o in registered(extended.store()) if not o.ours] == theirs


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("view", {"name": "HAND"}),
        ("view", {"name": "hand"}),
        ("source", {"name": "hand"}),
        ("entity", {"entity": "client"}),
        ("service", {}),
    ],
)
@pytest.mark.parametrize("text", [True, False])
def test_names_that_others_have_are_refused_before_anything_is_written(
    extended: World, kind: str, change: dict[str, Any], text: bool
) -> None:
    """They are found in the files of the repo, and in the registry."""
    if not text:
        (extended.repo.folder / "definitions.py").write_text("# all in the registry")
    extended.views = (dataclasses.replace(extended.views[1], **change),)
    name = "hand_model" if kind == "service" else "fine"
    extended.services = (Service(name, ((extended.views[0].name, None),)),)
    before = extended.everything()
    with pytest.raises(SinkError, match="is not maestro's") as caught:
        extended.apply()
    assert caught.value.code == "feast.clash"
    assert extended.everything() == before


def test_what_others_use_is_not_removed(tmp_path: Path) -> None:
    from feast import FeatureService

    world = World(tmp_path / "used")
    world.apply()
    store = world.store()
    store.apply([FeatureService(name="their_model", features=[store.get_feature_view("more")])])
    world.views = (world.views[0],)
    world.services = ()
    before = world.everything()
    assert ("used", "view", "more") in summary(world.diff())
    with pytest.raises(SinkError, match="the service their_model of someone else's needs it") as caught:
        world.apply()
    assert caught.value.code == "feast.used"
    assert world.everything() == before


def test_nothing_is_applied_twice_unless_something_moved(tmp_path: Path) -> None:
    world = World(tmp_path / "twice")
    assert not world.repo.is_applied(world.views, world.services)
    world.apply()
    assert world.repo.is_applied(world.views, world.services)
    world.store().list_feature_views()
    assert world.repo.is_applied(world.views, world.services), "reading changes nothing"
    assert not world.repo.is_applied(world.views, ())
    assert not world.repo.is_applied(world.views[:2], world.services)
    from feast import Entity, ValueType

    world.store().apply([Entity(name="theirs", join_keys=["id"], value_type=ValueType.STRING)])
    assert not world.repo.is_applied(world.views, world.services), "the registry has changed"
    world.apply()
    assert world.repo.is_applied(world.views, world.services)
    world.repo.definitions.write_text(world.repo.definitions.read_text() + "\n")
    assert not world.repo.is_applied(world.views, world.services)


def test_a_registry_on_a_server_is_always_asked(worlds: Any) -> None:
    world = worlds("sql")
    world.apply()
    assert not world.repo.is_applied(world.views, world.services)


def test_a_registry_that_cannot_be_reached_says_so_without_its_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg://maestro:p%40ss%3Aw%2Frd-pg@127.0.0.1:9/none"
    world = World(tmp_path / "dead", url)
    with pytest.raises(SinkError) as caught:
        world.diff()
    assert caught.value.code == "feast.read"
    told = str(caught.value.to_dict())
    assert PASSWORD not in told
    assert "p%40ss" not in told


def test_a_registry_whose_variable_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGISTRY_URL", raising=False)
    world = World(tmp_path / "unset", "${REGISTRY_URL}")
    with pytest.raises(SinkError, match="registry names the environment variable REGISTRY_URL"):
        world.diff()


@pytest.mark.parametrize("version", ["0.65.0", "0.68.0", "1.0"])
def test_a_feast_whose_bytes_are_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    with pytest.raises(SinkError, match=f"Feast {version} is installed") as caught:
        World(tmp_path / "old").repo.check()
    assert (caught.value.code, caught.value.allowed) == ("feast.version", "from 0.66 on, before 0.68")

"""Two pipelines in one feature repo: each keeps to its own, and both share the entities that mean the same to them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import SinkError
from engine.sinks.feast import Difference, FeatureRepo, OfflineView, Service
from engine.sinks.feast.objects import FeastObject, registered
from engine.sinks.feast.scan import defined_in

TYPES = (("score", "Float64"), ("tasks", "Int64"))


@pytest.fixture(autouse=True)
def _feast_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Pair:
    """Pipelines ``a`` and ``b``, each with a view of users and a service of its own; ``b`` with one of shops too."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "repo"
        self.repos = {name: FeatureRepo(self.folder, "shop", name) for name in "ab"}
        self.views = {name: [self.view(f"users_{name}", "user", "user_id")] for name in "ab"}
        self.views["b"].append(self.view("shops", "shop", "shop_id"))
        self.services = {name: [Service(f"model_{name}", ((f"users_{name}", None),))] for name in "ab"}

    def view(self, name: str, entity: str, key: str) -> OfflineView:
        return OfflineView(name, entity, key, "String", TYPES, self.folder.parent / "features" / name)

    def apply(self, name: str) -> list[tuple[str, str, str]]:
        return _told(self.repos[name].apply(self.views[name], self.services[name]))

    def diff(self, name: str) -> list[tuple[str, str, str]]:
        return _told(self.repos[name].diff(self.views[name], self.services[name]))

    def is_applied(self, name: str) -> bool:
        return self.repos[name].is_applied(self.views[name], self.services[name])

    def there(self) -> dict[tuple[str, str], FeastObject]:
        from feast import FeatureStore

        return {(o.kind, o.name): o for o in registered(FeatureStore(repo_path=str(self.folder)))}

    def of(self, pipeline: str) -> dict[tuple[str, str], FeastObject]:
        return {place: found for place, found in self.there().items() if found.pipeline == pipeline}


def _told(found: list[Difference]) -> list[tuple[str, str, str]]:
    return [(d.what, d.kind, d.name) for d in found if d.what != "foreign"]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_each_keeps_to_its_own_in_either_order(pair: Pair, order: str) -> None:
    first, second = order
    pair.apply(first)
    its, file = pair.of(first), pair.repos[first].definitions.read_text()
    added = pair.apply(second)
    assert ("added", "view", f"users_{second}") in added
    assert ("added", "entity", "user") not in added, "it is shared"
    assert pair.of(first) == its
    assert (pair.repos[first].definitions.name, pair.repos[first].definitions.read_text()) == ("definitions.py", file)
    assert pair.repos[second].definitions.name == f"definitions_{second}.py"
    assert [(pair.diff(name), pair.apply(name)) for name in order] == [([], [])] * 2
    assert all(pair.is_applied(name) for name in order), "neither makes the other register again"
    assert {name for kind, name in pair.there() if kind == "entity"} == {"user", "shop"}
    mine = pair.repos[first].diff(pair.views[first], pair.services[first])
    assert {d.owner for d in mine if d.what == "foreign"} == {second}


def test_what_one_drops_the_other_keeps(pair: Pair) -> None:
    pair.apply("a")
    pair.apply("b")
    of_b = pair.of("b")
    pair.views["a"], pair.services["a"] = [], []
    assert pair.apply("a") == [
        ("removed", "source", "users_a_source"),
        ("removed", "view", "users_a"),
        ("removed", "service", "model_a"),
    ]
    assert pair.of("b") == of_b
    assert ("entity", "user") in pair.there(), "the other has views of it"
    assert pair.apply("b") == []
    pair.views["b"], pair.services["b"] = pair.views["b"][1:], []
    assert ("removed", "entity", "user") in pair.apply("b"), "nobody has, any more"
    assert {name for kind, name in pair.there() if kind == "entity"} == {"shop"}


@pytest.mark.parametrize("by", ["file", "registry"])
@pytest.mark.parametrize("kind", ["view", "service", "entity"])
def test_a_name_that_the_other_has_is_refused(pair: Pair, kind: str, by: str) -> None:
    pair.apply("a")
    if by == "registry":
        pair.repos["a"].definitions.unlink()
    if kind == "view":
        pair.views["b"][0] = dataclasses.replace(pair.views["b"][0], name="users_a")
        pair.services["b"] = []
    elif kind == "service":
        pair.services["b"] = [dataclasses.replace(pair.services["b"][0], name="model_a")]
    else:
        pair.views["b"][0] = dataclasses.replace(pair.views["b"][0], key="customer")
    before = pair.there()
    with pytest.raises(SinkError) as caught:
        pair.apply("b")
    assert caught.value.code == "feast.clash"
    told = {
        "view": "the pipeline a's",
        "service": "the pipeline a's",
        "entity": "it has join_key user_id; declared here is join_key customer, value_type STRING",
    }
    assert told[kind] in caught.value.message
    assert pair.there() == before
    assert not (pair.folder / "definitions_b.py").exists()


HAND = """
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="by hand", owner="ann")
source = FileSource(name="hand_source", path="/data/hand.parquet", file_format=ParquetFormat(), timestamp_field="ts")
hand = FeatureView(name="hand", entities=[user], source=source, schema=[Field(name="amount", dtype=Float64)])
"""


def test_an_entity_by_hand_is_shared_and_stays_as_it_is_and_feast_apply_takes_all_files(pair: Pair) -> None:
    pair.folder.mkdir()
    hand = pair.folder / "hand.py"
    hand.write_text(HAND)
    pair.apply("a")  # a file tells of the entity
    pair.apply("b")
    of = {name: pair.of(name) for name in "ab"}
    feast = [str(Path(sys.executable).with_name("feast")), "-c", str(pair.folder), "apply", "--skip-source-validation"]
    subprocess.run(feast, check=True, capture_output=True, timeout=120)
    assert {name: pair.of(name) for name in "ab"} == of
    assert [pair.diff(name) for name in "ab"] == [[], []]
    hand.rename(pair.folder / "hand.txt")  # now the registry alone does
    pair.views["a"] = [dataclasses.replace(pair.views["a"][0], ttl=60)]
    assert pair.apply("a") == [("changed", "view", "users_a")]
    assert pair.is_applied("a")
    [made] = [d for d in defined_in(pair.repos["a"].definitions) if d.kind == "entity"]
    assert dict(made.tags) == {}
    from feast import FeatureStore

    found: Any = FeatureStore(repo_path=str(pair.folder)).get_entity("user")
    assert (found.description, found.owner, dict(found.tags)) == ("by hand", "ann", {})
    pair.views["a"] = [dataclasses.replace(pair.views["a"][0], key="customer")]
    with pytest.raises(SinkError, match="differs: it has join_key user_id"):
        pair.apply("a")


def test_one_that_publishes_to_a_store_keeps_the_offline_store_that_reads_both(pair: Pair) -> None:
    local = pair.views["a"]
    pair.views["a"] = [dataclasses.replace(local[0], url="s3://bucket/users_a")]
    pair.repos["a"].write(pair.views["a"])
    pair.repos["b"].write(pair.views["b"])
    configuration = (pair.folder / "feature_store.yaml").read_text()
    assert "offline_store:\n  type: file" in configuration
    assert json.dumps("shop") in configuration

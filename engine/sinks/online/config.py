"""Which online store a feature repo has: its own ``feature_store.yaml`` says, read as Feast reads it, without Feast."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from engine.document import read_foreign
from engine.errors import SinkError, nearest

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile("pass|secret|token|credential|key$|key_id|user|connection|dsn|ur[il]", re.IGNORECASE)
# The options under which our own loaders store what Feast would; with others, Feast's does.
_SQLITE = {"type", "path"}
_REDIS = {"type", "redis_type", "client", "connection_string", "key_ttl_seconds", "full_scan_for_deletion"}


@dataclass(frozen=True, repr=False)
class StoreConfig:
    """The online store of a feature repo; its options may hold a password.

    Attributes:
        folder: of the repo.
        options: of the store, by Feast's names.
        key_version: ``entity_key_serialization_version``.
        own: whether our own loader is for it.
        registry: where definitions are registered, by Feast's names.
    """

    folder: Path
    project: str
    type: str
    options: Mapping[str, Any]
    key_version: int = 3
    own: bool = True
    registry: Mapping[str, Any] = field(default_factory=dict)

    @property
    def registry_file(self) -> Path | None:
        """The registry, if it is a file on this machine."""
        path = str(self.registry.get("path", ""))
        if self.registry.get("registry_type", "file") != "file" or "://" in path or not path:
            return None
        return self.folder / path

    @property
    def identity(self) -> str:
        """A fingerprint of where values go and under which keys; whoever may log in, and how, does not count."""
        options = {k: v for k, v in self.options.items() if k in ("path", "redis_type")}
        hosts, parameters = self.connection
        place = [self.type, self.project, self.key_version, options, hosts, parameters.get("db", 0)]
        return hashlib.sha256(json.dumps(place, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def secrets(self) -> set[str]:
        """What must not be shown of the options: all that could be one."""
        parts = [f"{value}" for name, value in self.options.items() if _SECRET.search(name)]
        for name, value in self.registry.items():
            if "://" in str(value):  # an address, with who may log in
                user, _, word = urlsplit(str(value)).netloc.rpartition("@")[0].partition(":")
                parts += [f"{user}:{word}", word, unquote(word)] if word else []
            elif _SECRET.search(name):
                parts.append(f"{value}")
        _, parameters = self.connection
        return {*filter(None, parts), *(str(value) for name, value in parameters.items() if _SECRET.search(name))}

    @property
    def path(self) -> Path:
        """The file of a SQLite store."""
        return self.folder / str(self.options.get("path", "data/online.db"))

    @property
    def connection(self) -> tuple[list[str], dict[str, Any]]:
        """The hosts and the parameters of a Redis store: ``host:port,host:port,name=value``, values as JSON or text."""
        hosts, parameters = [], {}
        for part in str(self.options.get("connection_string", "localhost:6379")).split(","):
            name, is_parameter, value = part.partition("=")
            if not is_parameter:
                hosts.append(part)
                continue
            try:
                parameters[name] = json.loads(value)
            except ValueError:
                parameters[name] = value
        return hosts, parameters


def read_config(folder: Path) -> StoreConfig:
    """The online store of the feature repo in ``folder``.

    Raises:
        SinkError: there is no ``feature_store.yaml``, it cannot be read, names an unset variable or no store.
    """
    path = folder / "feature_store.yaml"

    def wrong(message: str, fix: str) -> SinkError:
        return SinkError(message, code="feast.configuration", where=str(path), fix=fix)

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise wrong("there is no feature repo", "run the pipeline first, or correct feast.repo") from None
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(f"the file cannot be read: {error}", "make it a readable UTF-8 file") from None
    raw = read_foreign(text, str(path))
    for part in ("online_store", "registry", "offline_store"):
        stated = raw.get(part) if isinstance(raw, dict) else None
        for name in _VARIABLE.findall(json.dumps(stated, default=str)):
            if name not in os.environ:  # Feast would take the text as it stands
                raise wrong(f"{part} names the environment variable {name}, which is not set", f"export {name}=…")
    found = read_foreign(os.path.expandvars(text), str(path))
    if not isinstance(found, dict) or not isinstance(found.get("project"), str):
        raise wrong("the file names no project", "write project: NAME")
    if "online_store" not in found and (near := nearest("online_store", map(str, found))):
        raise wrong(f"unknown key {near!r}", "did you mean 'online_store'?")  # Feast would take its default in silence
    store = found.get("online_store", "sqlite")
    options = store if isinstance(store, dict) else {"type": store}
    kind = options.get("type", "sqlite")
    if not isinstance(kind, str) or kind == "null":
        raise wrong("the repo has no online store", "write online_store: {type: sqlite}, or another type")
    registry = found.get("registry")
    versioned = isinstance(registry, dict) and bool(registry.get("enable_online_feature_view_versioning"))
    known = {"sqlite": _SQLITE, "redis": _REDIS}.get(kind, set())
    own = not versioned and set(options) <= known and options.get("redis_type") != "redis_sentinel"
    version = found.get("entity_key_serialization_version", 3)
    where = registry if isinstance(registry, dict) else {"path": registry or ""}
    return StoreConfig(folder, found["project"], kind, options, int(version), own, where)

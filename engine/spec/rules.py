"""Mistakes that several parts of a pipeline can make, in the same words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from engine.errors import Problem, did_you_mean

Place = tuple[str | int, ...]
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")


def unknown(path: Place, kind: str, name: str, known: Iterable[str], *, code: str = "config.unknown_name") -> Problem:
    """A name that stands for nothing."""
    names = list(known)
    return Problem(
        code,
        f"unknown {kind} {name!r}",
        path,
        allowed=", ".join(names) or "none is declared",
        fix=did_you_mean(name, names, "use one of the names above"),
    )


def renamed(path: Place, mapping: Mapping[str, str], used: Sequence[tuple[Place, str]]) -> Iterator[Problem]:
    """Columns that are named as they were before column_mapping renamed them.

    Args:
        used: each column with its place below ``path``.
    """
    new_names = set(mapping.values())
    for inner, column in used:
        if column in mapping and column not in new_names:
            yield Problem(
                "config.renamed_column",
                f"{column!r} is renamed by column_mapping before this applies",
                (*path, *inner),
                allowed="names as they are after column_mapping",
                fix=f"write {mapping[column]!r}",
            )


def wrong_host(url: str) -> str | None:
    """What is wrong with the host or the port of a URL, without repeating it; None where nothing is."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the host or the port is not written as it must be (a port is a number from 1 to 65535)"
    if not host:
        return "the host is missing"
    if port == 0:
        return "the port is 0; a port is a number from 1 to 65535"
    labels = host.split(".")
    named = all(0 < len(label) <= 63 and _LABEL.fullmatch(label) for label in labels)
    return None if named or ":" in host else "the host is no name of letters, digits, dots and hyphens, nor an address"

"""Mistakes that several parts of a pipeline can make, in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.errors import Problem, nearest

Place = tuple[str | int, ...]


def unknown(path: Place, kind: str, name: str, known: Iterable[str], *, code: str = "config.unknown_name") -> Problem:
    """A name that stands for nothing."""
    names = list(known)
    near = nearest(name, names)
    return Problem(
        code,
        f"unknown {kind} {name!r}",
        path,
        allowed=", ".join(names) or "none is declared",
        fix=f"did you mean {near!r}?" if near else "use one of the names above",
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

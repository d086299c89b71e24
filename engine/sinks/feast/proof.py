"""The proof that the online store holds what was published: rows are read back through Feast and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import polars as pl

from engine.errors import SinkError
from engine.sinks.feast.repo import FeatureRepo
from engine.sinks.feast.view import OfflineView
from engine.sinks.online.values import as_stored

_AT_ONCE = 500  # keys that are asked for


def prove(repo: FeatureRepo, view: OfflineView, expected: Iterator[pl.DataFrame]) -> int:
    """Reads rows back through Feast and compares them; gives how many there were.

    Raises:
        SinkError: values differ; features, counts and an example are named.
    """
    count = 0
    wrong: dict[str, tuple[int, str]] = {}
    for batch in expected:
        for rows in batch.iter_slices(_AT_ONCE):
            keys = rows.select(view.key_names).to_dicts() if view.more_keys else rows[view.key].to_list()
            found, since = repo.online_since(view.name, keys)
            moments = rows["event_timestamp"].dt.epoch("s").to_list()
            count += len(keys)
            for name, _ in view.features:
                values = as_stored(rows[name]).to_list()
                for key, want, have, moment, then in zip(keys, values, found[name], moments, since[name], strict=True):
                    if then <= moment and not _equal(want, have):  # what came later from elsewhere is not ours
                        example = f"{', '.join(view.key_names)} {key!r}: online {have!r}, published {want!r}"
                        times, first = wrong.get(name, (0, example))
                        wrong[name] = (times + 1, first)
    if wrong:
        listed = "; ".join(f"{name} ({times:,}, such as {example})" for name, (times, example) in wrong.items())
        raise SinkError(
            f"of {count:,} entities compared, the online store gives other values than the newest published row in "
            f"{listed}",
            code="online.differs",
            where=view.name,
            fix="load everything: maestro materialize PIPELINE --full",
        )
    return count


def _equal(want: Any, have: Any) -> bool:
    if not isinstance(want, list) or not isinstance(have, list):
        return bool(want == have)
    return len(want) == len(have) and all(map(_same_item, want, have))


def _same_item(want: Any, have: Any) -> bool:
    """Within a list, Feast has NaN, and an empty text, empty bytes, false or NaN in place of null."""
    if isinstance(have, float) and math.isnan(have):
        return want is None or math.isnan(want)
    if isinstance(want, datetime) and isinstance(have, datetime):
        return int(want.timestamp()) == int(have.timestamp())  # as Feast cuts what is in a list
    return bool(want == have) or (want is None and have in ("", b"", False))

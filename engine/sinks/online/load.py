"""Loading: the newest rows of published files into an online store, batch by batch, each of them durable."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from engine.sinks.feast import OfflineView
from engine.sinks.online.newest import keys_of, newest
from engine.sinks.online.store import Store
from engine.steps import reached
from engine.stopwatch import waiting

_T = TypeVar("_T")


def load(
    store: Store,
    view: OfflineView,
    paths: Sequence[Path],
    *,
    memory_limit: str,
    spill: Path,
    after: Any = None,
    loaded: Callable[[Any, int], object] = lambda *_: None,
) -> int:
    """Stores the newest row of each entity in these files; gives their number.

    Args:
        after: the key to go on behind.
        loaded: hears of each batch, once it is stored, its last key (a compound one as a list) and its number of rows.

    Raises:
        SinkError: a file cannot be read, or the store not written; all up to the last batch is stored.
    """
    count = 0
    batches = newest(view, paths, memory_limit=memory_limit, spill=spill, after=after)
    prepared = ((keys_of(view, rows[-1:])[0], rows.height, store.prepare(view, rows)) for rows in batches)
    for last, height, batch in _ahead(prepared):
        with waiting("online store"):
            store.write(batch)
        count += height
        loaded(last, height)
        reached("rows.loaded")
    return count


def _ahead(items: Generator[_T, None, None]) -> Iterator[_T]:
    """The items, each made in a thread while whoever asked for them works on the one before it."""
    with closing(items), ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := _result(coming)) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _result(coming: Future[_T | None]) -> _T | None:
    with waiting("encoder"):
        return coming.result()

"""Mistakes in how a REST source is declared, each with its place and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from engine import Pipeline
from engine.errors import ConfigError

OAUTH = {"type": "oauth2", "token_url": "https://x/token", "client_id": "a-client", "client_secret": "hunter2secret"}


def declared(**keys: Any) -> Pipeline:
    return Pipeline(name="p", sources={"s": {"type": "api", "url": "https://x/y", **keys}})


@pytest.mark.parametrize(
    ("keys", "where", "words"),
    [
        ({"pagination": {"style": "cursor"}}, "pagination", "style cursor needs next_key"),
        ({"pagination": {"style": "next_url"}}, "pagination", "style next_url needs next_key"),
        ({"pagination": {"style": "link", "next_key": "a"}}, "pagination.next_key", "no use with style link"),
        ({"pagination": {"style": "link", "param": "a"}}, "pagination.param", "no use with style link"),
        ({"pagination": {"style": "none", "in_flight": 2}}, "pagination.in_flight", "no use with style none"),
        ({"pagination": {"style": "offset", "start": 1}}, "pagination.start", "no use with style offset"),
        ({"pagination": {"style": "pages"}}, "pagination.style", "'page'"),
        ({"pagination": {"in_flight": 0}}, "pagination.in_flight", "1"),
        ({"pagination": {"style": "offset"}, "params": {"offset": 5}}, "params.offset", "also|set here"),
        ({"pagination": {"style": "offset", "size_param": "offset"}}, "pagination.size_param", "both 'offset'"),
        ({"cursor": "at"}, "cursor", "needs since_param"),
        ({"since_param": "since"}, "since_param", "no use without a cursor"),
        ({"cursor": "at", "since_param": "since", "params": {"since": "x"}}, "params.since", "set here"),
        ({"lateness": "1h"}, "lateness", "no use without a cursor"),
        ({"mode": "append"}, "mode", "needs a cursor"),
        ({"mode": "merge"}, "mode", "key of a row"),
        ({"tombstone": "gone"}, "tombstone", "no use in mode full"),
        ({"deletes": "find"}, "deletes", "deletes"),
        ({"auth": {"type": "bearer"}}, "auth", "token"),
        ({"auth": {"type": "digest"}}, "auth", "digest"),
        ({"auth": OAUTH | {"token_url": "https://x:0/"}}, "auth.token_url", "port"),
        (
            {"auth": {"type": "bearer", "token": "hunter2secret"}, "headers": {"authorization": "hunter2secret"}},
            "auth",
            "given twice",
        ),
        ({"nested": "text"}, "nested", "flatten"),
        ({"max_body": "lots"}, "max_body", "MB"),
        ({"budget": {"requests": 0}}, "budget.requests", "1"),
    ],
)
def test_each_mistake(keys: dict[str, Any], where: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(**keys)
    (problem,) = caught.value.problems
    assert ".".join(map(str, problem.path)).startswith(f"sources.s.{where}".rpartition(".")[0])
    assert any(word in str(caught.value) for word in words.split("|"))
    assert "hunter2" not in str(caught.value)
    assert problem.fix


def test_what_is_fine() -> None:
    whole = {
        "auth": OAUTH,
        "pagination": {"style": "cursor", "next_key": "meta.next", "param": "after", "total_key": "meta.total"},
        "cursor": "at",
        "since_param": "since",
        "lateness": "1h",
        "deduplicate": {"keys": ["id"]},
        "tombstone": "gone",
        "budget": {"per_second": 0.5},
    }
    spec: Any = declared(**whole).sources["s"]
    assert (spec.effective_mode, spec.pagination.effective_param, spec.pagination.effective_size_param) == (
        "merge",
        "after",
        None,
    )
    assert "hunter2" not in repr(spec)

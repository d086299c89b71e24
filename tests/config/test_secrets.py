"""Invariant 7 on what is only declared: whatever the secret, no form of a pipeline, plan or mistake shows it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from engine import Pipeline, compile_plan
from engine.errors import ConfigError
from engine.spec import location_of, secrets_of
from engine.types import redact

# Letters that no key, message or default of the engine holds, so that finding them is finding the secret.
secrets = st.text(alphabet="QXZÿ@:/%?#9 ", min_size=4, max_size=20).map("QX{}Z".format)
header = st.text(alphabet="QXZ@:/%?#9 ", min_size=4, max_size=20).map("QX{}Z".format)  # ASCII


def sources(password: str, token: str, key: str) -> dict[str, Any]:
    return {
        "d": {
            "type": "database",
            "connection_string": f"postgresql://app:{quote(password, safe='')}@h/d",
            "table": "t",
        },
        "a": {
            "type": "api",
            "url": f"https://h/x?token={quote(token, safe='')}",
            "headers": {"Authorization": f"Bearer {token}"},
            "params": {"k": key},
        },
        "s": {"type": "s3", "bucket": "lake", "key": "x.csv", "access_key": key, "secret_key": password},
    }


@given(secrets, header, secrets)
def test_no_form_of_a_pipeline_shows_a_secret(password: str, token: str, key: str) -> None:
    pipeline = Pipeline(name="p", sources=sources(password, token, key))
    plan = compile_plan(pipeline, "2025-10-04")
    shown = f"{pipeline!r} {pipeline} {plan!r} {json.dumps(plan.to_dict(), ensure_ascii=False)}"
    shown += " ".join(location_of(s, pipeline.base) for s in pipeline.sources.values())
    for secret in (password, quote(password, safe=""), token, quote(token, safe=""), key):
        assert secret not in shown


@given(secrets, header, secrets)
def test_a_mistake_beside_a_secret_does_not_show_it(password: str, token: str, key: str) -> None:
    wrong = sources(password, token, key)
    wrong["d"]["connection_string"] = f"postgres-ql://app:{password}@h/d"
    wrong["a"] |= {"url": f"ftp://h/?token={token}", "headers": {"Authorization": f"{token}\n"}}
    wrong["s"] |= {"endpoint_url": f"http://{key}@h"}
    try:
        Pipeline(name="p", sources=wrong)
    except ConfigError as error:
        shown = f"{error} {error!r} {error.to_dict()}"
    else:
        raise AssertionError("the mistakes were not seen")
    for secret in (password, token, key):
        assert secret not in shown


@given(secrets, header, secrets)
def test_what_others_say_is_redacted(password: str, token: str, key: str) -> None:
    for source in Pipeline(name="p", sources=sources(password, token, key)).sources.values():
        for secret in secrets_of(source):
            assert secret not in redact(f"driver said: {secret}!", secrets_of(source))

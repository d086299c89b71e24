"""The keys that requests to S3 are signed with: declared, of the environment, or of botocore's other places."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.spec import S3Access

_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class Keys:
    """What signs a request; ``token`` of a role."""

    access: str
    secret: str
    token: str | None = None


def keys_of(access: S3Access) -> Callable[[], Keys | None]:
    """What gives the keys to sign with; None: there are none, and requests are not signed."""
    if access.access_key and access.secret_key:
        declared = Keys(access.access_key.get_secret_value(), access.secret_key.get_secret_value())
        return lambda: declared
    name, secret = environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY")
    if name and secret:
        there = Keys(name, secret, environment("AWS_SESSION_TOKEN"))
        return lambda: there
    return _Elsewhere()


class _Elsewhere:
    """Keys of a profile, a role, the machine: what botocore finds, and renews; none where it is not installed."""

    def __init__(self) -> None:
        self._found: Any = None
        self._looked = False
        self._lock = threading.Lock()

    def __call__(self) -> Keys | None:
        with self._lock:
            if not self._looked:
                self._found, self._looked = _botocore(), True
        if self._found is None:
            return None
        known = self._found.get_frozen_credentials()
        return Keys(known.access_key, known.secret_key, known.token)


def _botocore() -> Any:
    try:
        import botocore.session
    except ImportError:
        return None
    if logging.getLogger("botocore").level == logging.NOTSET:  # at DEBUG it logs keys
        logging.getLogger("botocore").setLevel(logging.INFO)
    return botocore.session.Session().get_credentials()


def environment(*names: str) -> str | None:
    """The first of some variables that is set."""
    return next((value for name in names if (value := os.environ.get(name))), None)


def region_of(access: S3Access) -> str:
    """As declared, or of the environment."""
    return access.region or environment("AWS_REGION", "AWS_DEFAULT_REGION") or _DEFAULT_REGION

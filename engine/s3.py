"""The one way into S3 and stores that speak its protocol."""

from __future__ import annotations

import logging
from typing import Any

from engine.errors import MissingExtra
from engine.spec import S3Access

DEFAULT_REGION = "us-east-1"
_CONNECT_SECONDS = 10


def open_client(access: S3Access, what: str, *, seconds: float, attempts: int) -> Any:
    """A file system of s3fs, of the caller alone; nothing has been asked of the store yet.

    Args:
        what: it is for, such as ``reading S3``.
        seconds: for one request.
        attempts: how often botocore makes one; s3fs makes none of its own.

    Raises:
        MissingExtra: s3fs is not installed.
    """
    try:
        import s3fs
    except ImportError:
        raise MissingExtra("s3fs", "s3", what) from None
    for noisy in ("botocore", "aiobotocore"):  # at DEBUG they log request headers, access keys among them
        if logging.getLogger(noisy).level == logging.NOTSET:
            logging.getLogger(noisy).setLevel(logging.INFO)
    files = s3fs.S3FileSystem(
        key=access.access_key.get_secret_value() if access.access_key else None,
        secret=access.secret_key.get_secret_value() if access.secret_key else None,
        endpoint_url=access.endpoint_url,
        client_kwargs={"region_name": access.region or DEFAULT_REGION},
        config_kwargs={
            "connect_timeout": min(_CONNECT_SECONDS, seconds),
            "read_timeout": seconds,
            "retries": {"max_attempts": attempts, "mode": "standard"},
        },
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    files.retries = 1
    return files


def is_of_the_store(error: Exception) -> bool:
    """Whether the store, or the way to it, failed, and not the program."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package in ("botocore", "aiobotocore", "aiohttp")

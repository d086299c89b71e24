"""A folder in an object store: files are put there whole, fetched whole, listed and removed."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from engine.errors import MissingExtra, SinkError
from engine.s3 import DEFAULT_REGION, Bucket
from engine.spec import StoreSpec, secrets_of
from engine.types import redact

ATTEMPTS = 5
SECONDS = 60


class Objects:
    """What lies below ``s3://bucket/prefix``, by names that are relative to that.

    An object is replaced by one PUT (or the completion of one upload in parts), so that it is seen whole or not at all;
    putting it again changes nothing, which is how a reply that was lost is mended.
    """

    def __init__(self, spec: StoreSpec, setting: str) -> None:
        self._spec, self._setting = spec, setting
        self.url = spec.path.rstrip("/")
        self._bucket, _, self._root = self.url.removeprefix("s3://").partition("/")

    @property
    def secrets(self) -> frozenset[str]:
        """What must not be told of it."""
        return secrets_of(self._spec)

    @property
    def endpoint(self) -> str | None:
        """Of a store that is not Amazon's."""
        return self._spec.endpoint_url

    @property
    def for_polars(self) -> dict[str, str]:
        """What Polars needs to read from it; secrets among it."""
        spec = self._spec
        keys = {"aws_access_key_id": spec.access_key, "aws_secret_access_key": spec.secret_key}
        found = {name: secret.get_secret_value() for name, secret in keys.items() if secret}
        if spec.endpoint_url:
            found |= {"aws_endpoint_url": spec.endpoint_url, "aws_allow_http": "true"}
        return found | {"aws_region": spec.region or DEFAULT_REGION, "max_retries": str(ATTEMPTS)}

    def __str__(self) -> str:
        return self.url

    def put(self, path: Path, name: str) -> None:
        """Makes a file an object, over an earlier one of that name.

        Raises:
            SinkError: the store refuses, or cannot be reached.
        """
        with self._worded():
            self._store.put(path, self._at(name))
            there = self._store.info(self._at(name))
            tag = there["ETag"] or ""
            if there["size"] != path.stat().st_size or ("-" not in tag and tag != _md5(path)):
                raise SinkError(
                    f"{self.url}/{name} is not what was written: {there['size']} bytes",
                    code=f"{self._setting}.damaged",
                    where=f"{self._setting}.path",
                    fix="run again; if it stays so, look for who else writes there",
                )

    def get(self, name: str, path: Path) -> bool:
        """Fetches an object to a file, which appears whole; False: there is none.

        Raises:
            SinkError: it cannot be read.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with self._worded():
                try:
                    self._store.fetch(self._at(name), copy)
                except FileNotFoundError:
                    return False
            with copy.open("rb") as handle:
                os.fsync(handle.fileno())
            copy.replace(path)
        finally:
            copy.unlink(missing_ok=True)
        return True

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """An object to read parts of.

        Raises:
            SinkError: it cannot be read.
        """
        with self._worded(), self._store.open(self._at(name)) as handle:
            yield handle

    def names(self, under: str) -> set[str]:
        """The names that begin with ``under/``.

        Raises:
            SinkError: the store cannot be read.
        """
        with self._worded():
            found = self._store.under(self._at(under))
        return {key[len(self._at("")) :] for key in found}

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects; those that are gone are no error.

        Raises:
            SinkError: the store refuses, or cannot be reached.
        """
        if paths := [self._at(name) for name in names]:
            with self._worded():
                self._store.remove(paths)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name

    @cached_property
    def _store(self) -> Bucket:
        what = f"{self._setting} in S3"
        return Bucket(self._spec, self._bucket, what, seconds=SECONDS, retries=ATTEMPTS - 1)

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except (SinkError, MissingExtra):
            raise
        except Exception as error:
            if not isinstance(error, OSError | ValueError):
                raise
            text, fix = " ".join(str(error).split())[:300], "check endpoint_url and region, and that the store is up"
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" in text:
                text, fix = "there is no such bucket", "create it, or correct path"
            elif isinstance(error, PermissionError):
                text, fix = "access is refused", "check access_key, secret_key, and what they may do there"
            raise SinkError(
                f"{self.url} cannot be used: {redact(text, self.secrets) or type(error).__name__}",
                code=f"{self._setting}.unwritable",
                where=f"{self._setting}.path",
                fix=f"{fix}; then run again",
            ) from None


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

"""Folders that may lie in an object store: what is published, what has landed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, SecretStr

from engine.errors import Problem
from engine.spec.rules import Place, wrong_host
from engine.spec.scalars import Spec, Text

_S3 = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{1,254}(/[^\s*?\[\]]+)?/?")


class S3Access(Spec):
    """How to get into S3, MinIO or another store that speaks its protocol."""

    endpoint_url: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^/\s@]+/?$",
            json_schema_extra={"writeOnly": True},
            description="http:// or https:// and a host, of a store that is not Amazon's",
        ),
    ] = None
    access_key: Annotated[SecretStr | None, Field(description="default: what the environment offers")] = None
    secret_key: SecretStr | None = None
    region: Text | None = None

    def access_problems(self, path: Place) -> Iterator[Problem]:
        """Mistakes in these keys that no single one shows."""
        if self.endpoint_url and (wrong := wrong_host(self.endpoint_url)):
            yield Problem(
                "config.url", wrong, (*path, "endpoint_url"), fix="write it as https://host or https://host:port"
            )
        if (self.access_key is None) != (self.secret_key is None):
            missing = "secret_key" if self.secret_key is None else "access_key"
            message = f"{missing} is missing: the two keys go together"
            yield Problem("config.missing_key", message, path, fix=f"add {missing}")


class StoreSpec(S3Access):
    """A place, and how to get there if it is in an object store."""

    path: Text

    @property
    def is_remote(self) -> bool:
        """Whether it is in an object store."""
        return self.path.startswith("s3://")

    def problems(self, path: Place) -> Iterator[Problem]:
        """Mistakes that no single key shows."""
        if "://" in self.path and not _S3.fullmatch(self.path):
            yield Problem(
                "config.not_local",
                f"{self.path!r} is neither a local folder nor a place in S3",
                (*path, "path"),
                allowed="a local path, or s3://bucket/folder",
                fix="write a path such as ./features or s3://lake/features",
            )
        for key in S3Access.model_fields if not self.is_remote else ():
            if getattr(self, key) is not None:
                fix = f"remove {key}, or write path: s3://…"
                yield Problem("config.not_remote", f"{key} has no use for a local folder", (*path, key), fix=fix)
        yield from self.access_problems(path)


class OutputSpec(StoreSpec):
    """Where features are published: <path>/<view>/event_date=YYYY-MM-DD/part-<as-of>.parquet."""

    path: Annotated[Text, Field(description="a local folder, or s3://bucket/folder")] = "./features"


class LandingSpec(StoreSpec):
    """Where landed tables are kept; workdir then holds copies of those that are in use."""

    path: Annotated[str, Field(pattern=r"^s3://", description="s3://bucket/folder")]

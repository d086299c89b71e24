"""Sources as they are declared: database, file, s3, api."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from engine.errors import Problem, nearest
from engine.spec.rules import Place, renamed
from engine.spec.scalars import Column, Columns, Finite, Spec, Text

FORMATS = ("parquet", "csv", "ndjson", "json")
SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
}
SCHEMES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb")


class Deduplicate(Spec):
    """Keep the last row per key. A row with a null in its key is never a duplicate."""

    keys: Annotated[Columns, Field(min_length=1, description="columns that together name a row")]
    order_by: Annotated[
        Column | None,
        Field(description="the row with the largest value stays (nulls lose); ties: the later row read"),
    ] = None


class SourceSpec(Spec):
    """What every kind of source understands. All columns are named as they are after ``column_mapping``."""

    column_mapping: Annotated[dict[Column, Column], Field(description="old name: new name; applied first")] = {}
    required_columns: Annotated[Columns, Field(description="columns that must exist")] = ()
    critical_columns: Annotated[
        Columns,
        Field(description="rows with a null in one of these do not go on; they are counted as failed"),
    ] = ()
    deduplicate: Deduplicate | None = None
    batch_size: Annotated[int, Field(ge=1, le=10_000_000, description="most rows in one batch handed on")] = 50_000
    max_retries: Annotated[int, Field(ge=0, le=100, description="further attempts after a transient failure")] = 3
    timeout_seconds: Annotated[Finite, Field(gt=0, description="for one request or one database read")] = 300.0

    def problems(self, path: Place) -> Iterator[Problem]:
        """Mistakes that no single key shows."""
        targets: dict[str, str] = {}
        for old, new in self.column_mapping.items():
            if new in targets:
                yield Problem(
                    "config.mapping_collision",
                    f"two columns are renamed to {new!r}: {targets[new]!r} and {old!r}",
                    (*path, "column_mapping", old),
                    fix="give each its own new name",
                )
            targets[new] = old
        used: list[tuple[Place, str]] = [(("required_columns", i), c) for i, c in enumerate(self.required_columns)]
        used += [(("critical_columns", i), c) for i, c in enumerate(self.critical_columns)]
        if self.deduplicate:
            used += [(("deduplicate", "keys", i), c) for i, c in enumerate(self.deduplicate.keys)]
            if self.deduplicate.order_by:
                used.append((("deduplicate", "order_by"), self.deduplicate.order_by))
        yield from renamed(path, self.column_mapping, used)


class DatabaseSpec(SourceSpec):
    """A table or query of SQLite, PostgreSQL or MySQL."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["table"]}, {"required": ["query"]}]},
    )
    type: Literal["database"]
    connection_string: Annotated[
        SecretStr,
        Field(min_length=1, description="sqlite:///app.db, postgresql://user:password@host/db, mysql://…"),
    ]
    table: Annotated[Text | None, Field(description="a table, or schema.table")] = None
    query: Annotated[Text | None, Field(description="a SELECT statement, instead of a table")] = None

    def problems(self, path: Place) -> Iterator[Problem]:
        yield from super().problems(path)
        scheme, separator, _ = self.connection_string.get_secret_value().partition("://")
        if not separator or scheme not in SCHEMES:
            near = nearest(scheme, SCHEMES) if separator else None
            yield Problem(
                "config.connection_string",
                f"unknown database {scheme!r}"
                if separator
                else "the connection string has no scheme such as sqlite://",
                (*path, "connection_string"),
                allowed="sqlite:///file.db, postgresql://…, mysql://…",
                fix=f"did you mean {near}://?" if near else "begin it with sqlite:///, postgresql:// or mysql://",
            )
        if (self.table is None) == (self.query is None):
            both = self.table is not None
            yield Problem(
                "config.table_or_query",
                "both table and query are given" if both else "neither table nor query is given",
                (*path, "query") if both else path,
                allowed="exactly one of table, query",
                fix="remove one of them" if both else "add table: NAME",
            )


class FileSpec(SourceSpec):
    """Local files: one path or a glob."""

    type: Literal["file"]
    path: Annotated[Text, Field(description="a file or a glob, relative to the pipeline file")]
    format: Annotated[Literal["parquet", "csv", "ndjson", "json"] | None, Field(description="default: by suffix")] = (
        None
    )

    def problems(self, path: Place) -> Iterator[Problem]:
        yield from super().problems(path)
        if "://" in self.path:
            yield Problem(
                "config.not_local",
                "a file source reads local files",
                (*path, "path"),
                allowed="a local path or glob",
                fix="use type: s3 with bucket and key, or type: api with url",
            )
        elif self.format is None and file_format(self.path) is None:
            yield _unknown_format((*path, "path"), self.path)


class S3Spec(SourceSpec):
    """Objects in S3, MinIO or another store that speaks its protocol."""

    type: Literal["s3"]
    bucket: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$", description="the bucket's name, without s3://")
    ]
    key: Annotated[Text, Field(description="an object key or a glob")]
    format: Annotated[Literal["parquet", "csv", "ndjson", "json"] | None, Field(description="default: by suffix")] = (
        None
    )
    endpoint_url: Annotated[
        str | None, Field(pattern=r"^https?://[^/\s@]+/?$", description="of a store that is not Amazon's")
    ] = None
    access_key: Annotated[SecretStr | None, Field(description="default: what the environment offers")] = None
    secret_key: SecretStr | None = None
    region: Text | None = None

    def problems(self, path: Place) -> Iterator[Problem]:
        yield from super().problems(path)
        if self.format is None and file_format(self.key) is None:
            yield _unknown_format((*path, "key"), self.key)
        if (self.access_key is None) != (self.secret_key is None):
            missing = "secret_key" if self.secret_key is None else "access_key"
            message = f"{missing} is missing: the two keys go together"
            yield Problem("config.missing_key", message, path, fix=f"add {missing}")


class Pagination(Spec):
    """How a REST source is cut into pages."""

    style: Annotated[Literal["page", "none"], Field(description="page: by page number; none: one request")] = "page"
    param: Annotated[Text, Field(description="query parameter with the page number")] = "page"
    size_param: Annotated[Text | None, Field(description="query parameter with the page size; null: none")] = "per_page"
    size: Annotated[int, Field(ge=1, le=1_000_000, description="records asked for per page")] = 100
    start: Annotated[int, Field(ge=0, le=1, description="number of the first page")] = 1


class ApiSpec(SourceSpec):
    """A REST resource that answers with JSON."""

    type: Literal["api"]
    url: Annotated[
        str,
        Field(
            pattern=r"^https?://[^\s/?#@]+([/?][^\s#]*)?$",
            repr=False,  # its query may hold a token
            description="begins with http:// or https://; credentials belong in headers, and # is not used",
        ),
    ]
    headers: Annotated[dict[Text, SecretStr], Field(description="sent with every request; never printed")] = {}
    params: Annotated[
        dict[Text, SecretStr | int | Finite | bool],
        Field(description="query parameters; texts are never printed"),
    ] = {}
    data_key: Annotated[
        Text | None, Field(description="where the records are, dotted for nested; null: the body itself")
    ] = "data"
    pagination: Annotated[Pagination, Field(description="default: one request")] = Pagination(style="none")


AnySource = Annotated[DatabaseSpec | FileSpec | ApiSpec | S3Spec, Field(discriminator="type")]


def file_format(location: str) -> str | None:
    """The format that a path's suffix names, None where it names none; ``.gz`` and ``.zst`` are looked through."""
    name = location.rsplit("/", 1)[-1].lower()
    for compression in (".gz", ".zst"):
        name = name.removesuffix(compression)
    return next((form for suffix, form in SUFFIXES.items() if name.endswith(suffix)), None)


def _unknown_format(path: Place, location: str) -> Problem:
    return Problem(
        "config.unknown_format",
        f"the format of {location!r} cannot be told from its suffix",
        path,
        allowed=", ".join(SUFFIXES),
        fix=f"add format: one of {', '.join(FORMATS)}",
    )


def location_of(spec: AnySource, base: Path) -> str:
    """Where a source lies, for people: no user, password or query; a file's path as it will be opened."""
    if isinstance(spec, DatabaseSpec):
        scheme, _, rest = spec.connection_string.get_secret_value().partition("://")
        place = rest.rpartition("@")[2].partition("?")[0]
        return f"{scheme}://{place} {spec.table or '(query)'}"
    if isinstance(spec, FileSpec):
        return str(base / Path(spec.path).expanduser())
    if isinstance(spec, S3Spec):
        return f"s3://{spec.bucket}/{spec.key}"
    parts = urlsplit(spec.url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def secrets_of(spec: BaseModel) -> frozenset[str]:
    """Every secret value in ``spec``, also the parts of one that may turn up alone (a password, a bearer token).

    Values too short to be recognised in a text are left out: three characters, or seven of a query parameter
    (``state: all`` is no secret, and replacing "all" everywhere would make messages unreadable).
    """
    found: set[str] = set()
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        shortest = 8 if name == "params" else 4
        found |= {text for secret in _secret_strings(value) for text in _parts(secret) if len(text) >= shortest}
    if isinstance(spec, ApiSpec):
        found |= {value for _, value in parse_qsl(urlsplit(spec.url).query) if len(value) >= 8}
    return frozenset(found)


def _secret_strings(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secret_strings(item)


def _parts(secret: str) -> Iterator[str]:
    yield secret
    if "://" in secret and "@" in secret:
        userinfo = secret.split("://", 1)[1].rsplit("@", 1)[0]
        password = userinfo.partition(":")[2]
        yield password
        yield unquote(password)
    scheme, _, token = secret.partition(" ")
    if scheme.lower() in ("bearer", "basic", "token", "apikey"):
        yield token

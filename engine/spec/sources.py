"""Sources as they are declared: database, file, s3, api."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from engine.errors import Problem, nearest
from engine.spec.contract import ContractKey
from engine.spec.files import FileKeys
from engine.spec.plugins import Kinds
from engine.spec.rest import AnyAuth, Budget, Dotted, HttpUrl, OAuth2Auth, Pagination
from engine.spec.rules import Place, renamed, wrong_host
from engine.spec.scalars import Column, Columns, DurationText, Finite, Spec, Text
from engine.spec.store import S3Access

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
SCHEMES = ("sqlite", "duckdb", "postgresql", "postgres", "mysql", "mariadb")
URL_SCHEMES = ("http", "https", "gs", "gcs", "abfs", "abfss", "az")  # that files are read from
FILES = ("sqlite", "duckdb")  # databases that are a file
# What follows hosts, their ports, a slash and the database's name: options with an @ in them.
_OPTIONS = re.compile(
    r"(?:^|@)(?:\[[^]]*\]|[^][@?/:])*(?::\d*(?:,[^@?/]*)?)?/[^@?]*(?P<options>\?[\w.-]+=.*)", re.DOTALL
)


class Deduplicate(Spec):
    """Keep the last row per key. A row with a null in its key is never a duplicate."""

    keys: Annotated[Columns, Field(min_length=1, description="columns that together name a row")]
    order_by: Annotated[
        Column | None,
        Field(description="the row with the largest value stays (nulls lose); ties: the later row read"),
    ] = None


class SourceSpec(Spec):
    """What every kind of source understands. All columns are named as they are after ``column_mapping``."""

    type: str
    column_mapping: Annotated[dict[Column, Column], Field(description="old name: new name; applied first")] = {}
    required_columns: Annotated[Columns, Field(description="columns that must exist")] = ()
    critical_columns: Annotated[
        Columns,
        Field(description="rows with a null in one of these do not go on; they are counted as failed"),
    ] = ()
    deduplicate: Deduplicate | None = None
    contract: ContractKey = None
    pii: Annotated[
        Columns,
        Field(
            description="columns about persons: no report shows, and no profile keeps, a value of theirs or what gives "
            "one away"
        ),
    ] = ()
    profile: Annotated[
        bool | None, Field(description="whether each run keeps a profile of the table; default: the pipeline's profile")
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=10_000_000, description="most rows in one batch handed on")] = 50_000
    max_retries: Annotated[int, Field(ge=0, le=100, description="further attempts after a transient failure")] = 3
    timeout_seconds: Annotated[Finite, Field(gt=0, description="for one request or one database read")] = 300.0

    def in_source(self, column: str) -> str:
        """What the source calls a column that is named as it is after ``column_mapping``."""
        return next((old for old, new in self.column_mapping.items() if new == column), column)

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
        used += [(("pii", i), c) for i, c in enumerate(self.pii)]
        if self.deduplicate:
            used += [(("deduplicate", "keys", i), c) for i, c in enumerate(self.deduplicate.keys)]
            if self.deduplicate.order_by:
                used.append((("deduplicate", "order_by"), self.deduplicate.order_by))
        if self.contract:
            yield from self.contract.problems((*path, "contract"))
            used += [(("contract", "columns", column), column) for column in self.contract.columns]
        yield from renamed(path, self.column_mapping, used)


class IncrementalSpec(SourceSpec):
    """What sources understand that can be asked for new rows only."""

    mode: Annotated[
        Literal["full", "append", "merge"] | None,
        Field(
            description="full: each run reads everything; append: new rows are added; merge: new and changed rows "
            "replace those of the same key. Default: full; with cursor: append, or merge where deduplicate is declared"
        ),
    ] = None
    cursor: Annotated[
        Column | None,
        Field(description="a column that grows with each new or changed row; a run reads on from where it has got"),
    ] = None
    lateness: Annotated[
        DurationText | Annotated[int, Field(ge=0)] | None,
        Field(
            description="read again so much before the cursor's last value: a whole number and s, m, h, d or w for "
            "moments, a whole number for numbers"
        ),
    ] = None
    tombstone: Annotated[
        Column | None,
        Field(description="merge: a column that marks a row as deleted, by anything but null, false or 0"),
    ] = None

    @property
    def effective_mode(self) -> Literal["full", "append", "merge"]:
        """``mode``, or its default."""
        if self.mode is not None:
            return self.mode
        if self.cursor is None:
            return "full"
        return "merge" if self.deduplicate else "append"

    def named(self) -> list[tuple[Place, str]]:
        """The columns that only such sources name, each with its key."""
        return [((key,), c) for key in ("cursor", "tombstone") if (c := getattr(self, key)) is not None]

    def problems(self, path: Place) -> Iterator[Problem]:
        """See `SourceSpec.problems`."""
        yield from super().problems(path)
        yield from self._mode_problems(path)
        yield from renamed(path, self.column_mapping, self.named())

    def _mode_problems(self, path: Place) -> Iterator[Problem]:
        mode = self.effective_mode
        if mode == "append" and self.cursor is None:
            message = "mode append needs a cursor: the column that tells which rows are new"
            yield Problem("config.mode", message, (*path, "mode"), fix="add cursor: COLUMN, or use mode: full")
        if mode == "merge" and self.deduplicate is None:
            message = "mode merge needs to know the key of a row"
            yield Problem("config.mode", message, (*path, "mode"), fix="add deduplicate: {keys: [COLUMN]}")
        if mode == "full" and self.cursor is not None:
            message = "a cursor has no use where each run reads everything"
            yield Problem("config.mode", message, (*path, "cursor"), fix="use mode: append or merge, or remove cursor")
        if self.lateness is not None and self.cursor is None:
            message = "lateness has no use without a cursor"
            yield Problem("config.mode", message, (*path, "lateness"), fix="add cursor: COLUMN, or remove lateness")
        for key in ("tombstone", "deletes") if hasattr(self, "deletes") else ("tombstone",):
            if key in self.model_fields_set and getattr(self, key) is not None and mode != "merge":
                message = f"{key} has no use in mode {mode}"
                yield Problem("config.mode", message, (*path, key), fix=f"use mode: merge, or remove {key}")


class DatabaseSpec(IncrementalSpec):
    """A table or query of PostgreSQL, MySQL, SQLite or DuckDB."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["table"]}, {"required": ["query"]}]},
    )
    type: Literal["database"]
    connection_string: Annotated[
        SecretStr,
        Field(
            min_length=1,
            description="sqlite:///app.db, duckdb:///app.duckdb, postgresql://user:password@host/db, mysql://…",
        ),
    ]
    table: Annotated[Text | None, Field(description="a table, or schema.table")] = None
    query: Annotated[Text | None, Field(description="a SELECT statement, instead of a table")] = None
    columns: Annotated[Columns, Field(description="the columns to read; default: all")] = ()
    filter: Annotated[
        Text | None,
        Field(description="an SQL condition, in the database's dialect and names; only rows that meet it are read"),
    ] = None
    deletes: Annotated[
        Literal["find", "ignore"],
        Field(description="merge: whether rows whose key the source no longer has are removed"),
    ] = "find"
    consistent: Annotated[
        bool,
        Field(description="MySQL: read in one query, hence of one moment; refused for tables too large for that"),
    ] = False

    def problems(self, path: Place) -> Iterator[Problem]:
        yield from super().problems(path)
        yield from self._connection_problems(path)
        if (self.table is None) == (self.query is None):
            both = self.table is not None
            yield Problem(
                "config.table_or_query",
                "both table and query are given" if both else "neither table nor query is given",
                (*path, "query" if both else "table"),
                allowed="exactly one of table, query",
                fix="remove one of them" if both else "add table: NAME",
            )
        yield from self._column_problems(path)

    def _connection_problems(self, path: Place) -> Iterator[Problem]:
        connection = self.connection_string.get_secret_value()
        scheme, separator, rest = connection.partition("://")
        where = (*path, "connection_string")
        if not separator or scheme not in SCHEMES:
            near = nearest(scheme, SCHEMES) if separator else None
            yield Problem(
                "config.connection_string",
                f"unknown database {scheme!r}"
                if separator
                else "the connection string has no scheme such as sqlite://",
                where,
                allowed="sqlite:///file.db, duckdb:///file.duckdb, postgresql://…, mysql://…",
                fix=f"did you mean {near}://?" if near else "begin it with sqlite:///, postgresql:// or mysql://",
            )
        elif scheme in FILES and not rest.strip("/"):
            message = "the connection string names no database file"
            fix = f"write {scheme}:///relative/path.db or {scheme}:////absolute/path.db"
            yield Problem("config.connection_string", message, where, fix=fix)
        elif scheme not in FILES and (wrong := wrong_host(connection)):
            fix = f"write {scheme}://user:password@host:port/database; percent-encode special characters"
            yield Problem("config.connection_string", wrong, where, fix=fix)

    def _column_problems(self, path: Place) -> Iterator[Problem]:
        used: list[tuple[Place, str]] = [(("columns", i), c) for i, c in enumerate(self.columns)]
        yield from renamed(path, self.column_mapping, used)
        if not self.columns:
            return
        needed: list[tuple[Place, str]] = [
            ((key, i), c) for key in ("required_columns", "critical_columns") for i, c in enumerate(getattr(self, key))
        ]
        needed += [(("column_mapping", old), new) for old, new in self.column_mapping.items()]
        if self.deduplicate:
            needed += [(("deduplicate", "keys", i), c) for i, c in enumerate(self.deduplicate.keys)]
            if self.deduplicate.order_by:
                needed.append((("deduplicate", "order_by"), self.deduplicate.order_by))
        needed += self.named()
        for place, column in needed:
            if column not in self.columns:
                message = f"{column!r} is not among the columns to read"
                yield Problem(
                    "config.column_not_read",
                    message,
                    (*path, *place),
                    allowed=", ".join(self.columns),
                    fix=f"add {column!r} to columns",
                )


class FileSpec(FileKeys, SourceSpec):
    """Files: local ones, or those behind a URL. One path or a glob."""

    type: Literal["file"]
    path: Annotated[
        Text,
        Field(
            description="a file or a glob, relative to the pipeline file; or https://…, gs://…, abfs://…",
            repr=False,  # a URL's query may hold a token
        ),
    ]
    headers: Annotated[dict[Text, SecretStr], Field(description="http(s): sent with every request; never printed")] = {}
    storage_options: Annotated[
        dict[Text, SecretStr | int | Finite | bool],
        Field(description="gs and abfs: what the fsspec driver takes, such as token or account_key; never printed"),
    ] = {}

    @property
    def scheme(self) -> str | None:
        """Of a URL; None of a local path."""
        return self.path.partition("://")[0].lower() if "://" in self.path else None

    def problems(self, path: Place) -> Iterator[Problem]:
        yield from super().problems(path)
        yield from self.file_problems(path, self.path, "path")
        scheme = self.scheme
        if scheme == "s3":
            yield Problem(
                "config.not_local",
                "objects in S3 have a type of their own",
                (*path, "path"),
                allowed="a local path or glob; https://, gs://, abfs://",
                fix="use type: s3 with bucket and key",
            )
        elif scheme and scheme not in URL_SCHEMES:
            yield Problem(
                "config.not_local",
                f"nothing here reads {scheme}://",
                (*path, "path"),
                allowed=f"a local path or glob; {', '.join(f'{s}://' for s in URL_SCHEMES)}",
                fix="use type: s3 with bucket and key, or type: api with url",
            )
        elif scheme:
            authority = self.path.partition("://")[2].partition("/")[0]
            if "@" in authority and scheme in ("http", "https"):
                message = "the URL names a user"
                yield Problem("config.url", message, (*path, "path"), fix="put credentials in headers")
            elif scheme in ("http", "https") and (wrong := wrong_host(self.path)):
                yield Problem("config.url", wrong, (*path, "path"), fix="write it as https://host/path")
        for key, of in {"headers": ("http", "https"), "storage_options": ("gs", "gcs", "abfs", "abfss", "az")}.items():
            if getattr(self, key) and scheme not in of:
                message = f"{key} has no use for {f'{scheme}://' if scheme else 'local files'}"
                yield Problem("config.storage", message, (*path, key), fix=f"remove {key}")


class S3Spec(S3Access, FileKeys, SourceSpec):
    """Objects in S3, MinIO or another store that speaks its protocol."""

    type: Literal["s3"]
    bucket: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$", description="the bucket's name, without s3://")
    ]
    key: Annotated[Text, Field(description="an object key or a glob")]

    def problems(self, path: Place) -> Iterator[Problem]:
        yield from super().problems(path)
        yield from self.file_problems(path, self.key, "key")
        yield from self.access_problems(path)


class ApiSpec(IncrementalSpec):
    """A REST resource that answers with JSON."""

    type: Literal["api"]
    url: Annotated[
        HttpUrl,
        Field(description="begins with http:// or https://; credentials belong in auth or headers, and # is not used"),
    ]
    headers: Annotated[dict[Text, SecretStr], Field(description="sent with every request; never printed")] = {}
    params: Annotated[
        dict[Text, SecretStr | int | Finite | bool],
        Field(description="query parameters; texts are never printed"),
    ] = {}
    auth: Annotated[AnyAuth | None, Field(description="credentials, sent to the url's own origin only")] = None
    data_key: Annotated[
        Dotted | None, Field(description="where the records are, dotted for nested; null: the body itself")
    ] = "data"
    pagination: Annotated[Pagination, Field(description="default: one request")] = Pagination(style="none")
    since_param: Annotated[
        Text | None,
        Field(description="query parameter that asks for records whose cursor is at least this; not sent at first"),
    ] = None
    nested: Annotated[
        Literal["struct", "json", "flatten"],
        Field(
            description="objects and lists become, struct: nested columns; json: JSON text, as it was sent; flatten: "
            "one column per field of an object, named a__b, lists staying lists"
        ),
    ] = "struct"
    max_body: Annotated[
        str,
        Field(
            pattern=r"^[1-9][0-9]{0,6}(MB|GB|MiB|GiB)$",
            description="the largest answer that is taken, unpacked; a whole number and MB, GB, MiB or GiB",
        ),
    ] = "64MiB"
    budget: Budget = Budget()

    def problems(self, path: Place) -> Iterator[Problem]:
        yield from super().problems(path)
        yield from self._since_problems(path)
        fix = "write it as https://host/path or https://host:port/path"
        if wrong := wrong_host(self.url):
            yield Problem("config.url", wrong, (*path, "url"), fix=fix)
        if isinstance(self.auth, OAuth2Auth) and (wrong := wrong_host(self.auth.token_url)):
            yield Problem("config.url", wrong, (*path, "auth", "token_url"), fix=fix)
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name):
                message = f"{name!r} is no name of a header"
                fix = "use letters, digits and hyphens"
                yield Problem("config.header", message, (*path, "headers", name), fix=fix)
            if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
                message = f"the value of {name} holds a line break, a control character or something beyond ASCII"
                yield Problem(
                    "config.header", message, (*path, "headers", name), fix="encode it, or remove that character"
                )
        if self.auth and any(name.lower() == "authorization" for name in self.headers):
            message = "credentials are given twice: by auth and by the header Authorization"
            yield Problem("config.auth", message, (*path, "auth"), fix="remove one of them")
        yield from self.pagination.problems(path, self.params)

    def _since_problems(self, path: Place) -> Iterator[Problem]:
        if self.cursor is not None and self.since_param is None:
            message = "a cursor needs since_param: the query parameter that asks for newer records"
            yield Problem("config.mode", message, (*path, "cursor"), fix="add since_param, or remove cursor")
        if self.since_param is None:
            return
        if self.cursor is None:
            message = "since_param has no use without a cursor: the column whose largest value it is given"
            yield Problem(
                "config.mode", message, (*path, "since_param"), fix="add cursor: COLUMN, or remove since_param"
            )
        if self.since_param in self.params:
            message = f"the query parameter {self.since_param!r} is set here and by since_param"
            yield Problem("config.paging", message, (*path, "params", self.since_param), fix="remove it from params")


_BuiltIn = Annotated[DatabaseSpec | FileSpec | ApiSpec | S3Spec, Field(discriminator="type")]
AnySource = Annotated[SourceSpec, Kinds(_BuiltIn)]


def split_url(url: str) -> tuple[str, str, str, str]:
    """A connection string as ``scheme``, ``user:password`` (blank without an ``@``), place, and ``?options``.

    Neither an ``@`` in the options nor an ``@ / ?`` in the password, however raw, is taken for the end of a part.
    """
    scheme, _, rest = url.partition("://")
    found = _OPTIONS.search(rest)
    start = found.start("options") if found else len(rest)
    userinfo, _, place = rest[:start].rpartition("@")
    if not found:
        place, mark, options = place.partition("?")
        return scheme, userinfo, place, mark + options
    return scheme, userinfo, place, rest[start:]


def location_of(spec: SourceSpec, base: Path) -> str:
    """Where a source of a built-in kind lies, for people: no user, password or query; a path as it will be opened."""
    if isinstance(spec, DatabaseSpec):
        scheme, _, place, _ = split_url(spec.connection_string.get_secret_value())
        return f"{scheme}://{place} {spec.table or '(query)'}"
    if isinstance(spec, FileSpec) and spec.scheme:
        return spec.path.partition("?")[0] if spec.scheme in ("http", "https") else spec.path
    if isinstance(spec, FileSpec):
        return str(base / Path(spec.path).expanduser())
    if isinstance(spec, S3Spec):
        return f"s3://{spec.bucket}/{spec.key}"
    if isinstance(spec, ApiSpec):
        parts = urlsplit(spec.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"
    raise TypeError(f"a source of type {spec.type} says itself where it lies")


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
    if isinstance(spec, ApiSpec) and "?" in spec.url:
        found |= {value for _, value in parse_qsl(spec.url.partition("?")[2]) if len(value) >= 8}
    if isinstance(spec, FileSpec) and spec.scheme and "?" in spec.path:
        found |= {value for _, value in parse_qsl(spec.path.partition("?")[2]) if len(value) >= 8}
    return frozenset(found)


def _secret_strings(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secret_strings(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secret_strings(item)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secret_strings(getattr(value, name))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _secret_strings(item)


def _parts(secret: str) -> Iterator[str]:
    yield secret
    if "://" in secret and "@" in secret:
        password = split_url(secret)[1].partition(":")[2]
        yield password
        yield unquote(password)
    if "?" in secret:
        yield from (value for name, value in parse_qsl(secret.partition("?")[2]) if "pass" in name.lower())
    scheme, _, token = secret.partition(" ")
    if scheme.lower() in ("bearer", "basic", "token", "apikey"):
        yield token

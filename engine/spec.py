"""The pipeline as one frozen object, the same whether it was written in YAML or in Python.

Every class here is plain data. What a key means stands in its ``description``, which also feeds the JSON Schema
(`engine.config.json_schema`). Rules that span several keys are in `problems`; rules that need the feature
definitions are in `engine.plan`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from engine.errors import ConfigError, Problem, UsageError, nearest
from engine.types import DURATION_PATTERN, parse_moment

FAMILIES = (
    "schema",
    "completeness",
    "uniqueness",
    "range",
    "categorical",
    "freshness",
    "distribution",
    "row_count",
)
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
SETS = ("user", "task", "project", "team")
NAMED_TYPES = ("int", "float", "string", "bool", "datetime", "date", "decimal", "list")
_EXACT_TYPES = frozenset(
    """
    Int8 Int16 Int32 Int64 Int128 UInt8 UInt16 UInt32 UInt64 UInt128 Float16 Float32 Float64 String Utf8 Boolean
    Binary Categorical Enum Date Time Datetime Duration Decimal List Array Struct Null
    int8 int16 int32 int64 uint8 uint16 uint32 uint64 halffloat double utf8 large_string large_utf8 string_view
    boolean binary large_binary date32 date64 time32 time64 timestamp duration decimal128 decimal256
    list large_list fixed_size_list struct dictionary null
    """.split()  # noqa: SIM905 - 50 quoted names would be harder to read
)
BOUND_TEXT = "a number, a date or a timestamp in quotes, or null for an open end"


class Spec(BaseModel):
    """Base of all parts of a pipeline: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)


# --- scalars -----------------------------------------------------------------------------------------------------


def _bound(value: Any) -> Any:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and not math.isnan(value):
        return value
    if isinstance(value, date | datetime):
        return parse_moment(value) if isinstance(value, datetime) else value
    if isinstance(value, str):
        try:
            parse_moment(value)
        except UsageError:
            pass
        else:
            if value.strip().lower() != "now":
                return value
    raise PydanticCustomError("bound", "a bound is {allowed}", {"allowed": BOUND_TEXT})


def _category(value: Any) -> Any:
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise PydanticCustomError("category", "a category is a text, a number or true/false, never null", {})


def _key(value: Any) -> str | tuple[str, ...]:
    """A column name, or a list of names for a compound key."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) and v for v in value):
        if len(set(value)) < len(value):
            raise PydanticCustomError("key", "a compound key names a column twice", {})
        return tuple(value)
    raise PydanticCustomError("key", "a unique key is a column name, or a list of column names for a compound key", {})


def _type_name(value: str) -> str:
    base = re.split(r"[(\[<]", value, maxsplit=1)[0].strip()
    if value in NAMED_TYPES or base in _EXACT_TYPES:
        return value
    raise PydanticCustomError(
        "type_name",
        "unknown type {name}",
        {
            "name": value,
            "allowed": ", ".join(NAMED_TYPES) + ", or an exact Polars or Arrow type such as Int64 or timestamp[us]",
            "nearest": nearest(value, [*NAMED_TYPES, *sorted(_EXACT_TYPES)]),
        },
    )


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise PydanticCustomError("repeated", "{value} is listed twice", {"value": value})
        seen.add(value)
    return values


Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$"),
    Field(description="letters, digits and underscores, beginning with a letter, at most 63"),
]
Column = Annotated[str, StringConstraints(min_length=1)]
Text = Annotated[str, StringConstraints(min_length=1)]
Columns = Annotated[tuple[Column, ...], Field(strict=False), AfterValidator(_unique)]
Key = Annotated[
    Any,
    BeforeValidator(_key),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "minItems": 1,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]
Bound = Annotated[Any, BeforeValidator(_bound), WithJsonSchema({"type": ["number", "string", "null"]})]
Category = Annotated[Any, BeforeValidator(_category), WithJsonSchema({"type": ["string", "number", "boolean"]})]
TypeName = Annotated[Text, AfterValidator(_type_name)]
DurationText = Annotated[str, StringConstraints(pattern=DURATION_PATTERN)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


# --- sources -----------------------------------------------------------------------------------------------------


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


class FileSpec(SourceSpec):
    """Local files: one path or a glob."""

    type: Literal["file"]
    path: Annotated[Text, Field(description="a file or a glob, relative to the pipeline file")]
    format: Annotated[Literal["parquet", "csv", "ndjson", "json"] | None, Field(description="default: by suffix")] = (
        None
    )


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


# --- validation --------------------------------------------------------------------------------------------------


class Freshness(Spec):
    """How old the newest row may be."""

    timestamp_column: Column
    max_age_hours: Annotated[Finite, Field(gt=0)] = 24.0


class Expected(Spec):
    """The mean a column should have."""

    expected_mean: Finite
    tolerance: Annotated[Finite, Field(ge=0, description="allowed |mean − expected| / |expected|")] = 0.2


def _expected(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"expected_mean": float(value)}
    return value


class ValidationSpec(Spec):
    """The checks of one table. Null never violates range, categorical or uniqueness: completeness is about nulls."""

    schema_: Annotated[
        dict[Column, TypeName],
        Field(
            alias="schema",
            description="column: int, float, string, bool, datetime, date, decimal, list, or an exact type",
        ),
    ] = {}
    required_columns: Annotated[Columns, Field(description="completeness: columns that must hold values")] = ()
    max_null_percentage: Annotated[
        Finite, Field(ge=0, le=1, description="a fraction: 0.05 allows 5 % of nulls in required_columns")
    ] = 0.05
    unique_columns: Annotated[
        tuple[Key, ...],
        Field(strict=False, description="each entry one check; a nested list is one compound key"),
        AfterValidator(_unique),
    ] = ()
    range_constraints: Annotated[
        dict[Column, Annotated[tuple[Bound, Bound], Field(strict=False)]],
        Field(description="column: [min, max], both included; null is an open end"),
    ] = {}
    categorical_constraints: Annotated[
        dict[Column, Annotated[tuple[Category, ...], Field(strict=False, min_length=1)]],
        Field(description="column: allowed values, compared exactly"),
    ] = {}
    freshness: Freshness | None = None
    distribution: Annotated[
        dict[Column, Annotated[Expected, BeforeValidator(_expected, json_schema_input_type=float | Expected)]],
        Field(description="column: expected mean, or {expected_mean, tolerance}"),
    ] = {}
    min_rows: Annotated[int, Field(ge=0, description="fewest rows the whole table may have")] = 1
    severity: Annotated[
        dict[Text, Literal["error", "warning", "info"]],
        Field(description="family or family.column: severity of a failed check"),
    ] = {}

    def columns(self, family: str) -> tuple[str, ...]:
        """The columns (or comma-joined compound keys) that a family's checks are named after."""
        table: dict[str, tuple[str, ...]] = {
            "schema": tuple(self.schema_),
            "completeness": self.required_columns,
            "uniqueness": tuple(k if isinstance(k, str) else ",".join(k) for k in self.unique_columns),
            "range": tuple(self.range_constraints),
            "categorical": tuple(self.categorical_constraints),
            "freshness": (self.freshness.timestamp_column,) if self.freshness else (),
            "distribution": tuple(self.distribution),
            "row_count": (),
        }
        return table[family]


# --- features, output, Feast -------------------------------------------------------------------------------------


class ViewSpec(Spec):
    """One feature view: a built-in set with its settings."""

    set: Annotated[
        Literal["user", "task", "project", "team"] | None,
        Field(description="implied by the names user_features, task_features, project_features, team_features"),
    ] = None
    aggregation_window: Annotated[
        DurationText, Field(description="a whole number and a unit: s, m, h, d or w; such as 7d")
    ] = "7d"
    handle_missing: Annotated[
        Literal["impute", "zero", "drop", "keep"],
        Field(description="impute: median or mode; zero; drop: rows with a null leave; keep"),
    ] = "impute"
    normalize: Annotated[bool, Field(description="min-max to [0, 1] per column, with a pinned fit")] = True
    min_data_points: Annotated[
        int,
        Field(ge=0, description="user set: fewer activities than this give null for what rests on history"),
    ] = 0
    hours_per_activity: Annotated[
        Finite, Field(ge=0, description="user and team set: hours one activity stands for")
    ] = 2.0
    default_availability_hours: Annotated[
        Finite, Field(ge=0, description="user set: hours a week where a user's own are not known")
    ] = 40.0
    features: Annotated[
        Columns | None, Field(min_length=1, description="which features to publish; default: all of the set")
    ] = None
    sources: Annotated[dict[Name, Name], Field(description="role: source; default: the same names")] = {}


class OutputSpec(Spec):
    """Where features are published: <path>/<view>/event_date=YYYY-MM-DD/part-<as-of>.parquet."""

    path: Text = "./features"


class OnlineStoreSpec(Spec):
    """The store Feast serves from."""

    type: Literal["sqlite"] = "sqlite"


class FeastSpec(Spec):
    """The feature repo that is generated, applied and loaded."""

    repo: Annotated[Text, Field(description="folder of the feature repo")] = "./feature_repo"
    project: Annotated[
        Name, Field(description="Feast project: letters, digits and underscores, beginning with a letter")
    ]
    online_store: OnlineStoreSpec = OnlineStoreSpec()
    materialize: Annotated[bool, Field(description="load the online store after each run")] = True


# --- the whole ---------------------------------------------------------------------------------------------------


class Locator(Protocol):
    """Knows where in a file each part of a pipeline was written."""

    def problem(self, problem: Problem) -> Problem: ...


class Pipeline(Spec):
    """A declared pipeline: sources, checks, feature views, output, Feast.

    ``Pipeline(name=…, sources={…}, …)`` takes the same keys as the YAML file, as dicts or as the classes of this
    module. Relative paths start from ``base``: the file's folder, or the current one for a pipeline built in Python.

    Raises:
        ConfigError: with every mistake found, each with its place and what is allowed.
    """

    version: Annotated[Literal[1], Field(description="of this format")] = 1
    name: Name
    workdir: Annotated[Text, Field(description="ledger, landing zone and fits")] = "./.maestro"
    memory_limit: Annotated[
        str,
        StringConstraints(pattern=r"^[1-9][0-9]{0,6}(MB|GB|MiB|GiB)$"),
        Field(
            description="a whole number and MB, GB, MiB or GiB; joins and aggregates that need more are spilled to disk"
        ),
    ] = "512MiB"
    sources: Annotated[dict[Name, AnySource], Field(min_length=1)]
    validation: Annotated[dict[Name, ValidationSpec], Field(description="source: its checks")] = {}
    features: Annotated[dict[Name, ViewSpec], Field(description="view: its settings")] = {}
    output: OutputSpec = OutputSpec()
    feast: FeastSpec | None = None

    _base: Path | None = PrivateAttr(default=None)
    _locator: Locator | None = PrivateAttr(default=None)

    def __init__(self, *, base: Path | str | None = None, **data: Any) -> None:
        from engine.config import problems_of  # the one place that words pydantic's errors

        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigError(problems_of(error, data)) from None
        self._base = Path(base) if base is not None else None
        if found := list(problems(self)):
            raise ConfigError(found)

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return (self._base or Path.cwd()).resolve()

    def resolve(self, path: str) -> Path:
        """``path`` as an absolute path."""
        return (self.base / Path(path).expanduser()).resolve()

    def located(self, locator: Locator, base: Path) -> Self:
        """This pipeline, knowing the file it came from."""
        self._locator, self._base = locator, base
        return self

    def locate(self, problem: Problem) -> Problem:
        """``problem`` with its file, line and column where the pipeline came from a file."""
        return self._locator.problem(problem) if self._locator else problem

    def __eq__(self, other: object) -> bool:
        """Equal when every declared value is; where it was declared does not count."""
        return isinstance(other, Pipeline) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


def problems(pipeline: Pipeline) -> Iterator[Problem]:
    """Mistakes that no single key shows."""
    for name, source in pipeline.sources.items():
        yield from _source_problems(("sources", name), source)
    for name, checks in pipeline.validation.items():
        path = ("validation", name)
        if name not in pipeline.sources:
            yield _unknown(path, "source", name, pipeline.sources)
            continue
        yield from validation_problems(path, checks)
        yield from _renamed(path, pipeline.sources[name].column_mapping, _named_columns(checks))
    if pipeline.feast and not pipeline.features:
        yield Problem(
            "config.nothing_to_publish",
            "feast has nothing to publish: the pipeline declares no features",
            ("feast",),
            fix="add a features section, or remove feast",
        )


def _source_problems(path: tuple[str, ...], source: SourceSpec) -> Iterator[Problem]:
    targets: dict[str, str] = {}
    for old, new in source.column_mapping.items():
        if new in targets:
            yield Problem(
                "config.mapping_collision",
                f"two columns are renamed to {new!r}: {targets[new]!r} and {old!r}",
                (*path, "column_mapping", old),
                fix="give each its own new name",
            )
        targets[new] = old
    used = [(("required_columns", i), c) for i, c in enumerate(source.required_columns)]
    used += [(("critical_columns", i), c) for i, c in enumerate(source.critical_columns)]
    if source.deduplicate:
        used += [(("deduplicate", "keys", i), c) for i, c in enumerate(source.deduplicate.keys)]  # type: ignore[misc]
        if source.deduplicate.order_by:
            used.append((("deduplicate", "order_by"), source.deduplicate.order_by))  # type: ignore[arg-type]
    yield from _renamed(path, source.column_mapping, used)
    if isinstance(source, DatabaseSpec):
        yield from _database_problems(path, source)
    if isinstance(source, FileSpec | S3Spec):
        yield from _file_problems(path, source)
    if isinstance(source, S3Spec) and (source.access_key is None) != (source.secret_key is None):
        missing = "secret_key" if source.secret_key is None else "access_key"
        yield Problem(
            "config.missing_key",
            f"{missing} is missing: the two keys go together",
            path,
            fix=f"add {missing}",
        )


def _database_problems(path: tuple[str, ...], source: DatabaseSpec) -> Iterator[Problem]:
    scheme, separator, _ = source.connection_string.get_secret_value().partition("://")
    if not separator or scheme not in SCHEMES:
        near = nearest(scheme, SCHEMES) if separator else None
        yield Problem(
            "config.connection_string",
            f"unknown database {scheme!r}" if separator else "the connection string has no scheme such as sqlite://",
            (*path, "connection_string"),
            allowed="sqlite:///file.db, postgresql://…, mysql://…",
            fix=f"did you mean {near}://?" if near else "begin it with sqlite:///, postgresql:// or mysql://",
        )
    if (source.table is None) == (source.query is None):
        both = source.table is not None
        yield Problem(
            "config.table_or_query",
            "both table and query are given" if both else "neither table nor query is given",
            (*path, "query") if both else path,
            allowed="exactly one of table, query",
            fix="remove one of them" if both else "add table: NAME",
        )


def _file_problems(path: tuple[str, ...], source: FileSpec | S3Spec) -> Iterator[Problem]:
    field = "path" if isinstance(source, FileSpec) else "key"
    location = source.path if isinstance(source, FileSpec) else source.key
    if isinstance(source, FileSpec) and "://" in location:
        yield Problem(
            "config.not_local",
            "a file source reads local files",
            (*path, field),
            allowed="a local path or glob",
            fix="use type: s3 with bucket and key, or type: api with url",
        )
    elif source.format is None and file_format(location) is None:
        yield Problem(
            "config.unknown_format",
            f"the format of {location!r} cannot be told from its suffix",
            (*path, field),
            allowed=", ".join(SUFFIXES),
            fix=f"add format: one of {', '.join(FORMATS)}",
        )


def validation_problems(path: tuple[str, ...], checks: ValidationSpec) -> Iterator[Problem]:
    """Mistakes in the checks of one table that no single key shows."""
    for column, (low, high) in checks.range_constraints.items():
        where = (*path, "range_constraints", column)
        if low is None and high is None:
            yield Problem(
                "config.range",
                f"the range of {column!r} is open at both ends",
                where,
                fix="give a min or a max",
            )
        elif low is not None and high is not None:
            number = [isinstance(b, int | float) for b in (low, high)]
            if number[0] != number[1]:
                yield Problem(
                    "config.range",
                    f"the range of {column!r} mixes a number and a date",
                    where,
                    allowed=BOUND_TEXT,
                    fix="give both ends the same kind",
                )
            elif (low > high) if number[0] else parse_moment(low) > parse_moment(high):
                yield Problem(
                    "config.range",
                    f"the range of {column!r} is empty: {low} is above {high}",
                    where,
                    allowed="[min, max]",
                    fix="swap the two",
                )
    for entry in checks.severity:
        family, dot, column = entry.partition(".")
        where = (*path, "severity", entry)
        if family not in FAMILIES:
            yield _unknown(where, "check family", family, FAMILIES)
        elif dot and column not in checks.columns(family):
            yield _unknown(where, f"column of the {family} checks", column, checks.columns(family))


def _named_columns(checks: ValidationSpec) -> list[tuple[tuple[str | int, ...], str]]:
    """Every column that a validation block names, with its place."""
    found: list[tuple[tuple[str | int, ...], str]] = [(("schema", c), c) for c in checks.schema_]
    found += [(("required_columns", i), c) for i, c in enumerate(checks.required_columns)]
    for i, key in enumerate(checks.unique_columns):
        parts = [((), key)] if isinstance(key, str) else [((j,), c) for j, c in enumerate(key)]
        found += [(("unique_columns", i, *inner), c) for inner, c in parts]
    found += [(("range_constraints", c), c) for c in checks.range_constraints]
    found += [(("categorical_constraints", c), c) for c in checks.categorical_constraints]
    found += [(("distribution", c), c) for c in checks.distribution]
    if checks.freshness:
        found.append((("freshness", "timestamp_column"), checks.freshness.timestamp_column))
    return found


def _renamed(path: tuple[str, ...], mapping: Mapping[str, str], used: list[Any]) -> Iterator[Problem]:
    """A column that is named as it was before column_mapping renamed it."""
    new_names = set(mapping.values())
    for inner, column in used:
        if column in mapping and column not in new_names:
            yield Problem(
                "config.renamed_column",
                f"{column!r} is renamed by column_mapping before this applies",
                (*path, *inner),
                allowed="names as they are after column_mapping",
                fix=f"write {mapping[column]!r}",
            )


def _unknown(path: tuple[str, ...], kind: str, name: str, known: Any) -> Problem:
    near = nearest(name, known)
    return Problem(
        "config.unknown_name",
        f"unknown {kind} {name!r}",
        path,
        allowed=", ".join(known) or "none is declared",
        fix=f"did you mean {near!r}?" if near else f"use one of the names above, or declare {name!r}",
    )


def file_format(location: str) -> str | None:
    """The format that a path's suffix names, None where it names none; ``.gz`` and ``.zst`` are looked through."""
    name = location.rsplit("/", 1)[-1].lower()
    for compression in (".gz", ".zst"):
        name = name.removesuffix(compression)
    return next((form for suffix, form in SUFFIXES.items() if name.endswith(suffix)), None)


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

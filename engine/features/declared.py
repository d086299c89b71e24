"""A declared view as a `FeatureView`: the same dataclasses that the built-in sets are written in.

What is more than one aggregate (share, ratio, time_since, rate) becomes plain aggregates, whose names begin with an
underscore, and an expression over them; an expression that names another feature holds that one's in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.duck import identifier, literal
from engine.errors import Problem, did_you_mean
from engine.expressions import NotAnExpression, Reference, Rowwise
from engine.features.definition import Aggregate, Column, Feature, FeatureView, Role, Rows
from engine.spec import AggregateSpec, AttributeSpec, ViewSpec
from engine.spec.aggregates import ARGUMENTS, NEEDS_VALUE, WITHOUT_VALUE
from engine.spec.features import OF_SETS
from engine.spec.rules import Place, renamed, unknown
from engine.types import Duration

FUNCTIONS = ("as_of", "strip", "whole_days")
EVENTS, ENTITIES = "events", "entities"
RESERVED = ("event_timestamp", "created_timestamp", "event_date")
_PRIVATE = ("_key", "_source_key", "_member", "_first")
_DTYPES = {
    **dict.fromkeys(("count", "count_distinct"), "Int64"),
    **dict.fromkeys(("mean", "std", "var", "quantile", "share", "ratio", "time_since", "rate"), "Float64"),
}


@dataclass(frozen=True)
class Declaration:
    """What a declared view comes to.

    Attributes:
        view: None where there are problems.
        sources: role: source.
        problems: with paths below the view's own.
    """

    view: FeatureView | None
    sources: Mapping[str, str]
    problems: tuple[Problem, ...]


def declared(name: str, spec: ViewSpec, mappings: Mapping[str, Mapping[str, str]]) -> Declaration:
    """The view that ``spec`` declares.

    Args:
        name: of the view.
        mappings: per source of the pipeline, its column_mapping.
    """
    with Rowwise(FUNCTIONS) as sql:
        compiler = _Compiler(name, spec, mappings, sql)
        view = compiler.view()
    found = tuple(dict.fromkeys(compiler.problems))
    return Declaration(None if found else view, compiler.sources, found)


@dataclass
class _Compiler:
    name: str
    spec: ViewSpec
    mappings: Mapping[str, Mapping[str, str]]
    sql: Rowwise
    problems: list[Problem] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    columns: dict[str, dict[str, Column]] = field(default_factory=dict)
    features: dict[str, Feature] = field(default_factory=dict)
    aggregates: list[Aggregate] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)

    def view(self) -> FeatureView | None:
        self._check_keys()
        if self.problems or self.spec.entity is None:
            return None
        published = tuple(self.spec.entity)
        entity = self._entity(published)
        events = self._events(tuple(self.spec.entity.values())) if self.spec.source else None
        for name, aggregate in self.spec.aggregates.items():
            self._aggregate(name, aggregate)
        self._attributes(published)
        self._derive(published)
        self._check_names(published)
        if self.problems:
            return None
        known_by = None if self.spec.entities else events
        roles = [self._finished(role) for role in self.roles if role.name in self.sources]
        view = FeatureView(
            name=self.name,
            entity=self._finished(entity),
            roles=tuple(roles),
            rows=tuple(r for r in self.rows if any(a.rows == r.name for a in self.aggregates)),
            aggregates=tuple(self.aggregates),
            features=tuple(self.features.values()),
            settings={},
            created_at="_first" if known_by else (self.spec.created_at or "created_at"),
            known_by=known_by,
        )
        return view.select(self.spec.features if self.spec.features is not None else view.feature_names)

    # --- the tables ---

    def _entity(self, published: tuple[str, ...]) -> Role:
        self.roles: list[Role] = []
        if self.spec.entities is None:
            key, parts = _key(published)
            role = Role(ENTITIES, key, (), unique=True, parts=parts)
            self.columns[ENTITIES] = {}
            return role
        own = self._own_key(self.spec.entities.key, published, ("entities", "key"))
        role = self._role(ENTITIES, self.spec.entities.source, own, None, ("entities", "source"), unique=True)
        created = self.spec.created_at
        moment = Column(created or "created_at", "moment", "required" if created else "optional")
        self.columns[ENTITIES].setdefault(moment.name.casefold(), moment)
        if created:
            self._check_renamed(self.spec.entities.source, ("created_at",), created)
        return role

    def _events(self, key: tuple[str, ...]) -> Rows:
        role = self._role(EVENTS, self.spec.source or "", key, self.spec.timestamp, ("source",))
        for part in key:
            self._check_renamed(self.spec.source or "", ("entity",), part)
        if self.spec.timestamp:
            self._check_renamed(self.spec.source or "", ("timestamp",), self.spec.timestamp)
        where = self._over(role.name, ("where",), self.spec.where)
        rows = Rows(EVENTS, EVENTS, where=where)
        self.rows.append(rows)
        return rows

    def _role(
        self,
        name: str,
        source: str,
        key: tuple[str, ...],
        timestamp: str | None,
        path: Place,
        *,
        unique: bool = False,
    ) -> Role:
        if source not in self.mappings:
            self._problem(unknown(path, "source", source, self.mappings, code="config.unknown_source"))
        self.sources[name] = source
        columns = [Column(part, "key", "required") for part in key]
        if timestamp is not None:
            columns.append(Column(timestamp, "moment", "required"))
        self.columns[name] = {c.name.casefold(): c for c in columns}
        joined, parts = _key(key)
        role = Role(name, joined, (), timestamp=timestamp, unique=unique, parts=parts)
        self.roles.append(role)
        return role

    def _finished(self, role: Role) -> Role:
        columns = tuple(self.columns[role.name].values())
        return Role(role.name, role.key, columns, role.timestamp, role.unique, role.optional, role.parts)

    def _own_key(self, key: Any, published: tuple[str, ...], path: Place) -> tuple[str, ...]:
        own = published if key is None else (key,) if isinstance(key, str) else tuple(key)
        if len(own) != len(published):
            self._problem(
                Problem(
                    "config.key_length",
                    f"the key is {len(own)} columns here, the entity's key is {len(published)}",
                    path,
                    allowed=f"as many columns as the entity: {', '.join(published)}",
                    fix="name the columns that match those of the entity, in their order",
                )
            )
        return own

    # --- expressions ---

    def _problem(self, problem: Problem) -> None:
        self.problems.append(problem)

    def _read(self, path: Place, text: str) -> tuple[Reference, ...]:
        try:
            return self.sql.references(text)
        except NotAnExpression as reason:
            self._problem(
                Problem(
                    "config.expression",
                    f"{text!r}: {reason}",
                    path,
                    allowed="a SQL expression over the columns of one row, and as_of()",
                    fix="write it over the columns of one row",
                )
            )
            return ()

    def _over(self, role: str, path: Place, text: str | None) -> str | None:
        """SQL over the columns of a role's source, which are noted."""
        if text is None:
            return None
        text = self.sql.unreserved(text)
        for reference in self._read(path, text):
            self._note(role, path, reference.path[0])
        return _safe(text)

    def _note(self, role: str, path: Place, column: str) -> None:
        if column.casefold() in _PRIVATE:
            taken = f"the name {column!r} is the engine's own"
            fix = "give the column another name with column_mapping"
            self._problem(Problem("config.name_taken", taken, path, fix=fix))
        self.columns[role].setdefault(column.casefold(), Column(column, "any", "required"))
        self._check_renamed(self.sources[role], path, column)

    def _check_renamed(self, source: str, path: Place, column: str) -> None:
        self.problems += renamed((), self.mappings.get(source, {}), [(path, column)])

    # --- aggregates ---

    def _aggregate(self, name: str, spec: AggregateSpec) -> None:
        path: Place = ("aggregates", name)
        if not self._check_arguments(path, spec):
            return
        where = self._over(EVENTS, (*path, "where"), spec.where)
        value = self._over(EVENTS, (*path, "value"), spec.value)
        divisor = self._over(EVENTS, (*path, "divisor"), spec.divisor)
        default = spec.default if spec.default is not None else self.spec.defaults.get(name)
        variants: list[tuple[str, str | None, Any, str]] = [(name, where, default, spec.where or "")]
        if by := spec.by:
            self._note(EVENTS, (*path, "by", "column"), by.column)
            variants = []
            for label, category in by.values.items():
                condition = f"{identifier(by.column)} = {_literal(category)}"
                own = f"{name}_{label}"
                default = self.spec.defaults.get(own, spec.default)
                words = f"{spec.where} AND {by.column} = {category}" if spec.where else f"{by.column} = {category}"
                variants.append((own, f"{where} AND {condition}" if where else condition, default, words))
        for own, only, default, words in variants:
            sql = self._plain(own, spec, value, only, divisor)
            self._feature(path, own, sql, _DTYPES.get(spec.function), default, _described(spec, words))

    def _plain(self, name: str, spec: AggregateSpec, value: str | None, where: str | None, divisor: str | None) -> str:
        """The plain aggregates that a declared one comes to, and the expression over them."""
        window = Duration(spec.window) if spec.window else None
        offset = Duration(spec.offset) if spec.offset else None

        def add(own: str, function: Any, over: str | None) -> str:
            aggregate = Aggregate(
                own, function, EVENTS, over, window, None, where, offset, spec.tumbling, spec.n, spec.q, spec.error
            )
            self.aggregates.append(aggregate)
            return identifier(own)

        if spec.function == "share":
            return add(name, "mean", f"CASE WHEN {value} THEN 1.0::DOUBLE WHEN NOT {value} THEN 0.0::DOUBLE END")
        if spec.function == "ratio":
            top, bottom = add(f"_{name}_over", "sum", value), add(f"_{name}_under", "sum", divisor)
            return f"CAST({top} AS DOUBLE) / nullif(CAST({bottom} AS DOUBLE), 0)"
        if spec.function == "time_since":
            last = add(f"_{name}_last", "max", identifier(self.spec.timestamp or ""))
            return f"(epoch_us(as_of()) - epoch_us({last})) / 1000000"
        if spec.function == "rate" and window:
            count, per = add(f"_{name}_count", "count", value), Duration(spec.per or "1d").microseconds
            return f"{count} * {per}::DOUBLE / {window.microseconds}::DOUBLE"
        return add(name, spec.function, value)

    def _check_arguments(self, path: Place, spec: AggregateSpec) -> bool:
        before = len(self.problems)
        function = spec.function

        def wrong(key: str, message: str, fix: str) -> None:
            self._problem(Problem("config.aggregate", f"{function} {message}", (*path, key), fix=fix))

        for key, (functions, is_needed) in ARGUMENTS.items():
            given = getattr(spec, key) is not None
            if given and function not in functions:
                wrong(key, f"takes no {key}", f"remove {key}, or use {' or '.join(functions)}")
            elif is_needed and not given and function in functions:
                wrong("function", f"needs {key}", f"add {key}: …")
        if spec.value is None and function in NEEDS_VALUE:
            what = "a condition" if function == "share" else "SQL over the source's columns"
            wrong("function", "needs a value", f"add value: {what}")
        if spec.value is not None and function in WITHOUT_VALUE:
            wrong("value", "takes no value: it is the time since the last event", "use where to choose the events")
        if function == "rate" and spec.window is None:
            wrong("function", "needs a window: it is events per time", "add window: 30d or another span")
        if spec.tumbling and spec.window is None:
            wrong("tumbling", "is tumbling, and has no window", "add window: 1d or another span")
        if spec.default is not None and function == "last_n":
            wrong("default", "takes no default: it is an empty list's place", "use coalesce in derive")
        return len(self.problems) == before

    # --- attributes, derived features ---

    def _attributes(self, published: tuple[str, ...]) -> None:
        rows: dict[tuple[Any, ...], Rows] = {}
        roles: dict[tuple[Any, ...], Role] = {}
        for name, spec in self.spec.attributes.items():
            path: Place = ("attributes", name)
            key = self._own_key(spec.key, published, (*path, "key"))
            table = (spec.source, key, spec.timestamp)
            if table not in roles:
                roles[table] = self._role(
                    f"attributes_{len(roles) + 1}", spec.source, key, spec.timestamp, (*path, "source")
                )
                self._check_renamed(spec.source, (*path, "timestamp"), spec.timestamp)
            role = roles[table]
            value = self._over(role.name, (*path, "value"), spec.value or identifier(name))
            where = self._over(role.name, (*path, "where"), spec.where)
            if (*table, where) not in rows:
                rows[*table, where] = Rows(f"attributes_{len(rows) + 1}", role.name, where=where)
                self.rows.append(rows[*table, where])
            self._attribute(name, spec, value or "", rows[*table, where])

    def _attribute(self, name: str, spec: AttributeSpec, value: str, rows: Rows) -> None:
        # A null is a value too: of the newest row. Of several rows of one moment, null comes last.
        packed = f"struct_pack(known := {value} IS NOT NULL, v := {value})"
        self.aggregates.append(Aggregate(f"_{name}_newest", "last", rows.name, packed))
        default = spec.default if spec.default is not None else self.spec.defaults.get(name)
        description = f"{spec.value or name} of {spec.source} as of then"
        self._feature(("attributes", name), name, f"{identifier(f'_{name}_newest')}.v", None, default, description)

    def _feature(self, path: Place, name: str, sql: str, dtype: str | None, default: Any, description: str) -> None:
        if default is not None:
            sql = f"coalesce({sql}, {_literal(default)})"
        if name.casefold() in {n.casefold() for n in self.features}:
            message = f"the feature {name!r} stands twice; case makes no difference in SQL"
            self._problem(Problem("config.name_taken", message, path, fix="give it another name"))
        self.features[name] = Feature(name, sql, dtype, description)

    def _derive(self, published: tuple[str, ...]) -> None:
        done: dict[str, str] = {}
        known: dict[str, str] = {name.casefold(): f.sql for name, f in self.features.items()}
        names = {name.casefold(): name for name in self.spec.derive}

        def resolved(name: str, way: tuple[str, ...]) -> str:
            if name in done:
                return done[name]
            path: Place = ("derive", name)
            if name in way:
                circle = " → ".join((*way[way.index(name) :], name))
                self._problem(Problem("config.circle", f"it rests on itself: {circle}", path, fix="break the circle"))
                return "NULL"
            text = self.spec.derive[name]
            inner = _replaced(text, self._read(path, text), lambda r: replacement(r, path, (*way, name)))
            default = self.spec.defaults.get(name)
            sql = f"coalesce({inner}, {_literal(default)})" if default is not None else inner
            done[name] = sql
            return sql

        def replacement(reference: Reference, path: Place, way: tuple[str, ...]) -> str | None:
            first = reference.path[0].casefold()
            if first in known:
                return _inner(known[first], reference)
            if first in names:
                return _inner(resolved(names[first], way), reference)
            if self.spec.entities:
                self._note(ENTITIES, path, reference.path[0])
            elif first not in {p.casefold() for p in published}:
                allowed = [*self.features, *self.spec.derive, *published]
                problem = unknown(path, "feature", reference.path[0], allowed, code="config.unknown_feature")
                self._problem(problem)
            return None

        for name, text in self.spec.derive.items():
            sql = resolved(name, ())
            self._feature(("derive", name), name, sql, None, None, text)

    # --- what spans several keys ---

    def _check_keys(self) -> None:
        spec, given = self.spec, self.spec.model_fields_set
        for key in OF_SETS:
            if key in given:
                self._problem(
                    Problem(
                        "config.declared_view",
                        f"{key} belongs to the built-in sets, and this view declares its own features",
                        (key,),
                        fix=f"remove {key}, or what is declared: {', '.join(k for k in given if k not in OF_SETS)}",
                    )
                )
        if spec.entity is None:
            self._problem(Problem("config.missing_key", "the key 'entity' is missing", (), fix="add entity: …"))
        published = [name.casefold() for name in spec.entity or ()]
        for name in spec.entity or ():
            if name.casefold() in RESERVED or published.count(name.casefold()) > 1:
                message = f"a key cannot be published as {name!r}: another column has this name"
                fix = "publish it under another name: {NAME: column}"
                self._problem(Problem("config.name_taken", message, ("entity",), fix=fix))
        needs = "its aggregates run over events" if spec.aggregates else "nothing else says which entities there are"
        if spec.source is None and (spec.aggregates or not spec.entities):
            self._problem(
                Problem(
                    "config.missing_key",
                    f"the key 'source' is missing: {needs}",
                    (),
                    allowed=", ".join(self.mappings),
                    fix="add source: …",
                )
            )
        for key, needed in (("timestamp", "source"), ("where", "source"), ("created_at", "entities")):
            if getattr(spec, key) is not None and getattr(spec, needed) is None:
                self._problem(
                    Problem("config.missing_key", f"{key} is a column of {needed}", (key,), fix=f"add {needed}: …")
                )
        if spec.source is not None and spec.timestamp is None:
            message = "the key 'timestamp' is missing: when did an event happen?"
            self._problem(Problem("config.missing_key", message, (), fix="add timestamp: …"))
        if not (spec.aggregates or spec.attributes or spec.derive):
            self._problem(
                Problem("config.no_features", "the view declares no feature", (), fix="add aggregates, or derive")
            )

    def _check_names(self, published: tuple[str, ...]) -> None:
        taken = {name.casefold() for name in (*published, *RESERVED)}
        places = {f"{n}_{v}": ("aggregates", n) for n, a in self.spec.aggregates.items() if a.by for v in a.by.values}
        places |= {n: ("aggregates", n) for n in self.spec.aggregates}
        places |= {n: ("attributes", n) for n in self.spec.attributes} | {n: ("derive", n) for n in self.spec.derive}
        for name in self.features:
            if name.casefold() in taken:
                message = f"{name!r} is the name of another column that is published with the features"
                self._problem(Problem("config.name_taken", message, places[name], fix="give the feature another name"))
        for key, names in (("defaults", self.spec.defaults), ("features", self.spec.features or ())):
            for i, name in enumerate(names):
                if name not in self.features:
                    self._problem(
                        Problem(
                            "config.unknown_feature",
                            f"the view {self.name} has no feature {name!r}",
                            (key, name if key == "defaults" else i),
                            allowed=", ".join(self.features),
                            fix=did_you_mean(name, self.features, "use one of the names above"),
                        )
                    )


def _key(columns: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """A role's key and its parts."""
    return (columns[0], ()) if len(columns) == 1 else (", ".join(columns), columns)


def _safe(sql: str) -> str:
    """An expression that stays one wherever it is put."""
    return f"({sql}\n)" if "--" in sql else f"({sql})"


def _replaced(text: str, references: tuple[Reference, ...], new: Callable[[Reference], str | None]) -> str:
    """``text`` with what ``new`` gives in place of each reference; None leaves it."""
    data, parts, at = text.encode(), [], 0
    for reference in references:
        if (replacement := new(reference)) is not None:
            parts += [data[at : reference.start], replacement.encode()]
            at = reference.end
    return _safe(b"".join([*parts, data[at:]]).decode())


def _inner(sql: str, reference: Reference) -> str:
    return f"({sql})" + "".join(f".{identifier(name)}" for name in reference.path[1:])


def _literal(value: str | bool | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value!r}::DOUBLE"
    return literal(value) if isinstance(value, str) else str(value)


def _described(spec: AggregateSpec, where: str) -> str:
    """An aggregate in words."""
    arguments = ", ".join(str(a) for a in (spec.value, spec.divisor, spec.n, spec.q) if a is not None)
    text = f"{spec.function}({arguments})" if arguments else spec.function
    if spec.window:
        text += f" over the last {'whole ' if spec.tumbling else ''}{spec.window}"
    if spec.offset:
        text += f" up to {spec.offset} before"
    if spec.error:
        text += f" within {spec.error:g}"
    if spec.function == "rate":
        text += f" per {spec.per or '1d'}"
    return f"{text} where {where}" if where else text

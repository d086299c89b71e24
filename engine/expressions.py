"""SQL expressions that users write, read by DuckDB's own parser before anything runs them: what they name, and that
they are expressions over one row."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.duck import connect, identifier
from engine.errors import nearest

if TYPE_CHECKING:
    import duckdb

_ROWS = {"unnest", "unlist", "generate_subscripts", "regexp_split_to_table"}
_FORBIDDEN = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "*",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "the number of a column",
}
# Names that read the clock where no column has them.
_CLOCKS = {
    *("current_date", "current_time", "current_timestamp", "current_localtime", "current_localtimestamp"),
    *("localtime", "localtimestamp"),
}
_MACROS = {
    *("nullif", "if", "split_part", "fmod", "fdiv", "days_in_month", "date_add", "md5_number_lower"),
    *("md5_number_upper", "map_contains_entry", "map_contains_value"),
}


class NotAnExpression(Exception):  # noqa: N818 - says why a text is refused; each caller has its own words for it
    """A text is no SQL expression over one row: says why."""


@dataclass(frozen=True)
class Reference:
    """A column that an expression names.

    Attributes:
        path: its name, and those of the fields of a struct.
        start, end: where it stands in the text, as bytes of UTF-8.
    """

    path: tuple[str, ...]
    start: int
    end: int


def parsed(sql: str, connection: duckdb.DuckDBPyConnection) -> Any:
    """The tree of an expression.

    Raises:
        NotAnExpression: it is none, or more than one.
    """
    [(text,)] = connection.execute("SELECT json_serialize_sql(?)", [f"{_BEFORE}{sql}\n) FROM batch"]).fetchall()
    tree = json.loads(text)
    if tree.get("error"):
        raise NotAnExpression(f"it is no SQL expression: {tree.get('error_message', '').splitlines()[0]}")
    statements = tree["statements"]
    node = statements[0]["node"]
    plain = (
        len(statements) == 1
        and node.get("type") == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and not any(node.get(part) for part in ("where_clause", "having", "qualify", "sample"))
        and not node.get("group_expressions")
        and not node.get("modifiers")
        and node["from_table"].get("table_name") == "batch"
    )
    if not plain:
        raise NotAnExpression("it is more than one SQL expression")
    return node["select_list"]


def references(tree: Any, own: frozenset[str] = frozenset()) -> Iterator[Reference]:
    """The columns that a parsed expression names, in no certain order.

    Args:
        own: the parameters of lambdas around it.

    Raises:
        NotAnExpression: it holds what is more than an expression over one row.
    """
    if isinstance(tree, dict):
        kind = tree.get("class")
        if kind in _FORBIDDEN:
            raise NotAnExpression(f"it holds {_FORBIDDEN[kind]}; a condition is about one row")
        if kind == "FUNCTION" and str(tree.get("function_name")).casefold() in _ROWS:
            raise NotAnExpression(f"{tree['function_name']} makes rows; a condition is about one row")
        if kind == "COLUMN_REF" and tree["column_names"][0].casefold() not in own:
            start = tree["query_location"] - len(_BEFORE)
            yield Reference(tuple(tree["column_names"]), start, start + tree["query_location_length"])
        if kind == "LAMBDA" and tree["syntax_type"] == "LAMBDA_KEYWORD":  # the others are JSON's ->
            own |= {name.casefold() for [name] in (r.path for r in references(tree["lhs"]))}
        for child in tree.values():
            yield from references(child, own)
    elif isinstance(tree, list):
        for child in tree:
            yield from references(child, own)


class Rowwise:
    """Reads expressions whose value rests on one row and on nothing else: no aggregates, no clock, no chance.

    Args:
        functions: those that it may call besides DuckDB's own.
    """

    def __init__(self, functions: Collection[str] = ()) -> None:
        self._own = {name.casefold() for name in functions}
        self._connection = connect()
        self._kinds, self._unsteady = _functions()

    def __enter__(self) -> Rowwise:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def references(self, sql: str) -> tuple[Reference, ...]:
        """The columns that an expression names, in their order.

        Raises:
            NotAnExpression: it is none, or its value rests on more than one row.
        """
        tree = parsed(sql, self._connection)
        found = sorted(references(tree), key=lambda r: r.start)
        for reference in found:
            if reference.path[0].casefold() in _CLOCKS:
                raise NotAnExpression(_unsteady(reference.path[0]))
        self._check_functions(tree)
        return tuple(found)

    def unreserved(self, sql: str) -> str:
        """``sql``; a lone column name that is a word of SQL, such as ``order``, in quotes."""
        if not sql.isidentifier():
            return sql
        try:
            parsed(sql, self._connection)
        except NotAnExpression:
            return identifier(sql)
        return sql

    def _check_functions(self, tree: Any) -> None:
        if isinstance(tree, dict):
            if tree.get("class") == "FUNCTION" and not tree.get("is_operator"):
                self._check_function(str(tree["function_name"]).casefold(), len(tree["arguments"]))
            tree = list(tree.values())
        if isinstance(tree, list):
            for child in tree:
                self._check_functions(child)

    def _check_function(self, name: str, arguments: int) -> None:
        kinds = self._kinds.get(name, frozenset())
        if name in self._own:
            return
        if name in self._unsteady or name in _CLOCKS or name == "ago" or (name == "age" and arguments < 2):
            raise NotAnExpression(_unsteady(name))
        if "scalar" in kinds or name in _MACROS or (kinds == {"macro"} and name.startswith(("list_", "array_"))):
            return
        if "aggregate" in kinds or "window" in kinds:
            raise NotAnExpression(f"{name} is an aggregate; an expression here is about one row")
        if kinds:
            raise NotAnExpression(f"{name} is not a function of one row")
        near = nearest(name, [*self._own, *(n for n, k in self._kinds.items() if "scalar" in k)])
        raise NotAnExpression(f"there is no function {name}" + (f"; did you mean {near!r}?" if near else ""))


@cache
def _functions() -> tuple[Mapping[str, frozenset[str]], frozenset[str]]:
    """Of DuckDB's functions by name what they are; and those that do not always give the same."""
    with connect() as connection:
        rows = connection.execute(
            "SELECT lower(function_name), list(DISTINCT function_type), "
            "bool_and(stability IS NULL OR stability = 'CONSISTENT') FROM duckdb_functions() GROUP BY 1"
        ).fetchall()
    return {name: frozenset(kinds) for name, kinds, _ in rows}, frozenset(
        name for name, _, steady in rows if not steady
    )


def _unsteady(name: str) -> str:
    return f"{name} does not give the same at every run; as_of() is the moment that a row describes"


_BEFORE = "SELECT ("

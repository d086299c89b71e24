"""The house's own rules: imports go down only, each heavy package has its home, nothing loads before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.servers.postgres import Postgres

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "engine"

# From the top down. A module may import from a lower layer, or from its own part ("sources" is one part, and so is
# each single module); the parts of one layer do not import one another. Imports inside functions count like others.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("engine",),  # the package itself: it names its exports and loads them at first use
    ("demo",),
    ("report", "junit"),
    ("offline_store", "quarantine", "serving", "training", "transforms"),
    ("backfilling", "join", "offline_source", "proof", "published"),
    ("run", "online", "inspection", "data_file", "ingestion", "validation", "history"),
    ("suggestion",),
    ("extraction",),
    ("checkpoints",),
    ("intake", "loading", "bulletin"),
    ("stages",),
    ("outcome", "baselines", "registration", "served"),
    ("access",),
    ("landing", "plan", "plugin", "upkeep", "alerts"),
    ("start",),
    ("sources", "checks", "features", "sinks", "ledger"),
    ("drift",),
    ("profile",),
    ("page", "config", "expressions", "frames", "moments", "objects", "starter", "widening"),
    ("s3",),
    ("spec", "document", "duck"),
    ("problems", "types", "stopwatch"),
    ("errors", "steps", "progress", "processes"),
)
# Heavy (or untamed) third-party packages, and the modules (or folders) that may name them.
HOMES = {
    "adbc_driver_manager": {"engine.sources.adbc", "engine.sinks.online.sqlite"},
    "adbc_driver_postgresql": {"engine.sources.postgres_server"},
    "adbc_driver_sqlite": {"engine.sources.sqlite", "engine.sinks.online.sqlite"},
    "connectorx": {"engine.sources.mysql_session"},
    # duck opens every connection; the others name its exceptions and types.
    "duckdb": {
        "engine.duck",
        "engine.landing.merge",
        "engine.checks.groups",
        "engine.checks.sql",
        "engine.expressions",
        "engine.features.compute",
        "engine.features.footers",
        "engine.features.dtypes",
        "engine.features.history",
        "engine.features.inputs",
        "engine.sinks.online.newest",
        "engine.sources.duckdb_file",
    },
    "feast": {"engine.sinks.feast", "engine.offline_source", "engine.offline_store"},
    "aiohttp": {"engine.sources.file"},
    "fsspec": {"engine.s3", "engine.sources.file", "engine.sources.store"},
    "httpx": {"engine.sources.http", "engine.alerts"},
    "mmh3": {"engine.sinks.online.redis"},
    "numba": {"engine.drift.kernels", "engine.features.history.kernels"},
    "numpy": {"engine.drift", "engine.features", "engine.profile", "engine.sinks.online"},
    "pydantic": {"engine.spec", "engine.offline_store", "engine.problems", "engine.config", "engine.plugin.kit"},
    "pydantic_core": {"engine.spec", "engine.sources.records"},  # records: its JSON parser
    "pymysql": {"engine.sources.mysql_session"},
    "redis": {"engine.sinks.online.redis"},
    "rich": {"engine.report"},
    "obstore": {"engine.s3"},
    "sqlalchemy": {"engine.ledger"},
    "typeguard": {"engine.sinks.feast.aside"},
    "yaml": {"engine.document"},
}
# The engine's common language; cli, plan, spec, config and the like do without.
FRAMES = {"polars", "pyarrow"}
WITHOUT_FRAMES = {
    "engine",
    "engine.__main__",
    "engine.alerts",
    "engine.cli",
    "engine.cli.console",
    "engine.cli.feast",
    "engine.cli.fit",
    "engine.cli.online",
    "engine.cli.training",
    "engine.cli.pipeline",
    "engine.cli.quarantine",
    "engine.cli.upkeep",
    "engine.cli.validate",
    "engine.config",
    "engine.document",
    "engine.duck",
    "engine.errors",
    "engine.expressions",
    "engine.access",
    "engine.history",
    "engine.junit",
    "engine.ledger",
    "engine.ledger.database",
    "engine.objects",
    "engine.ledger.lease",
    "engine.ledger.ledger",
    "engine.ledger.migrations",
    "engine.ledger.profiles",
    "engine.ledger.records",
    "engine.ledger.tables",
    "engine.plan",
    "engine.plugin",
    "engine.plugin.kinds",
    "engine.problems",
    "engine.report",
    "engine.s3",
    "engine.sinks.online.config",
    "engine.sinks.paths",
    "engine.starter",
    "engine.steps",
    "engine.types",
    "engine.validation",
}
HEAVY = {
    *("polars", "_polars_runtime_32", "duckdb", "_duckdb", "pyarrow", "feast", "pandas", "numpy", "sqlalchemy"),
    *(
        "httpx",
        "fsspec",
        "rich",
        "obstore",
        "boto3",
        "connectorx",
        "adbc_driver_manager",
        "botocore",
        "pymysql",
        "psycopg",
    ),
    *("redis", "mmh3", "numba"),
}


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the engine, by name."""
    found = {}
    for path in sorted(ENGINE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import statement, wherever it stands; of the engine's modules by the module that is meant."""
    return tuple(Import(name, line, target) for name, tree in modules().items() for line, target in _targets(tree))


def _targets(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            for alias in node.names:  # `from engine import duck` means the module engine.duck
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules() else base


def part(module: str) -> str:
    return [*module.split("."), "engine"][1]


def layer(module: str) -> int:
    return next(i for i, parts in enumerate(LAYERS) if part(module) in parts)


def test_every_module_has_its_layer() -> None:
    there = {part(module) for module in modules()}
    known = [name for parts in LAYERS for name in parts]
    assert sorted(there) == sorted(known)


def test_imports_go_down_only() -> None:
    wrong = []
    for found in imports():
        if found.target not in modules():
            continue
        inside = part(found.module) == part(found.target)
        if not inside and layer(found.module) >= layer(found.target):
            wrong.append(str(found))
    assert not wrong


def test_of_the_sinks_the_plan_knows_paths_only() -> None:
    known = {i.target for i in imports() if i.module == "engine.plan" and i.target.startswith("engine.sinks")}
    assert known == {"engine.sinks.paths"}


def test_back_ends_do_not_import_one_another() -> None:
    """Reading PostgreSQL never loads what reads MySQL, and so on."""
    kinds = {f"engine.sources.{name}" for name in ("sqlite", "duckdb_file", "postgres", "mysql", "api", "s3")}
    assert not [str(i) for i in imports() if i.module in kinds and i.target in kinds]


def test_each_third_party_package_has_its_home() -> None:
    wrong, inhabited = [], set()
    for found in imports():
        package = found.target.partition(".")[0]
        homes = HOMES.get(package, set())
        home = next((h for h in homes if f"{found.module}.".startswith(f"{h}.")), None)
        inhabited.add((package, home))
        if homes and not home:
            wrong.append(str(found))
    assert not wrong
    assert inhabited >= {(package, home) for package, homes in HOMES.items() for home in homes}, "an empty home"


def test_every_third_party_package_is_in_the_table() -> None:
    packages = {i.target.partition(".")[0] for i in imports()} - set(sys.stdlib_module_names) - {"engine"}
    assert packages == set(HOMES) | FRAMES


def test_what_must_answer_at_once_does_without_frames() -> None:
    light = [i for i in imports() if i.module in WITHOUT_FRAMES or part(i.module) == "spec"]
    assert not [str(i) for i in light if i.target.partition(".")[0] in FRAMES]


def test_nothing_is_loaded_by_a_text_or_executed_from_one() -> None:
    forbidden = {"pickle", "marshal", "shelve", "cloudpickle", "dill", "code", "runpy", "importlib"}
    # The door loads its own exports; custom checks are users' functions; plug-ins are installed packages; Feast and numba
    # are looked for; Feast's definitions are Python, and run to be registered.
    allowed = {
        ("engine", "importlib"),
        ("engine.checks.functions", "importlib"),
        ("engine.features.ways", "importlib"),
        ("engine.sinks.feast.repo", "importlib"),
        ("engine.spec.plugins", "importlib"),
        ("engine.sinks.feast.repo", "runpy"),
    }
    named = {(i.module, i.target.partition(".")[0]) for i in imports()}
    assert {(m, p) for m, p in named if p in forbidden} == allowed
    called = [
        f"{module}:{node.lineno} calls {node.func.id}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"eval", "exec", "compile", "__import__", "print", "input", "breakpoint"}
    ]
    assert not called


def test_modules_are_named_after_nouns() -> None:
    vague = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "handler", "processor", "base", "core"}
    assert not {name for name in modules() if name.rpartition(".")[2] in vague}


def test_every_module_says_what_it_is_for() -> None:
    silent = {name for name, tree in modules().items() if tree.body and not ast.get_docstring(tree)}
    assert not silent


@pytest.mark.parametrize("module", ["engine.errors", "engine.types"])
def test_the_ground_rests_on_the_standard_library(module: str) -> None:
    packages = {i.target.partition(".")[0] for i in imports() if i.module == module}
    assert packages <= set(sys.stdlib_module_names) | {"engine"}


def test_nothing_heavy_loads_before_it_is_needed(tmp_path: Path) -> None:
    """One fresh process; each step may only add to what is loaded, so the first culprit is named."""
    (tmp_path / "wrong.yaml").write_text("version: 1\nname: wrong\nsources: {users: {type: fil, path: a.csv}}\n")
    (tmp_path / "right.yaml").write_text(
        "version: 1\nname: right\nsources: {users: {type: file, path: a.csv}, activities: {type: file, path: b.csv}}\n"
        "validation: {users: {unique_columns: [user_id], range_constraints: {age: [0, 99]}}}\n"
        "features: {user_features: {}}\n"
    )
    script = """
import contextlib, io, json, sys

heavy, loaded = set(json.loads(sys.argv[1])), {}
def step(name, call):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = call()
        except SystemExit as end:
            code = end.code
        except engine.MaestroError as error:
            code = error.exit_code
    loaded[name] = [code, sorted(heavy & set(sys.modules))]

import engine
from engine.cli import main
step("import", lambda: 0)
step("Pipeline with a mistake", lambda: engine.Pipeline(name="x", sources={"users": {"type": "fil"}}))
step("--version", lambda: main(["--version"]))
step("--help", lambda: main(["--help"]))
step("run --help", lambda: main(["run", "--help"]))
step("no command", lambda: main([]))
step("unknown command", lambda: main(["rum"]))
for command in ("check", "plan", "run", "validate"):
    step(f"{command} of a wrong file", lambda: main([command, "wrong.yaml"]))
    step(f"{command} --json of a wrong file", lambda: main([command, "wrong.yaml", "--json"]))
    step(f"{command} of no file", lambda: main([command, "none.yaml"]))
step("validate with wrong checks", lambda: main(["validate", "a.csv", "--checks", "wrong.yaml"]))
step("plan as of nonsense", lambda: main(["plan", "right.yaml", "--as-of", "tomorrow"]))
for action in ("list", "show --source s", "replay", "drop --source s"):
    name, *more = action.split()
    step(f"quarantine {name} of a wrong file", lambda: main(["quarantine", name, "wrong.yaml", *more]))
for command in ("profile", "suggest"):
    step(f"{command} of a wrong file", lambda: main([command, "wrong.yaml"]))
    step(f"{command} of no file", lambda: main([command, "none.yaml"]))
step("materialize of a wrong file", lambda: main(["materialize", "wrong.yaml"]))
training = ["training-set", "wrong.yaml", "--entities", "e.parquet", "--features", "v:*"]
step("training-set of a wrong file", lambda: main(training))
step("online get of a wrong file", lambda: main(["online", "get", "wrong.yaml", "--view", "v", "--key", "k"]))
step("feast diff of a wrong file", lambda: main(["feast", "diff", "wrong.yaml"]))
step("init", lambda: main(["init", "new.yaml"]))
step("init again", lambda: main(["init", "new.yaml"]))
step("schema", lambda: main(["schema"]))
step("check of a right file", lambda: main(["check", "right.yaml"]))
step("plan --json of a right file", lambda: main(["plan", "right.yaml", "--json"]))
step("Pipeline", lambda: engine.Pipeline(name="x", sources={"users": {"type": "file", "path": "a.csv"}}) and 0)
sys.stdout.write(json.dumps(loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(sorted(HEAVY))],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
    loaded = json.loads(done.stdout)
    assert {name: there for name, (_, there) in loaded.items() if there} == {}
    right = ("import", "--version", "--help", "run --help", "init", "schema", "check of a right file")
    right += ("plan --json of a right file", "Pipeline")
    assert {name: code for name, (code, _) in loaded.items() if (code or 0) != (0 if name in right else 2)} == {}


@pytest.mark.parametrize("rows", [0, 9])
def test_a_run_from_postgres_loads_nothing_that_it_does_not_need(
    tmp_path: Path, postgres_server: Postgres, rows: int
) -> None:
    """Not what reads other sources, merges, checks or publishes: half a run's start-up was that."""
    table = f"light_{rows}"
    values = "n::int AS id, now() AS at, n::numeric(9, 2) AS price, 'x' || n AS name"
    postgres_server.execute(f"CREATE TABLE {table} AS SELECT {values} FROM generate_series(1, {rows}) n")
    source = {"type": "database", "connection_string": postgres_server.url, "table": table}
    pipeline = {"version": 1, "name": "light", "sources": {"t": source}}
    (tmp_path / "light.yaml").write_text(json.dumps(pipeline))
    script = """
import json, sys
from engine.cli import main

code = main(["run", "light.yaml", "--quiet"])
sys.stdout.write(json.dumps([code, sorted(sys.modules)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
    code, loaded = json.loads(done.stdout)
    assert code == 0
    needed = {
        "polars",
        "_polars_runtime_32",
        "pyarrow",
        "numpy",
        "adbc_driver_manager",
        "sqlalchemy",
    }  # numpy by pyarrow
    assert sorted((HEAVY - needed) & {*loaded}) == []
    assert {"feast", "engine.sinks.feast"} & {*loaded} == set()

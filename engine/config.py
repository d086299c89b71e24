"""From files and dicts to pipelines and checks, with every mistake found; and their JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.document import Document, read_document
from engine.errors import ConfigError, Problem
from engine.problems import Place, kind_of, problems_of
from engine.spec import Pipeline, ValidationSpec


def load_pipeline(path: str | Path) -> Pipeline:
    """The pipeline that a YAML file declares.

    Raises:
        ConfigError: with every mistake found, each with file, line and column; nothing else has been read.
    """
    document = read_document(Path(path))
    data = _mapping_of(document)
    found: list[Problem] = []
    if "version" not in data:
        found.append(
            Problem("config.missing_key", "the key 'version' is missing", fix="begin the file with version: 1")
        )
    pipeline = Pipeline.__new__(Pipeline)
    try:
        # Pipeline(...) would word pydantic's error without places.
        Pipeline.__pydantic_validator__.validate_python(data, self_instance=pipeline)
    except ValidationError as error:
        found += problems_of(error, data, Pipeline, interpolated=document.interpolated)
    else:
        found += pipeline.problems()
    if found:
        raise document.error(found)
    return pipeline.located(document, Path(path).resolve().parent)


def load_validation(path: str | Path) -> ValidationSpec:
    """The checks that a YAML file holds: the content of one ``validation`` entry.

    Raises:
        ConfigError: as `load_pipeline`.
    """
    document = read_document(Path(path))
    try:
        return _validation(_mapping_of(document), document.interpolated)
    except ConfigError as error:
        raise document.error(error.problems) from None


def located(path: str | Path, error: ConfigError) -> ConfigError:
    """Mistakes in a file of checks that showed only later, with file, line and column."""
    return read_document(Path(path)).error(error.problems)


def parse_validation(config: Mapping[str, Any]) -> ValidationSpec:
    """The checks that a dict holds, as strictly as from a file."""
    return _validation(config)


def _validation(config: Mapping[str, Any], interpolated: set[Place] | frozenset[Place] = frozenset()) -> ValidationSpec:
    try:
        spec = ValidationSpec.model_validate(config)
    except ValidationError as error:
        found = problems_of(error, config, ValidationSpec, interpolated=interpolated)
        raise ConfigError(found) from None
    if found := list(spec.problems(())):
        raise ConfigError(found)
    return spec


def _mapping_of(document: Document) -> dict[str, Any]:
    if isinstance(document.data, dict):
        return document.data
    message = (
        "the file is empty" if document.data is None else f"expected keys and values, got {kind_of(document.data)}"
    )
    problem = Problem("config.not_a_mapping", message, fix="begin with the file that `maestro init` writes")
    raise document.error([problem])


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the pipeline file, made from the same classes that the loader enforces."""
    schema = Pipeline.model_json_schema()
    schema["required"] = ["version", *schema["required"]]
    _close(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "maestro pipeline"}


def _close(node: Any) -> None:
    """Names that fit no pattern are mistakes, which pydantic leaves open; a ``${VAR}`` fits every text."""
    if isinstance(node, dict):
        if "patternProperties" in node:
            node["additionalProperties"] = False
        if isinstance(node.get("pattern"), str):
            node["pattern"] += r"|\$\{"
        for child in node.values():
            _close(child)
    elif isinstance(node, list):
        for child in node:
            _close(child)

"""The pipeline as frozen data, the same whether it was written in YAML or in Python.

What a key means stands in its ``description``, which also feeds the JSON Schema (`engine.config.json_schema`). Rules
that span several keys are the ``problems`` of their class; rules that need the feature definitions are in
`engine.plan`.
"""

from pydantic import SecretStr

from engine.spec.aggregates import AggregateSpec, AttributeSpec, EntitiesSpec
from engine.spec.alerts import AlertSpec
from engine.spec.anomalies import Anomalies
from engine.spec.drift import DriftBaseline, DriftSpec, DriftThresholds
from engine.spec.feast import FeastSpec, ServiceSpec
from engine.spec.features import SETS, ViewSpec, view_spec
from engine.spec.files import COMPRESSIONS, FORMATS, SUFFIXES, Csv, FileKeys, Limits, file_format
from engine.spec.pipeline import Pipeline
from engine.spec.scalars import NAMED_TYPES
from engine.spec.sources import (
    AnySource,
    ApiSpec,
    DatabaseSpec,
    Deduplicate,
    FileSpec,
    IncrementalSpec,
    S3Spec,
    SourceSpec,
    location_of,
    secrets_of,
)
from engine.spec.store import LandingSpec, OutputSpec, S3Access, StoreSpec
from engine.spec.validation import ALL, FAMILIES, Threshold, ValidationSpec

__all__ = [
    "ALL",
    "COMPRESSIONS",
    "FAMILIES",
    "FORMATS",
    "NAMED_TYPES",
    "SETS",
    "SUFFIXES",
    "AggregateSpec",
    "AlertSpec",
    "Anomalies",
    "AnySource",
    "ApiSpec",
    "AttributeSpec",
    "Csv",
    "DatabaseSpec",
    "Deduplicate",
    "DriftBaseline",
    "DriftSpec",
    "DriftThresholds",
    "EntitiesSpec",
    "FeastSpec",
    "FileKeys",
    "FileSpec",
    "IncrementalSpec",
    "LandingSpec",
    "Limits",
    "OutputSpec",
    "Pipeline",
    "S3Access",
    "S3Spec",
    "SecretStr",
    "ServiceSpec",
    "SourceSpec",
    "StoreSpec",
    "Threshold",
    "ValidationSpec",
    "ViewSpec",
    "file_format",
    "location_of",
    "secrets_of",
    "view_spec",
]

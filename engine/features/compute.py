"""Computes a feature view as of a moment: to a frame, or straight to a Parquet file in bounded memory."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import duckdb

from engine.duck import identifier, literal
from engine.errors import MaestroError
from engine.features.definition import FeatureView
from engine.features.dtypes import place, refused
from engine.features.inputs import Inputs, as_data_error
from engine.features.query import as_of_macro, view_query

if TYPE_CHECKING:
    import pyarrow as pa


def compute(inputs: Inputs, view: FeatureView, as_of: datetime) -> pa.Table:
    """The raw features as of ``as_of``: key, event_timestamp, features; one row per entity, ordered by key."""
    try:
        inputs.connection.execute(as_of_macro(as_of))
        return cast("pa.Table", inputs.connection.sql(view_query(view, as_of)).to_arrow_table())
    except duckdb.Error as error:
        raise failed(inputs, view, as_of, error) from error


def compute_to_parquet(inputs: Inputs, view: FeatureView, as_of: datetime, path: Path) -> None:
    """As `compute`, written to ``path`` without holding the result in memory."""
    try:
        inputs.connection.execute(as_of_macro(as_of))
        query = view_query(view, as_of)
        inputs.connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
    except duckdb.Error as error:
        raise failed(inputs, view, as_of, error) from error


def failed(inputs: Inputs, view: FeatureView, as_of: datetime, error: duckdb.Error) -> MaestroError:
    """The error of a query: with the feature that cannot be computed, where it is the values of one."""
    if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException | duckdb.InvalidInputException):
        for feature in view.features:
            query = view_query(view.select([feature.name]), as_of)
            try:
                inputs.connection.execute(f"SELECT count({identifier(feature.name)}) FROM ({query})").fetchall()
            except duckdb.Error as own:
                return refused(own, place(view, feature.name))
    return as_data_error(error, view.name)

"""Computes a feature view as of a moment: to a table, or straight to a file in bounded memory."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import duckdb

from engine.duck import identifier
from engine.errors import MaestroError
from engine.features.definition import FeatureView
from engine.features.dtypes import place, refused
from engine.features.inputs import Inputs, as_data_error
from engine.features.query import as_of_macro, view_query

if TYPE_CHECKING:
    import pyarrow as pa

    from engine.features.raw import Raw


def compute(inputs: Inputs, view: FeatureView, as_of: datetime) -> pa.Table:
    """The raw features as of ``as_of``: key, event_timestamp, features; one row per entity, ordered by key."""
    try:
        inputs.connection.execute(as_of_macro(as_of))
        return cast("pa.Table", inputs.connection.sql(view_query(view, as_of)).to_arrow_table())
    except duckdb.Error as error:
        raise failed(inputs, view, as_of, error) from error


def compute_raw(inputs: Inputs, view: FeatureView, as_of: datetime, path: Path) -> Raw:
    """As `compute`, written to ``path`` without holding the result in memory."""
    try:
        inputs.connection.execute(as_of_macro(as_of))
        return written(inputs, view_query(view, as_of), path)
    except duckdb.Error as error:
        raise failed(inputs, view, as_of, error) from error


def written(inputs: Inputs, query: str, path: Path) -> Raw:
    """The rows of a query, in a file.

    Raises:
        duckdb.Error: it cannot be answered.
        SinkError: the disk is full or cannot be written.
    """
    import pyarrow as pa

    from engine.features import raw

    found = inputs.connection.sql(query)
    try:
        with found.to_arrow_reader(raw.slice_rows(len(found.columns))) as reader:  # the connection waits for its end
            return raw.write(reader, path)
    except (OSError, pa.ArrowException):
        inputs.connection.sql(query).to_arrow_table()  # which says what is amiss in DuckDB's own terms
        raise


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

"""Checks: what a table must fulfil, and what was found.

`Suite` compiles a `engine.spec.ValidationSpec` to one lazy plan and gives a `Report` of `Result`s.
Importing this package loads neither Polars nor DuckDB; `Suite.validate` does.
"""

from engine.checks.result import Report, Result
from engine.checks.suite import Suite

__all__ = ["Report", "Result", "Suite"]

"""One table in files, judged by one list of checks: a file, a folder or a glob, here or in S3."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from engine.checks import Report, Suite
from engine.checks.aside import Quarantine
from engine.checks.check import RowWise
from engine.config import load_validation, located
from engine.drift import TableDrift, drift_of, is_profile, read_profile
from engine.errors import ConfigError, SinkError, UsageError
from engine.frames import parquet_files, parquet_rows, scan_files
from engine.profile import Profile, profile_of
from engine.profile.exact import counted
from engine.sources import open_source
from engine.spec import FORMATS, AnySource, Pipeline, file_format
from engine.suggestion import candidates
from engine.types import DEFAULT_MEMORY_LIMIT, parse_moment

_PARQUET = "**/*.parquet"  # of a folder


def validate_file(
    path: str | Path,
    checks: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the key's name
    as_of: str | date | datetime | None = None,
    quarantine: str | Path | None = None,
) -> Report:
    """Judges a table in files by the checks of a YAML file: the content of one ``validation`` entry.

    Local Parquet is scanned where it lies; all else is read through the file source, with its care for types.

    Args:
        path: a file, a glob, a folder of Parquet files; ``s3://bucket/key`` with what the environment says of
            credentials, region and ``AWS_ENDPOINT_URL``.
        format: parquet, csv, ndjson or json; None is by suffix.
        as_of: the moment that freshness is judged at; None is now.
        quarantine: the Parquet file for rows that checks quarantine, ``.parquet``; an earlier quarantine file of that
            name is replaced, or removed where no row is quarantined; any other file is left alone.

    Raises:
        ConfigError: the checks are not written as they must be.
        UsageError: the format cannot be told; the quarantine makes no sense.
        SourceError, DataError: the data cannot be read.
        SinkError: the quarantine cannot be written.
    """
    suite = _suite(checks, as_of)
    location = str(path)
    form = format or _format(location)
    if quarantine is not None:
        _check_quarantine(Path(quarantine), suite, {Path(checks): "the file of checks"})
    with _table(location, form) as (frame, origins), _aside(quarantine, origins["origin"].to_list()) as aside:
        return suite.report(suite.judge(frame, origins=origins, quarantine=aside))


def profile_file(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the key's name
    exact: bool = False,
    unique: bool = False,
) -> Profile:
    """The profile of a table in files; arguments as in `validate_file`.

    Args:
        exact: whether distinct values are counted one by one where there are many.
        unique: whether they are for columns that may name a row.

    Raises:
        UsageError, SourceError, DataError: as there.
    """
    location = str(path)
    with _table(location, format or _format(location)) as (frame, _):
        found = profile_of(frame)
        names = None if exact else candidates(found) if unique else []
        return counted(frame, found, names)


def drift_files(
    baseline: str | Path,
    current: str | Path,
    *,
    columns: Sequence[str] | None = None,
    thresholds: Mapping[str, float | None] | None = None,
    bins: int = 10,
    exact: bool = True,
    format: str | None = None,  # noqa: A002 - the key's name
) -> TableDrift:
    """How far a table in files has moved away from another; either may be a profile, in a ``.json`` file with one.

    Arguments as of `engine.drift.drift_of` and `validate_file`.

    Raises:
        UsageError, SourceError, DataError, MissingExtra: as there.
    """
    with ExitStack() as stack:
        sides = [_side(stack, str(path), format) for path in (baseline, current)]
        with tempfile.TemporaryDirectory(prefix="maestro-drift-") as spill:
            return drift_of(*sides, columns=columns, thresholds=thresholds, bins=bins, exact=exact, spill=Path(spill))


def _side(stack: ExitStack, location: str, form: str | None) -> pl.LazyFrame | Profile:
    if form is None and location.endswith(".json") and is_profile(Path(location)):
        return read_profile(Path(location))
    return stack.enter_context(_table(location, form or _format(location)))[0]


def _suite(checks: str | Path, as_of: Any) -> Suite:
    spec = load_validation(checks)
    try:
        suite = Suite(spec, as_of=None if as_of is None else parse_moment(as_of), base=Path(checks).resolve().parent)
    except ConfigError as error:
        raise located(checks, error) from None
    if suite.references:
        raise UsageError(
            f"the checks refer to another source, {sorted(suite.references)[0]!r}, and here is one table",
            code="validate.references",
            where=f"{checks}: foreign_keys",
            fix="declare both in a pipeline file, or in Python give references= to Suite.validate",
        )
    return suite


def _format(location: str) -> str:
    form = file_format(location)
    if form is None and (Path(location).is_dir() or _is_folder_of_s3(location)):
        return "parquet"
    if form is None:
        raise UsageError(
            f"the format of {location} cannot be told from its suffix",
            code="validate.format",
            allowed=", ".join(FORMATS),
            fix="name it with --format, or format= in Python",
        )
    return form


def _is_folder_of_s3(location: str) -> bool:
    name = location.rpartition("/")[2]
    return location.startswith("s3://") and not any(mark in name for mark in ".*?[")


@contextmanager
def _table(location: str, form: str) -> Iterator[tuple[pl.LazyFrame, pl.DataFrame]]:
    """The rows, and where they lie: as `engine.checks.Suite.judge` takes it."""
    if form == "parquet" and not location.startswith("s3://"):
        files = parquet_files(location)
        yield scan_files(files, location), _origins([(str(file), parquet_rows(file)) for file in files])
    else:
        with tempfile.TemporaryDirectory(prefix="maestro-") as folder:
            yield _landed(location, form, Path(folder))


def _origins(files: Sequence[tuple[str, int]]) -> pl.DataFrame:
    """Of files, each with its number of rows, in order."""
    starts = list(accumulate((rows for _, rows in files), initial=0))[: len(files)]
    return pl.DataFrame(
        {"start": starts, "origin": [name for name, _ in files], "row": [0] * len(files)},
        schema={"start": pl.Int64, "origin": pl.String, "row": pl.Int64},
    )


def _landed(location: str, form: str, folder: Path) -> tuple[pl.LazyFrame, pl.DataFrame]:
    from engine.landing import land

    folder_of_s3 = _is_folder_of_s3(location) and form == "parquet"
    spec = _source(f"{location.rstrip('/')}/{_PARQUET}" if folder_of_s3 else location, form)
    source = open_source("data", spec, Path.cwd())
    rows = land(source, spec, folder / "data", name="data", memory_limit=DEFAULT_MEMORY_LIMIT).rows()
    return rows.scan(), rows.origins()


def _source(location: str, form: str) -> AnySource:
    declared: dict[str, Any] = {"type": "file", "path": location, "format": form}
    if location.startswith("s3://"):
        bucket, _, key = location.removeprefix("s3://").partition("/")
        declared = {"type": "s3", "bucket": bucket, "key": key, "format": form}
        declared["endpoint_url"] = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        declared["region"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return Pipeline(name="data", sources={"data": declared}).sources["data"]


# --- quarantine ---------------------------------------------------------------------------------------------------


def _check_quarantine(path: Path, suite: Suite, others: Mapping[Path, str]) -> None:
    if not any(isinstance(check, RowWise) and check.on_violation == "quarantine" for check in suite.checks):
        raise _refused("no check quarantines rows", "add on_violation: quarantine to the checks")
    if path.is_dir():
        raise _refused(f"{path} is a folder", "name a file in it, such as bad.parquet")
    if not path.resolve().parent.is_dir():
        raise _refused(f"there is no folder {path.resolve().parent}", "create it first, or name another")
    if path.suffix != ".parquet":
        raise _refused(f"{path} would be a Parquet file", "name it with the suffix .parquet")
    for other, what in others.items():
        if path.resolve() == other.resolve():
            raise _refused(f"{path} is {what}", "name another file")
    if path.exists() and not _is_quarantine(path):
        raise _refused(f"{path} is there already, and no quarantine file", "name another file, or remove it first")


def _is_quarantine(path: Path) -> bool:
    """Whether a file holds rows set aside: it may be replaced."""
    try:
        with path.open("rb") as file:
            *_, (name, last) = pl.read_parquet_schema(file).items()
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return False
    fields = {field.name for field in last.fields} if isinstance(last, pl.Struct) else set()
    return name.lstrip("_") == "quarantine" and {"id", "checks", "origin", "row"} <= fields


@contextmanager
def _aside(target: str | Path | None, files: Sequence[str]) -> Iterator[Quarantine | None]:
    """Where rows go until all are there; then the file appears as a whole."""
    if target is None:
        yield None
        return
    path = Path(target).resolve()
    if any(path == Path(file).resolve() for file in files):
        raise _refused(f"{target} is among the files that are checked", "name another file")
    try:
        folder = Path(tempfile.mkdtemp(prefix=".maestro-", dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        aside = Quarantine(folder / path.name)
        yield aside
        try:
            if aside.path.exists():
                aside.path.replace(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refused(message: str, fix: str) -> UsageError:
    return UsageError(message, code="validate.quarantine", where="--quarantine", fix=fix)


def _unwritable(path: Path, error: OSError) -> SinkError:
    message = f"the quarantine cannot be written: {error.strerror or error}"
    return SinkError(message, code="quarantine.unwritable", where=str(path), fix="make room, or name another file")

"""Rows in quarantine as a file that people mend, and back: each value is its column's exactly, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl

from engine.checks.aside import writing
from engine.errors import UsageError, nearest
from engine.frames import column as exactly
from engine.landing import files
from engine.landing.replay import ID
from engine.sources import formats, reading
from engine.spec import COMPRESSIONS

SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_FIELDS = ("id", "checks", "origin", "row")  # of the reasons, where a format has no columns in columns
_AS_TEXT = (pl.Datetime, pl.Date, pl.Time, pl.Decimal)
_NEVER_AS_TEXT = (pl.Binary, pl.Duration, pl.Object)
_CLOCK = "%H:%M:%S%.f"
_NAIVE, _ZONED = "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%:z"


def export(rows: pl.LazyFrame, path: Path) -> int:
    """Writes rows of the quarantine, the reasons in their last column, as Parquet, CSV or NDJSON; gives their number.

    CSV and NDJSON have ``quarantine_id``, ``quarantine_checks``, ``quarantine_origin`` and ``quarantine_row`` instead
    of the reasons.

    Raises:
        UsageError: the format is unknown, or does not hold the values exactly.
        SinkError: the file cannot be written.
    """
    form = _form(path)
    frame = rows.collect(engine="streaming")
    if form == "parquet":
        with writing(path):
            frame.write_parquet(path, compression="zstd")
        return frame.height
    *columns, reasons = frame.columns
    for name in columns:
        _check_fits(frame[name], form, path)
    values = [_written(name, frame.schema[name]) for name in columns]
    fields = [pl.col(reasons).struct[field].alias(f"{_prefix(columns)}_{field}") for field in _FIELDS]
    fields[1] = fields[1].list.join(", ")
    flat = frame.select(*values, *fields)
    with writing(path):
        if form == "csv":
            flat.write_csv(path)
        else:
            flat.write_ndjson(path)
    return frame.height


def _check_fits(values: pl.Series, form: str, path: Path) -> None:
    """Makes sure that a text format gives the values back as they are."""
    dtype = values.dtype
    inner = [*_parts(dtype)]
    odd = dtype.is_nested() and (form == "csv" or any(isinstance(d, (*_AS_TEXT, *_NEVER_AS_TEXT)) for d in inner))
    odd = odd or isinstance(dtype, _NEVER_AS_TEXT)
    odd = odd or (form == "ndjson" and dtype.is_float() and not bool(values.is_finite().all()))
    if odd:
        raise UsageError(
            f"{form} does not hold the values of column {values.name!r} ({dtype}) exactly",
            code="quarantine.format",
            where=str(path),
            allowed="a name that ends in .parquet",
            fix=f"write {path.with_suffix('.parquet').name}",
        )


def _parts(dtype: pl.DataType) -> Iterator[pl.DataType]:
    yield dtype
    if isinstance(dtype, pl.List | pl.Array):
        yield from _parts(pl.Series(dtype=dtype.inner).dtype)
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield from _parts(pl.Series(dtype=field.dtype).dtype)


def _written(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as text formats have it."""
    if dtype == pl.Time:
        return exactly(name).dt.to_string(_CLOCK)
    is_text = isinstance(dtype, (*_AS_TEXT, pl.Categorical, pl.Enum))
    return exactly(name).cast(pl.String) if is_text else exactly(name)


def _prefix(columns: Iterable[str]) -> str:
    taken, name = list(columns), ID.removesuffix("_id")
    while any(column.startswith(f"{name}_") for column in taken):
        name = f"_{name}"
    return name


def _form(path: Path) -> str:
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"the format of {path} cannot be told from its suffix",
            code="quarantine.format",
            allowed=", ".join(SUFFIXES),
            fix="end its name in one of these",
        )
    return form


def mended(path: Path, target: Mapping[str, pl.DataType], folder: Path) -> Path:
    """Mended rows as a Parquet file of the columns of ``target``, and as the last one the rows' `ID`.

    Args:
        path: a file that `export` wrote, with other values, maybe with fewer rows.

    Raises:
        UsageError: a column is missing or unknown, or a value is none of its column's type.
    """
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}", code="quarantine.mended", fix="make one with: maestro quarantine show … --out"
        )
    parts, before = [], 0
    for frame in _frames(path):
        parts.append(files.new_path(folder, "mended"))
        files.write(_typed(frame, target, path, before).lazy(), parts[-1])
        before += frame.height
    whole = files.new_path(folder, "mended")
    empty = pl.LazyFrame(schema={**target, _last(target): pl.String()})
    files.write(pl.concat([empty, *map(files.scan, parts)]), whole)
    return whole


def _last(columns: Iterable[str]) -> str:
    return f"{_prefix(columns)}_id"


def _frames(path: Path) -> Iterator[pl.DataFrame]:
    with reading(str(path), "quarantine"):
        form = _form(path)
        if form == "parquet":
            yield pl.read_parquet(path, glob=False)
        elif form == "csv":  # texts, which the table's types make values of
            yield pl.read_csv(path, infer_schema=False, glob=False)
        else:
            packed = COMPRESSIONS.get(path.suffix.lower(), "none")
            for part in formats.read(formats.Job(path, form, str(path), "quarantine", packed)):
                yield part.frame


def _typed(frame: pl.DataFrame, target: Mapping[str, pl.DataType], path: Path, before: int) -> pl.DataFrame:
    """The rows with the columns and types of ``target``, and their ids."""
    ids = _ids(frame, target, path)
    prefix = _prefix(target)
    for name in target:
        if name not in frame.columns and _form(path) != "ndjson":  # a record may lack what is null
            raise _wrong(path, f"the column {name!r} is missing", "take it from the file that quarantine show wrote")
    for name in frame.columns:
        about = name.startswith(prefix) or (name == frame.columns[-1] and _is_reasons(frame.schema[name]))
        if name not in target and not about and frame.schema[name] != pl.Null:
            near = nearest(name, target)
            raise _wrong(path, f"there is no column {name!r}", f"did you mean {near!r}?" if near else "remove it")
    columns = [_exact(frame, name, dtype, path, before) for name, dtype in target.items()]
    return pl.DataFrame([*columns, ids.alias(_last(target))])


def _ids(frame: pl.DataFrame, target: Mapping[str, pl.DataType], path: Path) -> pl.Series:
    name = _last(target)
    if name in frame.columns:
        return frame[name].cast(pl.String)
    last = frame.columns[-1] if frame.columns else ""
    if last not in target and _is_reasons(frame.schema.get(last)):
        return frame[last].struct["id"]
    raise _wrong(path, f"no column {name!r} says which rows these are", "make the file with quarantine show … --out")


def _is_reasons(dtype: pl.DataType | None) -> bool:
    return isinstance(dtype, pl.Struct) and "id" in (field.name for field in dtype.fields)


def _exact(frame: pl.DataFrame, name: str, want: pl.DataType, path: Path, before: int) -> pl.Series:
    """A column as values of the type ``want``."""
    if name not in frame.columns:
        return pl.Series(name, [None] * frame.height, dtype=want)
    given = frame[name]
    if given.dtype == want:
        return given
    try:
        made = frame.select(_read(exactly(name), given.dtype, want))[name]
        wrong = made.is_null() & given.is_not_null()
        if want == pl.Float32 and given.dtype.is_float():  # 0.1 is written alike, and not equal
            wrong = wrong | made.cast(pl.String).ne_missing(given.cast(pl.String))
        elif given.dtype != pl.String:
            wrong = wrong | made.cast(given.dtype, strict=False).ne_missing(given)
    except pl.exceptions.PolarsError:
        made, wrong = given, given.is_not_null()
        if not wrong.any():
            return pl.Series(name, [None] * frame.height, dtype=want)
    if wrong.any():
        first = wrong.arg_true()[0]
        raise UsageError(
            f"row {before + first + 1}: {name} is {given[first]!r}, which is no {want}",
            code="quarantine.mended_value",
            where=str(path),
            allowed=_allowed(want),
            fix="correct it, or leave the row out: it stays in quarantine then",
        )
    return made


def _read(expr: pl.Expr, have: pl.DataType, want: pl.DataType) -> pl.Expr:
    if have != pl.String:
        return expr.cast(want, strict=False)
    text = expr.str.strip_chars()
    if isinstance(want, pl.Datetime):
        text = text.str.replace("T", " ", literal=True).str.replace("Z$", "+00:00")
        form = _ZONED if want.time_zone else _NAIVE
        moment = text.str.to_datetime(form, time_unit=want.time_unit, strict=False)
        return moment.dt.convert_time_zone(want.time_zone) if want.time_zone else moment
    special: dict[pl.DataType, Callable[[], pl.Expr]] = {
        pl.Date(): lambda: text.str.to_date("%Y-%m-%d", strict=False),
        pl.Time(): lambda: text.str.to_time(_CLOCK, strict=False),
        pl.Boolean(): lambda: text.str.to_lowercase().replace_strict(
            {"true": True, "false": False}, default=None, return_dtype=pl.Boolean
        ),
    }
    return special[want]() if want in special else text.cast(want, strict=False)


def _allowed(want: pl.DataType) -> str:
    if isinstance(want, pl.Datetime):
        return "2025-10-04 06:30:00" + ("+00:00" if want.time_zone else "")
    known = {pl.Date(): "2025-10-04", pl.Time(): "06:30:00", pl.Boolean(): "true or false"}
    return known.get(want, f"values that are {want} exactly")


def _wrong(path: Path, what: str, fix: str) -> UsageError:
    return UsageError(what, code="quarantine.mended", where=str(path), fix=fix)


def check_ids(given: pl.Series, known: pl.Series, path: Path) -> None:
    """Makes sure that each id is there once, and of a row that is held.

    Raises:
        UsageError: one is not.
    """
    missing = given.is_null().arg_true()
    strange = given.filter(~given.is_in(known.implode()) & given.is_not_null())
    twice = given.filter(given.is_duplicated() & given.is_not_null())
    if missing.len():
        raise _wrong(path, f"row {missing[0] + 1} does not say which row it is", "keep the ids as they were")
    if strange.len():
        raise _wrong(
            path,
            f"no row {strange[0]!r} is in quarantine",
            "make the file anew with quarantine show … --out: the row was replayed, dropped or read anew meanwhile",
        )
    if twice.len():
        raise _wrong(path, f"the row {twice[0]!r} is there twice", "keep one of them")

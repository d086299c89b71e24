"""The Parquet files of a Feast source, here or in S3, as what entity rows are looked up in."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.parquet as pq

from engine.errors import DataError, UsageError, did_you_mean
from engine.features.asof import Table, scanned
from engine.features.part_file import Seen, extremes, identity, marks_in
from engine.features.past import CREATED, Part, Past
from engine.frames import parquet_files, reading

if TYPE_CHECKING:
    from feast import FeatureView, FileSource


@dataclass(frozen=True)
class Source:
    """A Feast file source, whose files are fetched to ``folder`` where they lie in S3.

    Raises:
        UsageError: it is of another kind, or its files are not Parquet.
        DataError: here and later: there are no files, or they cannot be read.
    """

    source: FileSource
    repo: Path | None
    folder: Path
    _seen: dict[Path, Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from feast import FileSource
        from feast.data_format import ParquetFormat

        source: Any = self.source
        if not isinstance(source, FileSource) or not isinstance(source.file_format, ParquetFormat | None):
            kind = type(source.file_format if isinstance(source, FileSource) else source).__name__
            raise UsageError(
                f"the source {source.name!r} is a {kind}",
                code="offline.source",
                where=source.name,
                allowed="a FileSource of Parquet files, here or in S3",
                fix="name such a source, or use the offline store that Feast has for this one",
            )

    @cached_property
    def files(self) -> list[Path]:
        """Those that there are, by name."""
        from feast import FileSource

        place = FileSource.get_uri_for_file_path(self.repo, self.source.path)
        if "://" not in place:
            return parquet_files(place)
        with reading(place, "check path and s3_endpoint_override of the source, and the credentials"):
            from pyarrow import fs

            system, path = FileSource.create_filesystem_and_path(
                place, self.source.s3_endpoint_override or "", self.source.resolve_credentials()
            )
            if system is None:
                raise UsageError(
                    f"{place} is neither local nor in S3", code="offline.path", where=self.source.name, fix="correct it"
                )
            found = []
            for name in _names(system, path):
                copy = self.folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                fs.copy_files(name, str(copy), source_filesystem=system, destination_filesystem=fs.LocalFileSystem())
                found.append(copy)
            if not found:
                raise DataError(
                    f"there is no Parquet file {place}", code="data.no_file", where=self.source.name, fix="correct path"
                )
            return found

    @cached_property
    def _footers(self) -> list[tuple[pq.FileMetaData, pl.Schema]]:
        footers = []
        for path in self.files:
            with reading(f"the file {path}", "check the files of the source"), path.open("rb") as handle:
                self._seen[path] = identity(handle)
                footer = pq.read_metadata(handle)
                handle.seek(0)
                footers.append((footer, pl.Schema(pl.read_parquet_schema(handle))))
        return footers

    @cached_property
    def schema(self) -> pl.Schema:
        """The columns of all files, each in a type that holds the values of all; also those in the names of folders."""
        schemas = [schema for _, schema in self._footers]
        with reading(f"the files of {self.source.name}", "give their columns common types"):
            frames = [pl.LazyFrame(schema=s) for s in dict.fromkeys(tuple(s.items()) for s in schemas)]
            found = pl.concat(frames, how="diagonal_relaxed").collect_schema()
        hive = [part.partition("=")[0] for part in self.files[0].parent.parts if "=" in part]
        return pl.Schema({**{name: pl.String() for name in hive}, **found})

    def scan(self, names: Sequence[str]) -> str:
        """The rows in SQL, with at least those columns."""
        return scanned(self.files, self._in_folders(names))

    def _in_folders(self, names: Sequence[str]) -> bool:
        return any(name not in schema for _, schema in self._footers[:1] for name in names)

    def column(self, name: str) -> str:
        """What a column, by the name that Feast has for it, is called in the files."""
        for own, mapped in self.source.field_mapping.items():
            if mapped == name and own in self.schema:
                return str(own)
        return name

    def past(
        self,
        view: FeatureView,
        keys: Mapping[str, str],
        features: Sequence[str],
        *,
        known: bool = False,
    ) -> Past | Table:
        """A view with some of its features, by their names in the files.

        Args:
            keys: key column of the files: that of the entity rows.
            known: whether rows count only from when they were created.
        """
        stamp = self.column(self.source.timestamp_field)
        created = self.column(self.source.created_timestamp_column) if self.source.created_timestamp_column else None
        needed = [*keys, *features, stamp, *([created] if created else [])]
        for name in needed:
            if name not in self.schema:
                raise UsageError(
                    f"the files of {view.name} have no column {name!r}",
                    code="offline.column",
                    where=self.source.name,
                    allowed=", ".join(self.schema),
                    fix=did_you_mean(name, self.schema, "correct the view, or the field_mapping of its source"),
                )
        ttl = int(view.ttl.total_seconds() * 1_000_000) if view.ttl else None
        types = {name: self.schema[name] for name in needed}
        called = str(view.projection.name_to_use())  # type: ignore[no-untyped-call]
        hive = self._in_folders(needed)
        parts = None if known or hive or not keys else self._parts(types, stamp, created)
        chosen = {name: types[name] for name in keys}, {name: types[name] for name in features}
        if parts is not None:
            return Past(called, *chosen, parts, ttl, keys)
        return Table(called, self.files, *chosen, stamp, created, ttl, keys, known, hive)

    def _parts(self, types: Mapping[str, pl.DataType], stamp: str, created: str | None) -> list[Part] | None:
        """The files by their one moment each; None where they are not such."""
        parts = []
        for path, (footer, schema) in zip(self.files, self._footers, strict=True):
            if any(schema.get(name) != dtype for name, dtype in types.items()) or not footer.num_rows:
                return None
            if not isinstance(types[stamp], pl.Datetime):
                return None
            first, last = extremes(footer, stamp)
            if first is None or first != last:
                return None
            alike = created is None or _constant(footer, created)
            if not alike and created != CREATED:
                return None
            parts.append(Part(first, footer.num_rows, self._seen[path].fetch(path), alike, marks_in(footer)))
        if len({part.as_of for part in parts}) < len(parts):
            return None
        return sorted(parts, key=lambda part: part.as_of)


def _constant(footer: pq.FileMetaData, name: str) -> bool:
    first, last = extremes(footer, name)
    return first is not None and first == last


def _names(system: Any, path: str) -> list[str]:
    """The Parquet files that a path names: one, or those of a folder or a pattern; hidden ones are left out."""
    from pyarrow import fs

    static = path[: min((path.index(mark) for mark in "*?[" if mark in path), default=len(path))]
    if static == path and system.get_file_info(path).is_file:
        return [path]
    folder = path.rstrip("/") if static == path else static.rpartition("/")[0]
    listed = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    names = sorted(info.path for info in listed if info.is_file and info.path.endswith(".parquet"))
    seen = [n for n in names if not any(p.startswith(".") for p in n.removeprefix(folder).split("/"))]
    return seen if static == path else [name for name in seen if fnmatch.fnmatchcase(name, path)]

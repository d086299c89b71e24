"""What all sources of files understand: format, dialect, which files, and how far a file is trusted."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from engine.errors import Problem, nearest
from engine.spec.rules import Place
from engine.spec.scalars import Spec, Text

FORMATS = ("parquet", "csv", "ndjson", "json", "arrow")
SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
Format = Literal["parquet", "csv", "ndjson", "json", "arrow"]
_Mark = Annotated[str, Field(pattern=r"^[\x01-\x09\x0b\x0c\x0e-\x7f]$")]


class Csv(Spec):
    """How a CSV file is written."""

    delimiter: Annotated[_Mark, Field(description="between fields: one ASCII character")] = ","
    quote: Annotated[_Mark | None, Field(description="around fields; null: there is none")] = '"'
    escape: Annotated[_Mark | None, Field(description="before a character that means itself; null: none")] = None
    encoding: Annotated[Text, Field(description="utf-8, latin-1, utf-16, cp1252, … as Python names them")] = "utf-8"
    header: Annotated[
        bool, Field(description="whether the first line names the columns; else they are column_1, column_2, …")
    ] = True
    skip_lines: Annotated[int, Field(ge=0, description="lines to leave out at the beginning")] = 0
    null_values: Annotated[
        tuple[str, ...],
        Field(strict=False, description="fields that stand for null, as an empty one does; not in quotes"),
    ] = ()


class Limits(Spec):
    """How much one file may be; a file beyond is refused, with the limit's name."""

    rows: Annotated[int, Field(ge=1, description="rows")] = 2_000_000_000
    bytes: Annotated[int, Field(ge=1, description="bytes of its values, decompressed")] = 2**38
    value_bytes: Annotated[int, Field(ge=1, description="bytes of one CSV row or JSON line")] = 16 * 2**20
    whole_bytes: Annotated[int, Field(ge=1, description="bytes of a JSON file, which is held as a whole")] = 2**27
    ratio: Annotated[
        int, Field(ge=1, description="times its size that its values may come to, once they are beyond 256 MiB")
    ] = 1000
    columns: Annotated[int, Field(ge=1, description="columns")] = 20_000
    nesting: Annotated[int, Field(ge=1, le=100, description="levels of lists and objects in a value")] = 32
    memory: Annotated[int, Field(ge=2**27, description="untrusted: bytes of memory that reading may take")] = 2**30
    seconds: Annotated[int, Field(ge=1, description="untrusted: seconds that reading one piece may take")] = 300


class FileKeys(Spec):
    """The keys of a source of files."""

    format: Annotated[Format | None, Field(description="default: by suffix")] = None
    compression: Annotated[
        Literal["none", "gzip", "zstd", "bzip2", "xz"] | None,
        Field(description="of text files, as a whole; default: by suffix (.gz, .zst, .bz2, .xz)"),
    ] = None
    csv: Annotated[Csv, Field(description="how CSV files are written")] = Csv()
    hive_partitions: Annotated[
        bool, Field(description="whether folders named key=value, below the first wildcard, are columns")
    ] = False
    mode: Annotated[
        Literal["full", "append"],
        Field(
            description="full: each run reads all files; append: those that are new or have changed, the rows of a "
            "changed file in place of its earlier ones"
        ),
    ] = "full"
    untrusted: Annotated[
        bool, Field(description="read files in a process of their own, with limits of memory and time")
    ] = False
    limits: Limits = Limits()

    @property
    def effective_mode(self) -> Literal["full", "append"]:
        """``mode``; as of other sources."""
        return self.mode

    def file_problems(self, path: Place, location: str, key: str) -> Iterator[Problem]:
        """Mistakes in these keys; ``key`` says where the files are."""
        form = self.format or file_format(location)
        if form is None:
            yield Problem(
                "config.unknown_format",
                f"the format of {location!r} cannot be told from its suffix",
                (*path, key),
                allowed=", ".join(SUFFIXES),
                fix=f"add format: one of {', '.join(FORMATS)}",
            )
        elif self.compression and self.compression != "none" and form in ("parquet", "arrow"):
            yield Problem(
                "config.compression",
                f"{form} files are compressed inside",
                (*path, "compression"),
                allowed="compression of csv, ndjson and json",
                fix="remove compression",
            )
        elif form != "csv" and self.csv != Csv():
            yield Problem(
                "config.dialect",
                f"csv has no use for {form} files",
                (*path, "csv"),
                fix="remove it, or set format: csv",
            )
        yield from self._dialect_problems((*path, "csv"))

    def _dialect_problems(self, path: Place) -> Iterator[Problem]:
        csv = self.csv
        try:
            known = codecs.lookup(csv.encoding)._is_text_encoding
        except LookupError:
            known = False
        if not known:
            near = nearest(
                csv.encoding, ("utf-8", "latin-1", "utf-16", "cp1252", "iso-8859-15", "shift_jis", "gb18030")
            )
            yield Problem(
                "config.encoding",
                f"unknown encoding {csv.encoding!r}",
                (*path, "encoding"),
                allowed="utf-8, latin-1, utf-16, cp1252, … as Python names them",
                fix=f"did you mean {near!r}?" if near else "correct it",
            )
        marks = {"delimiter": csv.delimiter, "quote": csv.quote, "escape": csv.escape}
        for key in ("quote", "escape"):
            same = next((other for other, mark in marks.items() if other < key and mark == marks[key]), None)
            if marks[key] is not None and same is not None:
                yield Problem(
                    "config.dialect", f"{same} and {key} are the same character", (*path, key), fix="change one of them"
                )


def file_format(location: str) -> str | None:
    """The format that a path's suffix names, None where it names none; suffixes of compression are looked through."""
    name = location.partition("?")[0].rsplit("/", 1)[-1].lower() if "://" in location else location
    name = name.rsplit("/", 1)[-1].lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((form for suffix, form in SUFFIXES.items() if name.endswith(suffix)), None)

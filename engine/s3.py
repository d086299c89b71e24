"""The one way into S3 and stores that speak its protocol: obstore, whose requests cost no Python."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import MissingExtra, is_interrupt
from engine.spec import S3Access

DEFAULT_REGION = "us-east-1"
_CONNECT_SECONDS = 10
_PART_BYTES = 16 * 2**20  # of a large object that is put or fetched in parts
_LOOK_BYTES = 2**16  # at once, of an object that is read here and there
_ODD = re.compile(r"[^!-~]|\.\.")  # what has no place in a host or a name
_ODD_KEY = re.compile(r"[^!-~]")  # in a header
_STATUS = re.compile(r"status code: (\d{3}) ([\w -]+)(?:.*?<Code>(\w+)</Code>(?:.*?<Message>([^<]+))?)?", re.DOTALL)
_KINDS = re.compile(r"kind: (\w+)")
_CAUSES = re.compile(r'message: "([^"]+)"|error: "([^"]+)"')


class Bucket:
    """A bucket of a store; nothing is asked of it before a method is called.

    What goes wrong is an OSError (FileNotFoundError and PermissionError among them), or a ValueError where no request
    can be made.

    Args:
        what: it is for, such as ``reading S3``.
        seconds: for one request.
        retries: further attempts at one, where the store, or the way to it, failed.

    Raises:
        MissingExtra: a package for it is not installed.
    """

    def __init__(self, access: S3Access, name: str, what: str, *, seconds: float, retries: int) -> None:
        try:
            import obstore
        except ImportError:
            raise MissingExtra("obstore", "s3", what) from None
        self._calls = obstore
        self._access, self.name, self._what = access, name, what
        self._seconds, self._retries = seconds, retries
        self._store: Any = None

    def info(self, key: str) -> dict[str, Any]:
        """Size and ETag of an object."""
        with self._spoken():
            return _facts(self._calls.head(self._opened(), key))

    def under(self, folder: str, *, deep: bool = True) -> dict[str, dict[str, Any]]:
        """Size and ETag of all objects whose keys begin with ``folder/``.

        Args:
            deep: also of those in folders below.
        """
        with self._spoken():
            if not deep:
                found = self._calls.list_with_delimiter(self._opened(), folder or None)["objects"]
            else:
                found = [one for some in self._calls.list(self._opened(), folder or None) for one in some]
        # A key that ends in a slash is listed without it, and there is no object of that name.
        return {one["path"]: _facts(one) for one in found if one["size"] or self._is_there(one["path"])}

    def glob(self, pattern: str, *, detail: bool) -> dict[str, dict[str, Any]]:
        """Size and ETag of the objects whose keys match, as fsspec matches; ``detail`` is fsspec's, and true."""
        from fsspec.utils import glob_translate

        assert detail  # noqa: S101 - nobody asks for less
        wild = min(pattern.index(mark) for mark in "*?[" if mark in pattern)
        folder, _, rest = pattern[:wild].rpartition("/")
        matches = re.compile(glob_translate(pattern)).match
        deep = "/" in rest + pattern[wild:]
        return {key: facts for key, facts in self.under(folder, deep=deep).items() if matches(key)}

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> tuple[bytes, str | None]:
        """Some of an object's bytes, or all, and the ETag of the object that they are of."""
        options: Any = {} if start is None or stop is None else {"range": (start, stop)}
        with self._spoken():
            found = self._calls.get(self._opened(), key, options=options)
            return bytes(found.bytes()), _tag(found.meta)

    def fetch(self, key: str, path: Path) -> None:
        """An object to a file, in parts that take a request each."""
        there = self.info(key)
        with path.open("wb") as file:
            for start in range(0, there["size"], _PART_BYTES):
                data, tag = self.read(key, start, min(start + _PART_BYTES, there["size"]))
                if tag != there["ETag"]:
                    raise OSError(f"{key} was changed while it was read")
                file.write(data)

    def open(self, key: str) -> BinaryIO:
        """An object to read parts of."""
        with self._spoken():
            return io.BufferedReader(_Object(self._calls.open_reader(self._opened(), key), self._spoken), _LOOK_BYTES)

    def put(self, path: Path, key: str) -> None:
        """A file as an object, which is seen whole or not at all."""
        with self._spoken():
            self._calls.put(self._opened(), key, path, chunk_size=_PART_BYTES, max_concurrency=2)

    def remove(self, keys: Iterable[str]) -> None:
        """Removes objects; those that are gone are no error."""
        with self._spoken():
            self._calls.delete(self._opened(), list(keys))

    def _is_there(self, key: str) -> bool:
        try:
            self.info(key)
        except FileNotFoundError:
            return False
        return True

    def _opened(self) -> Any:
        if self._store is None:
            self._store = self._made()
        return self._store

    def _made(self) -> Any:
        from obstore.store import S3Store

        access = self._access
        keys = [key.get_secret_value() for key in (access.access_key, access.secret_key) if key]
        region = access.region or DEFAULT_REGION
        for setting, value in (("bucket", self.name), ("region", region), ("endpoint_url", access.endpoint_url or "")):
            if odd := _ODD.search(value):  # a panic otherwise
                raise ValueError(f"{setting} holds what does not belong there: {odd[0]!r}")
        if any(map(_ODD_KEY.search, keys)):
            raise ValueError("access_key or secret_key holds a character that does not belong there")
        options: dict[str, Any] = {"endpoint": access.endpoint_url} if access.endpoint_url else {}
        if keys:
            options |= {"access_key_id": keys[0], "secret_access_key": keys[1]}
        else:
            options["credential_provider"] = self._offered()
        seconds = timedelta(seconds=self._seconds)
        return S3Store(
            self.name,
            region=region,
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": True,
                "connect_timeout": min(timedelta(seconds=_CONNECT_SECONDS), seconds),
                "read_timeout": seconds,
                "timeout": seconds,
            },
            retry_config={"max_retries": self._retries, "retry_timeout": seconds * (self._retries + 1)},
            **options,
        )

    def _offered(self) -> Any:
        """Keys that the environment offers: variables, shared files, a machine's role."""
        try:
            from obstore.auth.boto3 import Boto3CredentialProvider
        except ImportError:
            raise MissingExtra("boto3", "s3", f"{self._what} without access_key") from None
        try:
            return Boto3CredentialProvider()
        except Exception as error:  # noqa: BLE001 - of boto3, which raises much
            raise PermissionError(f"no access_key is declared, and the environment offers none: {error}") from None

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """Turns what obstore raises into Python's own errors, with what they have to say."""
        try:
            yield
        except (OSError, ValueError, MissingExtra) as error:
            if type(error) is FileNotFoundError:
                raise FileNotFoundError(_text(error)) from None
            raise
        except BaseException as error:
            if type(error).__name__ == "PanicException" and not is_interrupt(error):
                raise ValueError(str(error)) from None
            if not isinstance(error, self._calls.exceptions.BaseError):
                raise
            text = _text(error)
            raise (PermissionError if text.startswith(("401", "403")) else _kind(text))(text) from None


class _Object(io.RawIOBase):
    """A reader of obstore's, which is no file of Python's."""

    def __init__(self, reader: Any, spoken: Callable[[], AbstractContextManager[None]]) -> None:
        self._reader, self._spoken = reader, spoken

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, buffer: Any) -> int:
        with self._spoken():
            data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _kind(text: str) -> type[OSError]:
    return FileNotFoundError if text.startswith("404") else OSError


def _text(error: BaseException) -> str:
    """The little that people need of what obstore says at length."""
    said = str(error)
    if found := _STATUS.search(said):
        number, words, code, message = found.groups()
        return ": ".join(filter(None, [f"{number} {words.strip()}", code, message]))
    short, _, details = said.partition("\n\nDebug source:")
    causes = [one or other for one, other in _CAUSES.findall(details)]
    return ": ".join([" ".join(short.split()), *_KINDS.findall(details)[:1], *causes[:1]])


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "file", "size": found["size"], "ETag": _tag(found)}


def _tag(found: Mapping[str, Any]) -> str | None:
    tag = found["e_tag"]
    return tag.strip('"') if tag else None

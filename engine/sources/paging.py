"""From page to page: how each is asked for, and what the answer says of the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.spec import ApiSpec

if TYPE_CHECKING:
    from engine.sources.answer import Answer
    from engine.sources.http import Fetcher, Reply


class Odd(Exception):  # noqa: N818 - for the caller to word
    """What an answer names as the next page is no such thing."""


@dataclass(frozen=True)
class Place:
    """Which page; JSON-ready by `to_dict`, and without a secret.

    Attributes:
        number: of the page, counting from that of the first one.
        at: page number, offset, cursor or URL; None: the first page, of a style that only an answer leads on from.
    """

    number: int
    at: int | str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"number": self.number, "at": self.at}

    @staticmethod
    def of(said: Mapping[str, Any]) -> Place:
        """What `to_dict` gave."""
        return Place(said["number"], said["at"])


class Paging:
    """The pages of one source, in its style.

    Args:
        params: the query parameters that every page is asked with.
    """

    def __init__(self, spec: ApiSpec, params: Mapping[str, str]) -> None:
        self._spec = spec.pagination
        self._params = dict(params)
        self._size = {self._spec.effective_size_param: str(self._spec.size)} if self._spec.effective_size_param else {}
        self.next_key = tuple(self._spec.next_key.split(".")) if self._spec.next_key else ()
        self.total_key = tuple(self._spec.total_key.split(".")) if self._spec.total_key else ()

    def first(self) -> Place:
        if self._spec.style == "page":
            return Place(self._spec.start, self._spec.start)
        return Place(1, 0 if self._spec.style == "offset" else None)

    def fetched(self, fetcher: Fetcher, place: Place) -> Reply | None:
        """The answer to the request for a page; None: there is no such page.

        Raises:
            SourceError: as `Fetcher.get`.
        """
        style, param = self._spec.style, self._spec.effective_param
        absent = self._spec.counted and place != self.first()
        if style in ("link", "next_url") and place.at is not None:
            return fetcher.get({}, absent=absent, url=fetcher.with_secrets(str(place.at), self._params))
        params = self._params | ({} if style == "none" else self._size)
        if param is not None and place.at is not None:
            params[param] = str(place.at)
        return fetcher.get(params, absent=absent)

    def ahead(self, place: Place, rows: int) -> Place | None:
        """The next page, where it can be known before this one is there.

        Args:
            rows: how many each page has, as far as is known.
        """
        if self._spec.style == "page":
            return Place(place.number + 1, int(place.at or 0) + 1)
        if self._spec.style == "offset":
            return Place(place.number + 1, int(place.at or 0) + rows) if rows else None
        return None

    def after(self, place: Place, fetcher: Fetcher, reply: Reply, answer: Answer) -> Place | None:
        """The next page; None: this is the last one, as far as the answer says.

        Raises:
            SourceError: it is of another origin.
            Odd: what is named is no text or number.
        """
        if self._spec.counted:
            return self.ahead(place, answer.records.height)
        if self._spec.style == "link":
            target: Any = reply.link("next")
        elif self.next_key:
            target = answer.get(self.next_key)
        else:
            return None
        if target is None or target == "" or target is False:  # how some servers say that there is none
            return None
        if isinstance(target, bool) or not isinstance(target, str | int):
            raise Odd(f"{'.'.join(self.next_key)} is a {type(target).__name__}")
        if self._spec.style == "cursor":
            return Place(place.number + 1, target)
        if not isinstance(target, str):
            raise Odd(f"{'.'.join(self.next_key)} is a number")
        return Place(place.number + 1, fetcher.without_secrets(fetcher.resolved(target)))

    def total(self, answer: Answer) -> int | None:
        """How many records there are, as the answer says; None where it is not asked.

        Raises:
            Odd: it does not say.
        """
        if not self.total_key:
            return None
        said = answer.get(self.total_key)
        if said is None and not answer.records.height:  # an empty page need not say it
            return None
        if isinstance(said, str) and said.isdigit():
            said = int(said)
        if isinstance(said, bool) or not isinstance(said, int) or said < 0:
            raise Odd(f"{'.'.join(self.total_key)} is no count of records")
        return said

"""How a REST source is asked: its pages, its credentials, its limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from engine.errors import Problem
from engine.spec.rules import Place
from engine.spec.scalars import Finite, Spec, Text

Dotted = Annotated[str, Field(pattern=r"^[^.]+(\.[^.]+)*$")]
HttpUrl = Annotated[
    str,
    Field(
        pattern=r"^https?://[^\s/?#@]+([/?][^\s#]*)?$",
        repr=False,  # its query may hold a token
        json_schema_extra={"writeOnly": True},
    ),
]
_COUNTED = ("page", "offset")
_PARAMS = {"page": "page", "offset": "offset", "cursor": "cursor"}
_SIZE_PARAMS = {"page": "per_page", "offset": "limit"}
# Keys that only some styles have a use for.
_USES = {
    "param": ("page", "offset", "cursor"),
    "start": ("page",),
    "next_key": ("cursor", "next_url"),
    "in_flight": _COUNTED,
}


class Pagination(Spec):
    """How a REST source is cut into pages."""

    style: Annotated[
        Literal["page", "offset", "cursor", "link", "next_url", "none"],
        Field(
            description="page: by page number; offset: by number of the first record; cursor: by what the answer says "
            "of the next page; link: by the header Link, rel=next; next_url: by a URL in the answer; none: one request"
        ),
    ] = "page"
    param: Annotated[
        Text | None,
        Field(description="query parameter with the page number, offset or cursor; default: page, offset, cursor"),
    ] = None
    size_param: Annotated[
        Text | None,
        Field(
            description="query parameter with the page size; null: none; default: per_page for page, limit for offset"
        ),
    ] = None
    size: Annotated[int, Field(ge=1, le=1_000_000, description="records asked for per page")] = 100
    start: Annotated[int, Field(ge=0, le=1, description="page: number of the first page")] = 1
    next_key: Annotated[
        Dotted | None,
        Field(
            description="cursor, next_url: where the answer has the next one, dotted for nested; null there: the end"
        ),
    ] = None
    total_key: Annotated[
        Dotted | None,
        Field(description="where each answer has the number of all records; it is compared with what is read"),
    ] = None
    in_flight: Annotated[
        int, Field(ge=1, le=64, description="page, offset: pages asked for at a time at most; 1: one after the other")
    ] = 8

    @property
    def counted(self) -> bool:
        """Whether the next page can be asked for before this one is there."""
        return self.style in _COUNTED

    @property
    def effective_param(self) -> str | None:
        """``param``, or its default."""
        return (self.param or _PARAMS.get(self.style)) if self.style in _PARAMS else None

    @property
    def effective_size_param(self) -> str | None:
        """``size_param``, or its default."""
        return self.size_param if "size_param" in self.model_fields_set else _SIZE_PARAMS.get(self.style)

    def problems(self, path: Place, params: Mapping[str, object]) -> Iterator[Problem]:
        """Mistakes that no single key shows; ``params`` are the source's own."""
        for key, styles in _USES.items():
            if key in self.model_fields_set and getattr(self, key) is not None and self.style not in styles:
                message = f"{key} has no use with style {self.style}"
                yield Problem(
                    "config.paging",
                    message,
                    (*path, "pagination", key),
                    allowed=f"styles with it: {', '.join(styles)}",
                    fix=f"remove {key}, or choose another style",
                )
        if self.style in _USES["next_key"] and self.next_key is None:
            yield Problem(
                "config.paging",
                f"style {self.style} needs next_key: where the answer says what comes next",
                (*path, "pagination"),
                fix="add next_key, dotted for nested, such as meta.next",
            )
        if self.style == "none":
            return
        for field in ("param", "size_param"):
            name = getattr(self, f"effective_{field}")
            if name in params:
                message = f"the query parameter {name!r} is set here and by pagination.{field}"
                yield Problem("config.paging", message, (*path, "params", name), fix="remove it from params")
        if self.effective_param and self.effective_param == self.effective_size_param:
            message = f"param and size_param are both {self.effective_param!r}"
            yield Problem(
                "config.paging", message, (*path, "pagination", "size_param"), fix="name them as the API does"
            )


class BearerAuth(Spec):
    """A token in the header Authorization."""

    type: Literal["bearer"]
    token: Annotated[SecretStr, Field(min_length=1)]


class BasicAuth(Spec):
    """A name and a password in the header Authorization."""

    type: Literal["basic"]
    username: SecretStr
    password: SecretStr


class ApiKeyAuth(Spec):
    """A key in a header or a query parameter."""

    type: Literal["api_key"]
    name: Annotated[Text, Field(description="of the header or query parameter")]
    key: Annotated[SecretStr, Field(min_length=1)]
    where: Annotated[Literal["header", "query"], Field(description="where it is sent")] = "header"


class OAuth2Auth(Spec):
    """OAuth 2 client credentials: a token is fetched, and again before it expires or once it is refused."""

    type: Literal["oauth2"]
    token_url: Annotated[HttpUrl, Field(description="where tokens are; the client's credentials go nowhere else")]
    client_id: Annotated[SecretStr, Field(min_length=1)]
    client_secret: Annotated[SecretStr, Field(min_length=1)]
    scope: Text | None = None
    params: Annotated[dict[Text, SecretStr], Field(description="more for the token request, such as audience")] = {}
    send: Annotated[
        Literal["header", "body"], Field(description="how the client's credentials are sent: basic header, or form")
    ] = "header"


AnyAuth = Annotated[BearerAuth | BasicAuth | ApiKeyAuth | OAuth2Auth, Field(discriminator="type")]


class Budget(Spec):
    """How much a run may ask of a server; attempts that failed count too."""

    requests: Annotated[int | None, Field(ge=1, description="requests of one run at most; then it fails")] = None
    per_second: Annotated[Finite | None, Field(gt=0, description="requests a second at most; then it waits")] = None

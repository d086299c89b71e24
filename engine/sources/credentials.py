"""What proves to a REST server who asks. It is sent to the url's own origin only."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from engine.spec import ApiSpec
from engine.spec.rest import ApiKeyAuth, BasicAuth, BearerAuth, OAuth2Auth

EARLY_SECONDS = 30.0  # a token is fetched anew so long before it expires

# Gets the answer to a form posted to a URL with headers, as JSON.
Post = Callable[[str, Mapping[str, str], Mapping[str, str]], bytes]


class Refused(Exception):  # noqa: N818 - for the caller to word
    """The answer to a token request holds no token."""


def basic(username: str, password: str) -> str:
    """The value of a header Authorization."""
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def fixed_headers(spec: ApiSpec) -> dict[str, str]:
    """Headers that never change."""
    auth = spec.auth
    if isinstance(auth, BearerAuth):
        return {"Authorization": f"Bearer {auth.token.get_secret_value()}"}
    if isinstance(auth, BasicAuth):
        return {"Authorization": basic(auth.username.get_secret_value(), auth.password.get_secret_value())}
    if isinstance(auth, ApiKeyAuth) and auth.where == "header":
        return {auth.name: auth.key.get_secret_value()}
    return {}


def fixed_params(spec: ApiSpec) -> dict[str, str]:
    """Query parameters that never change."""
    auth = spec.auth
    if isinstance(auth, ApiKeyAuth) and auth.where == "query":
        return {auth.name: auth.key.get_secret_value()}
    return {}


def forms(spec: ApiSpec) -> frozenset[str]:
    """How secrets look once they are encoded."""
    auth = spec.auth
    if isinstance(auth, BasicAuth):
        return frozenset({fixed_headers(spec)["Authorization"].partition(" ")[2]})
    return frozenset({_client(auth).partition(" ")[2]}) if isinstance(auth, OAuth2Auth) else frozenset()


def _client(auth: OAuth2Auth) -> str:
    """RFC 6749, 2.3.1: both are encoded as a form is."""
    return basic(quote_plus(auth.client_id.get_secret_value()), quote_plus(auth.client_secret.get_secret_value()))


@dataclass
class Token:
    """An OAuth 2 access token, fetched when it is first needed; from several threads at a time, once."""

    auth: OAuth2Auth
    post: Post
    learned: Callable[[str], object]
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._value: str | None = None
        self._until = float("inf")

    def header(self, refused: str | None = None) -> str:
        """The value of the header Authorization.

        Args:
            refused: what it was when the server answered 401; another one is fetched unless that has happened since.

        Raises:
            Refused: the answer to the request for a token holds none.
        """
        with self._lock:
            if self._value is None or self._value == refused or self.clock() >= self._until:
                self._value = self._fetched()
            return self._value

    def _fetched(self) -> str:
        auth = self.auth
        form = {"grant_type": "client_credentials"} | {k: v.get_secret_value() for k, v in auth.params.items()}
        if auth.scope:
            form["scope"] = auth.scope
        headers = {}
        if auth.send == "header":
            headers["Authorization"] = _client(auth)
        else:
            form |= {
                "client_id": auth.client_id.get_secret_value(),
                "client_secret": auth.client_secret.get_secret_value(),
            }
        begun = self.clock()
        token, seconds = _token(self.post(auth.token_url, form, headers))
        self.learned(token)
        self._until = float("inf") if seconds is None else begun + max(seconds - EARLY_SECONDS, seconds / 2)
        return f"Bearer {token}"


def _token(body: bytes) -> tuple[str, float | None]:
    """The token and the seconds that it holds."""
    try:
        said: Any = json.loads(body)
    except ValueError:
        raise Refused("it is not JSON") from None
    token = said.get("access_token") if isinstance(said, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token or " " in token:
        raise Refused("it has no access_token that could be sent")
    if str(said.get("token_type", "bearer")).lower() != "bearer":
        raise Refused("its token_type is not bearer")
    seconds = said.get("expires_in")
    if isinstance(seconds, str) and seconds.isdigit():  # some servers write it as a text
        seconds = int(seconds)
    timed = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0
    return token, float(seconds) if timed and seconds is not None else None

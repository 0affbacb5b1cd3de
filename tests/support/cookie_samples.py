"""Cookies signed by our code and by Tornado, for tests."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from tornado.web import create_signed_value

from stormcellar.lifetime import Lifetime
from stormcellar.sessions.cookie_attributes import CookieAttributes
from stormcellar.sessions.cookies import Cookies, SessionId
from stormcellar.sessions.signing import KeyRing
from tests.support.fakes import Clock

KEY = b"k" * 32
OTHER = b"o" * 32
MAX_AGE_S = Lifetime().absolute_s + 86_400


class Response(list[str]):
    """Collects Set-Cookie header lines."""

    def add_header(self, name: str, value: str) -> None:
        """Append one line."""
        assert name == "Set-Cookie"
        self.append(value)


def cookies(
    *keys: bytes,
    clock: Clock | None = None,
    **attributes: Any,
) -> Cookies:
    """Return a `Cookies` with these arguments of `CookieAttributes`."""
    return Cookies(
        KeyRing(keys or [KEY]),
        CookieAttributes(**attributes),
        max_age_s=MAX_AGE_S,
        clock=clock or Clock(),
    )


def written(by: Cookies, sid: SessionId) -> str:
    """Return the cookie value that *by* writes for *sid*."""
    response = Response()
    by.write(response, sid)
    return response[0].partition(";")[0].partition("=")[2]


def signed(value: str, *, name: str = "id", version: int = 2, age_s: float = 0) -> str:
    """Return *value* as Tornado signs it, signed *age_s* seconds ago."""
    clock = Clock()
    clock.advance(-age_s)
    key = {key_version(KEY): KEY} if version == 2 else KEY
    made = create_signed_value(
        key, name, value, version=version, clock=clock, key_version=key_version(KEY) if version == 2 else None
    )
    return made.decode()


def key_version(key: bytes) -> int:
    """Return the version of a key: the first two bytes of its SHA-256."""
    return int.from_bytes(sha256(key).digest()[:2], "big")

"""The session ID and its cookie. No other code reads or writes our cookies.

The cookie's value is `<handle>.<secret>`, signed in Tornado's format 2; about 190 bytes. The handle locates
the record and the secret authorises. The store has only the SHA-256 of the secret.
"""

from __future__ import annotations

import hashlib
import re
import secrets as random
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from stormcellar.sessions.cookie_attributes import CookieAttributes
from stormcellar.sessions.signing import KeyRing
from stormcellar.stores import Credential, Handle, Verifier

_SESSION_ID = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")
_HANDLE = re.compile(r"[A-Za-z0-9_-]{22}")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_NONCE = re.compile(r"[A-Za-z0-9_-]{43}")
_DEVICE = re.compile(r"[A-Za-z0-9_-]{22}")
# Characters of a secret that periodic renewal keeps and that forms are bound to: 96 bits; 160 are new.
_KEPT = 16
# A session cookie has about 190 bytes; the signature of a longer one is not checked.
_MAX_VALUE = 512
# An entry takes about 700 bytes.
_MAX_CACHED = 8192


def is_handle(text: str) -> bool:
    """Whether *text* has the form of a handle."""
    return _HANDLE.fullmatch(text) is not None


class CookieSink(Protocol):
    """The part of `tornado.web.RequestHandler` that takes outgoing cookies."""

    def add_header(self, name: str, value: str) -> None:
        """Add one header line to the response."""


@dataclass(frozen=True, slots=True)
class SessionId:
    """The session ID in the cookie. Its secret must not reach logs, stores or response bodies."""

    handle: Handle
    secret: str
    credential: Credential = field(init=False, compare=False)
    """What the store gets: the handle, and SHA-256 of the secret."""

    def __post_init__(self) -> None:
        verifier = Verifier(_base64url(hashlib.sha256(self.secret.encode()).digest()))
        object.__setattr__(self, "credential", Credential(self.handle, verifier))

    @classmethod
    def mint(cls, secret: str | None = None) -> Self:
        """Make a new ID from the system's random source: a handle of 128 bits and a secret of 256."""
        return cls(Handle(_base64url(random.token_bytes(16))), secret or mint_secret())

    def rotated(self) -> SessionId:
        """Return the same handle with a new secret."""
        return SessionId(self.handle, mint_secret())

    def renewed(self) -> SessionId:
        """Return the same handle with a new secret; forms bound to the old one stay valid."""
        return SessionId(self.handle, self.secret[:_KEPT] + mint_secret()[_KEPT:])

    @property
    def family(self) -> str:
        """What this ID has in common with those that periodic renewal makes of it, as a hash."""
        return _base64url(hashlib.sha256(self.secret[:_KEPT].encode()).digest())

    def __repr__(self) -> str:
        return f"SessionId({self.handle}.…)"


def form_basis(secret: str) -> str:
    """Return the part of a *secret*, or of a nonce, that form tokens are bound to."""
    return secret[:_KEPT]


def mint_secret() -> str:
    """Return 32 random bytes as 43 characters of base64url."""
    return _base64url(random.token_bytes(32))


def mint_device_token() -> str:
    """Return 16 random bytes as 22 characters of base64url."""
    return _base64url(random.token_bytes(16))


def _base64url(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).translate(_URL_SAFE, b"=").decode()


def _session_id(signed: bytes) -> SessionId | None:
    match = _SESSION_ID.fullmatch(signed.decode("latin1"))
    return SessionId(Handle(match[1]), match[2]) if match else None


def extract(headers: Sequence[str], name: str) -> str | None:
    """Return the value of the one cookie *name* in the raw Cookie *headers*; None if there are none or two.

    Names are compared byte by byte. Tornado's parser strips NBSP and NEL from names and uses the last
    duplicate, so an attacker could replace the cookie with one of a similar name.
    """
    if len(headers) == 1 and ";" not in headers[0]:
        # The fast path: most browsers have no other cookie of this site.
        pair = headers[0].strip(" \t")
        return pair[len(name) + 1 :] if pair.startswith(f"{name}=") else None
    found = _values(headers, name)
    return found[0] if len(found) == 1 else None


def _values(headers: Sequence[str], name: str) -> list[str]:
    wanted = name + "="
    return [
        pair[len(wanted) :]
        for header in headers
        for part in header.split(";")
        if (pair := part.strip(" \t")).startswith(wanted)
    ]


class Cookies:
    """Reads and writes our cookies: session ID, nonce of the forms of visitors, and device token.

    Args:
        attributes: Their names and attributes.
        max_age_s: How old a signature may be, in addition to the deadline in the store.
    """

    def __init__(
        self,
        keys: KeyRing,
        attributes: CookieAttributes,
        *,
        max_age_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.name = attributes.session_name
        self.nonce_name = attributes.nonce_name
        self.device_name = attributes.device_name
        self._keys = keys
        self._max_age_s = max_age_s
        self._clock = clock
        self._verified: dict[str, tuple[SessionId, int]] = {}
        self._verified_before: dict[str, tuple[SessionId, int]] = {}
        self._attributes = attributes.text

    def read(self, headers: Sequence[str]) -> SessionId | None:
        """Return the session ID, or None unless there is exactly one, with a valid and recent signature."""
        value = extract(headers, self.name)
        if value is None or len(value) > _MAX_VALUE or not value.isascii():
            return None
        verified = self._verified.get(value) or self._verify(value)
        if verified is None or verified[1] < self._clock() - self._max_age_s:
            return None
        return verified[0]

    def signed_s(self, headers: Sequence[str]) -> int | None:
        """Return when the session cookie was signed, in Unix seconds; None if its signature is invalid."""
        value = extract(headers, self.name) or ""
        verified = self._verified.get(value) or self._verify(value)
        return None if verified is None else verified[1]

    def _verify(self, value: str) -> tuple[SessionId, int] | None:
        """Return the session ID in *value* and when it was signed; cache both if they are valid."""
        verified = self._verified_before.get(value)
        if verified is None:
            signed = self._keys.verify(self.name, value)
            sid = _session_id(signed[0]) if signed is not None else None
            if signed is None or sid is None:
                return None
            verified = sid, signed[1]
        self._cache(value, verified)
        return verified

    def _cache(self, value: str, verified: tuple[SessionId, int]) -> None:
        """Cache *verified*: the same cookies come back again and again.

        There are two generations; when the newer one is full, the older one is dropped.
        """
        if len(self._verified) >= _MAX_CACHED:
            self._verified, self._verified_before = {}, self._verified
        self._verified[value] = verified

    def read_nonce(self, headers: Sequence[str]) -> str | None:
        """Return the nonce of a visitor without a session, if it is well formed."""
        value = extract(headers, self.nonce_name)
        return value if value and _NONCE.fullmatch(value) else None

    def read_device(self, headers: Sequence[str]) -> str | None:
        """Return the device token, if there is exactly one and it is well formed."""
        value = extract(headers, self.device_name)
        return value if value and _DEVICE.fullmatch(value) else None

    def is_presented(self, headers: Sequence[str]) -> bool:
        """Whether the raw Cookie *headers* contain a cookie with the name of the session cookie."""
        return any(_values(headers, self.name))

    def write(self, response: CookieSink, sid: SessionId, *, max_age_s: int | None = None) -> None:
        """Set the session cookie to *sid*, until the browser closes or for *max_age_s* seconds."""
        now_s = self._clock()
        value = self._keys.sign(self.name, f"{sid.handle}.{sid.secret}", clock=lambda: now_s)
        self._cache(value, (sid, int(now_s)))
        self._add(response, f"{self.name}={value}" + (f"; Max-Age={max_age_s}" if max_age_s else ""))

    def clear(self, response: CookieSink) -> None:
        """Delete the session cookie."""
        self._delete(response, self.name)

    def write_nonce(self, response: CookieSink, nonce: str) -> None:
        """Set the *nonce* cookie, to which the next form is bound."""
        self._add(response, f"{self.nonce_name}={nonce}")

    def clear_nonce(self, response: CookieSink) -> None:
        """Delete the nonce cookie."""
        self._delete(response, self.nonce_name)

    def write_device(self, response: CookieSink, token: str, *, max_age_s: int) -> None:
        """Set the device cookie to *token* for *max_age_s* seconds; a sign-out leaves it."""
        self._add(response, f"{self.device_name}={token}; Max-Age={max_age_s}")

    def _delete(self, response: CookieSink, name: str) -> None:
        self._add(response, f"{name}=; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0")

    def _add(self, response: CookieSink, pair: str) -> None:
        response.add_header("Set-Cookie", pair + self._attributes)

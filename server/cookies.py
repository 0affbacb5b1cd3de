"""The session ID, its cookie, and the keys that sign it. The only code that reads or writes our cookies.

The cookie's value is Tornado's signed value (format 2) of `<handle>.<secret>`, about 190 bytes. The handle
locates the record, the secret authorises; the store knows only SHA-256 of the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets as random
from base64 import urlsafe_b64encode
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

from tornado.web import decode_signed_value

from stores import Credential, Handle, Verifier

_SESSION_ID = re.compile(rb"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")
# Of a session ID in base64.
_LENGTH = 88
_NONCE = re.compile(r"[A-Za-z0-9_-]{43}")
# RFC 6265bis, 4.1.1: the characters of a cookie's name.
_COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
# Browsers hold cookies with these to conditions of their own (RFC 6265bis, 4.1.3).
_RESERVED = ("__host-", "__secure-", "__http-")
# What periodic renewal keeps of a secret, and forms are bound to: 96 bits of it, so that 160 are new.
_KEPT = 16
# A signed value of ours has about 190 bytes; longer ones are not worth a signature check.
_MAX_VALUE = 512


SAMESITE = ("Lax", "Strict")


class CookieSink(Protocol):
    """The part of `tornado.web.RequestHandler` that takes outgoing cookies."""

    def add_header(self, name: str, value: str) -> None:
        """Add one header line to the response."""


class SessionId(NamedTuple):
    """What the cookie says. Keep the secret out of logs, stores and responses."""

    handle: Handle
    secret: str

    @classmethod
    def mint(cls, secret: str | None = None) -> Self:
        """Make a new ID from the system's randomness: 128 bits that locate, 256 that authorise."""
        return cls(Handle(random.token_urlsafe(16)), secret or mint_secret())

    def rotated(self) -> SessionId:
        """Return the same handle with a new secret."""
        return SessionId(self.handle, mint_secret())

    def renewed(self) -> SessionId:
        """Return the same handle with a secret that the forms of the old one still fit."""
        return SessionId(self.handle, self.secret[:_KEPT] + mint_secret()[_KEPT:])

    @property
    def credential(self) -> Credential:
        """What the store is shown: the handle, and SHA-256 of the secret."""
        digest = hashlib.sha256(self.secret.encode()).digest()
        return Credential(self.handle, Verifier(urlsafe_b64encode(digest).rstrip(b"=").decode()))

    def __repr__(self) -> str:
        return f"SessionId({self.handle}.…)"


def form_basis(secret: str) -> str:
    """Return the part of a *secret*, or of a nonce, that form tokens are bound to."""
    return secret[:_KEPT]


def mint_secret() -> str:
    """Return 32 random bytes as 43 characters of base64url."""
    return random.token_urlsafe(32)


class KeyRing:
    """Signing keys in order: the first signs, all verify.

    A key's version is the first two bytes of its SHA-256, so adding or dropping another key changes nothing.

    Raises:
        ValueError: No key, one shorter than 32 bytes, or two with one version.
    """

    def __init__(self, keys: Sequence[bytes | str]) -> None:
        if isinstance(keys, bytes | str) or not keys:
            raise ValueError("secrets must be a non-empty list of signing keys, the first of which signs")
        self._keys: dict[int, bytes] = {}
        for key in (k.encode() if isinstance(k, str) else k for k in keys):
            if len(key) < 32:
                raise ValueError(f"a signing key has {len(key)} bytes; at least 32 are needed")
            version = int.from_bytes(hashlib.sha256(key).digest()[:2], "big")
            if version in self._keys:
                raise ValueError("two signing keys have the same version; replace one of them")
            self._keys[version] = key
        self.first = next(iter(self._keys))
        # Copied for each use, which takes half as long as to begin with the key.
        self._keyed = {version: hmac.new(key, digestmod="sha256") for version, key in self._keys.items()}
        self._by_head = {
            f"2|{len(str(version))}:{version}|".encode(): keyed for version, keyed in self._keyed.items()
        }

    def sign(self, name: str, value: str, *, clock: Callable[[], float]) -> str:
        """Return *value* signed for the cookie *name*: byte for byte what `create_signed_value` makes."""
        encoded = b2a_base64(value.encode(), newline=False).decode()
        fields = (str(self.first), str(int(clock())), name, encoded)
        signed = "2|" + "".join(f"{len(field)}:{field}|" for field in fields)
        return signed + _mac(self._keyed[self.first], signed.encode()).decode()

    def verify(self, name: str, value: str, *, max_age_s: float, clock: Callable[[], float]) -> bytes | None:
        """Return what was signed for the cookie *name*, or None if anything about it is wrong or too old.

        Says what `decode_signed_value` says, which is asked of whatever does not have the shape of our own.
        """
        raw, days = value.encode(), max_age_s / 86_400
        at = raw.find(b"|", 2) + 1
        keyed, middle = self._by_head.get(raw[:at]), f"|{len(name)}:{name}|{_LENGTH}:".encode()
        time, start = raw[at + 3 : at + 13], at + 13 + len(middle)
        end = start + _LENGTH
        is_ours = raw[at : at + 3] == b"10:" and time.isdigit() and raw.startswith(middle, at + 13)
        if keyed is None or not is_ours or raw[end : end + 1] != b"|":
            # min_version=2, or a dict of keys makes any junk cookie an AssertionError (tornado.web, 6.6.1).
            return decode_signed_value(self._keys, name, value, days, clock=clock, min_version=2)
        if not hmac.compare_digest(raw[end + 1 :], _mac(keyed, raw[: end + 1])):
            return None
        if int(time) < clock() - days * 86_400:
            return None
        try:
            return a2b_base64(raw[start:end])
        except ValueError:
            return None

    def derive(self, purpose: str) -> list[bytes]:
        """Return a separate key for *purpose* from each signing key, in their order."""
        return [hmac.digest(key, f"stormcellar {purpose}".encode(), "sha256") for key in self._keys.values()]

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)}>"


def _mac(keyed: hmac.HMAC, message: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(message)
    return mac.hexdigest().encode()


def extract(headers: Sequence[str], name: str) -> str | None:
    """Return the value of the one cookie *name* in the raw Cookie *headers*; None if there are none or two.

    By exact bytes: Tornado's own parser strips NBSP and NEL from names and lets the last duplicate win, so
    that a planted look-alike would replace the real cookie.
    """
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


def check_cookie_name(name: str) -> None:
    """Raise ValueError for a *name* that the session cookie cannot have."""
    if not _COOKIE_NAME.fullmatch(name):
        raise ValueError(f"cookie name {name!r} must be 1 to 64 characters of an HTTP token")
    if name.lower().startswith(_RESERVED) or name == "pre":
        raise ValueError(f"cookie name {name!r} is reserved; the prefix __Host- is added by secure=True")


class Cookies:
    """Reads and writes the two cookies of ours: the session ID, and the nonce of forms before a session.

    Args:
        secure: `__Host-` names and the Secure attribute; without it plain names, for loopback only.
        max_age_s: How old a signature may be, as the last defence behind the store's own deadline.
        samesite: `Lax`, or `Strict`: then a link from another site arrives signed out.

    Raises:
        ValueError: A name or *samesite* that will not do.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        name: str,
        secure: bool,
        max_age_s: float,
        clock: Callable[[], float],
        samesite: str = "Lax",
    ) -> None:
        check_cookie_name(name)
        if samesite not in SAMESITE:
            raise ValueError(f"samesite must be one of {', '.join(SAMESITE)}, not {samesite!r}")
        prefix = "__Host-" if secure else ""
        self.name = prefix + name
        self.nonce_name = prefix + "pre"
        self._keys = keys
        self._max_age_s = max_age_s
        self._clock = clock
        self._attributes = f"; HttpOnly; Path=/; SameSite={samesite}" + ("; Secure" if secure else "")

    def read(self, headers: Sequence[str]) -> SessionId | None:
        """Return the session ID presented, or None unless exactly one well-formed, signed, recent one is."""
        value = extract(headers, self.name)
        if value is None or len(value) > _MAX_VALUE or not value.isascii():
            return None
        signed = self._keys.verify(self.name, value, max_age_s=self._max_age_s, clock=self._clock)
        match = _SESSION_ID.fullmatch(signed or b"")
        return SessionId(Handle(match[1].decode()), match[2].decode()) if match else None

    def read_nonce(self, headers: Sequence[str]) -> str | None:
        """Return the nonce presented by a visitor who has no session, if it is well formed."""
        value = extract(headers, self.nonce_name)
        return value if value and _NONCE.fullmatch(value) else None

    def is_presented(self, headers: Sequence[str]) -> bool:
        """Whether the raw Cookie *headers* hold anything under the name of the session ID."""
        return any(_values(headers, self.name))

    def write(self, response: CookieSink, sid: SessionId, *, max_age_s: int | None = None) -> None:
        """Give the browser *sid*, until it closes, or for *max_age_s* seconds."""
        value = self._keys.sign(self.name, f"{sid.handle}.{sid.secret}", clock=self._clock)
        self._add(response, f"{self.name}={value}" + (f"; Max-Age={max_age_s}" if max_age_s else ""))

    def clear(self, response: CookieSink) -> None:
        """Delete the session ID in the browser."""
        self._delete(response, self.name)

    def write_nonce(self, response: CookieSink, nonce: str) -> None:
        """Give the browser the *nonce* to which its next form is bound."""
        self._add(response, f"{self.nonce_name}={nonce}")

    def clear_nonce(self, response: CookieSink) -> None:
        """Delete the nonce in the browser."""
        self._delete(response, self.nonce_name)

    def _delete(self, response: CookieSink, name: str) -> None:
        self._add(response, f"{name}=; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0")

    def _add(self, response: CookieSink, pair: str) -> None:
        response.add_header("Set-Cookie", pair + self._attributes)

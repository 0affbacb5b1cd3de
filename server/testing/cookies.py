"""`CookieJar`: the cookies of a test client, by the rules of browsers.

Source: RFC 6265bis, 5.6 to 5.8. A Secure cookie is stored and sent over plain HTTP, too, as browsers do for a
server on the same machine. `http.cookiejar` does not, so a signed-in user would be a visitor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_SEPARATORS = re.compile(r"[;\x00-\x1f\x7f]")
_MAX_AGE = re.compile(r"-?\d+")
_MAX_BYTES = 4096


class CookieRefused(ValueError):
    """Browsers refuse this cookie, so it was not stored; the message says why, without its value."""


class CookieRefusedWarning(UserWarning):
    """A response set a cookie that browsers refuse."""


@dataclass(frozen=True, slots=True)
class _Cookie:
    name: str
    value: str
    path: str = "/"
    domain: str | None = None
    expires_ms: float | None = None
    """None: until the browser closes."""


class CookieJar(MutableMapping[str, str]):
    """The cookies for one host: a mapping from name to value.

    A cookie that is assigned is sent to every path until the browser closes. Values are as on the wire.

    Args:
        host: The host that the cookies are for.
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(self, host: str, now_ms: Callable[[], int]) -> None:
        self._host = host.lower()
        self._now_ms = now_ms
        self._cookies: dict[tuple[str, str | None, str], _Cookie] = {}

    def store(self, line: str, *, path: str = "/") -> None:
        """Store the cookie of the Set-Cookie header *line*, or delete the cookie that it expires.

        Args:
            path: Of the request that was answered.

        Raises:
            CookieRefused: Browsers refuse it.
        """
        pair, *rest = line.split(";")
        name, _, value = (part.strip() for part in pair.partition("="))
        attributes = {
            key.strip().lower(): text.strip() for key, _, text in (each.partition("=") for each in rest)
        }
        domain = attributes.get("domain", "").lower().removeprefix(".") or None
        given = attributes.get("path", "")
        cookie = _Cookie(
            name,
            value,
            path=given if given.startswith("/") else path.rpartition("/")[0] or "/",
            domain=domain,
            expires_ms=self._expiry_ms(attributes),
        )
        if fault := self._fault(cookie, attributes):
            raise CookieRefused(f"browsers refuse the cookie {name!r}: {fault}")
        key = (name, domain, cookie.path)
        self._cookies[key] = cookie
        if not self._is_live(cookie):
            del self._cookies[key]

    def header(self, path: str = "/") -> str:
        """Return the Cookie header of a request for *path*; empty if there is no cookie for it."""
        sent = [each for each in self._live() if _matches(path, each.path)]
        sent.sort(key=lambda each: len(each.path), reverse=True)
        return "; ".join(f"{each.name}={each.value}" for each in sent)

    def close_browser(self) -> None:
        """Delete the cookies that a browser drops when it closes: those without Max-Age and Expires."""
        self._cookies = {key: each for key, each in self._cookies.items() if each.expires_ms is not None}

    def _expiry_ms(self, attributes: dict[str, str]) -> float | None:
        age = attributes.get("max-age", "")
        if _MAX_AGE.fullmatch(age):
            return self._now_ms() + 1000 * int(age)
        try:
            return 1000 * parsedate_to_datetime(attributes.get("expires", "")).timestamp()
        except ValueError:  # there is none, or it is no date
            return None

    def _fault(self, cookie: _Cookie, attributes: dict[str, str]) -> str | None:
        """Return why browsers refuse *cookie*; None if they accept it."""
        prefix, is_secure, domain = cookie.name.lower(), "secure" in attributes, cookie.domain
        if not cookie.name:
            return "it has no name"
        if len(cookie.name) + len(cookie.value) > _MAX_BYTES:
            return f"it is longer than {_MAX_BYTES} bytes"
        if domain is not None and self._host != domain and not self._host.endswith(f".{domain}"):
            return f"its Domain is {domain}, and the client's host is {self._host}: Client(app, host=...)"
        if prefix.startswith(("__host-", "__secure-")) and not is_secure:
            return "a name with this prefix needs Secure"
        if prefix.startswith("__host-") and (domain is not None or attributes.get("path") != "/"):
            return "a name with the prefix __Host- needs Path=/ and no Domain"
        if attributes.get("samesite", "").lower() == "none" and not is_secure:
            return "SameSite=None needs Secure"
        if "partitioned" in attributes and not is_secure:
            return "Partitioned needs Secure"
        return None

    def _is_live(self, cookie: _Cookie) -> bool:
        return cookie.expires_ms is None or cookie.expires_ms > self._now_ms()

    def _live(self) -> Iterator[_Cookie]:
        return filter(self._is_live, list(self._cookies.values()))

    # --- the mapping ---

    def __getitem__(self, name: str) -> str:
        for each in self._live():
            if each.name == name:
                return each.value
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        if not name or "=" in name or _SEPARATORS.search(name + value):
            raise ValueError("a cookie needs a name without '=', and neither ';' nor control characters")
        self._cookies[name, None, "/"] = _Cookie(name, value)

    def __delitem__(self, name: str) -> None:
        self[name]  # raises KeyError
        self._cookies = {key: each for key, each in self._cookies.items() if each.name != name}

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(each.name for each in self._live()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<CookieJar {', '.join(self)}>"


def _matches(path: str, cookie_path: str) -> bool:
    """Whether a cookie with *cookie_path* is sent with a request for *path*."""
    return path == cookie_path or path.startswith(cookie_path.removesuffix("/") + "/")

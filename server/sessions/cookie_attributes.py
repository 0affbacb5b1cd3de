"""`CookieAttributes`: the names and attributes of our cookies, and which of them browsers accept together.

Sources: RFC 6265bis 4.1 and 5.7; CHIPS (draft-cutler-httpbis-partitioned-cookies) for Partitioned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from stormcellar.addresses import host_name

# RFC 6265bis, 4.1.1: the characters of a cookie's name.
_COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
# Browsers have extra rules for cookies with these prefixes (RFC 6265bis, 4.1.3).
_RESERVED_PREFIXES = ("__host-", "__secure-", "__http-")
# Browsers send a partitioned cookie and an older one without Partitioned together, if the name is the same.
_PARTITIONED_SUFFIX = "-partitioned"
# The other cookies are named after the session cookie: browsers send the cookies of a host to all its ports.
_NONCE_SUFFIX = "-form"
_DEVICE_SUFFIX = "-device"
# Browsers read a host whose last label is a number as an IPv4 address (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")

DEFAULT_NAME = "id"
DEFAULT_SAMESITE = "Lax"
SAMESITE = ("Lax", "Strict", "None")
PRIORITY = ("Low", "Medium", "High")


class NeedsSecure(ValueError):
    """An argument that is for Secure cookies only; *reason* says why."""

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(argument, reason)
        self.argument = argument
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.argument}: {self.reason}; it also needs secure=True"


@dataclass(frozen=True, slots=True)
class CookieAttributes:
    """The names and attributes of our cookies. Texts are accepted in any case of letters.

    Args:
        name: Of the session cookie, without what the other arguments add to it.
        secure: Add Secure, and the prefix `__Host-`, or `__Secure-` with a *domain*.
        samesite: `Lax`, `Strict` or `None`.
        domain: Also send the cookies to the subdomains of this domain. None: to this host alone.
        partitioned: Keep separate cookies under each site that shows this one in a frame (CHIPS).
        priority: `Low`, `Medium` or `High`: which cookies Chromium keeps if a domain has too many.

    Raises:
        NeedsSecure: An argument is for Secure cookies only. A ValueError.
        ValueError: An argument is not valid, or has no effect.
    """

    name: str = DEFAULT_NAME
    secure: bool = False
    samesite: str = DEFAULT_SAMESITE
    domain: str | None = None
    partitioned: bool = False
    priority: str | None = None

    def __post_init__(self) -> None:
        check_cookie_name(self.name)
        object.__setattr__(self, "samesite", parse_samesite(self.samesite))
        if self.priority is not None:
            object.__setattr__(self, "priority", _one_of("cookie_priority", self.priority, PRIORITY))
        if self.domain is not None:
            object.__setattr__(self, "domain", parse_cookie_domain(self.domain))
        if not self.secure:
            self._require_none_for_secure_cookies()
        if self.partitioned and self.samesite != "None":
            raise ValueError(
                "cookie_partitioned has no effect without samesite='None': browsers send no other cookie to "
                "a frame of another site"
            )

    def _require_none_for_secure_cookies(self) -> None:
        if self.domain is not None:
            reason = "over plain HTTP, anybody on the network could set the cookies of the whole domain"
            raise NeedsSecure("cookie_domain", reason)
        if self.partitioned:
            raise NeedsSecure("cookie_partitioned", "browsers refuse Partitioned without Secure")
        if self.samesite == "None":
            raise NeedsSecure("samesite", "browsers refuse SameSite=None without Secure")

    @property
    def session_name(self) -> str:
        """The name of the session cookie.

        Cookies that differ in Domain or Partitioned have different names: a browser keeps both, and with two
        session cookies there is no session.
        """
        prefix = ("__Secure-" if self.domain else "__Host-") if self.secure else ""
        return prefix + self.name + (_PARTITIONED_SUFFIX if self.partitioned else "")

    @property
    def nonce_name(self) -> str:
        """The name of the nonce cookie, to which the forms of visitors are bound."""
        return self.session_name + _NONCE_SUFFIX

    @property
    def device_name(self) -> str:
        """The name of the device cookie, by which an account knows a browser."""
        return self.session_name + _DEVICE_SUFFIX

    @property
    def text(self) -> str:
        """The attributes of every cookie that is set or deleted, from the first `;`.

        A browser deletes a cookie only if Domain, Path and Partitioned are the same.
        """
        return (
            f"; HttpOnly; Path=/; SameSite={self.samesite}"
            + ("; Secure" if self.secure else "")
            + (f"; Domain={self.domain}" if self.domain else "")
            + ("; Partitioned" if self.partitioned else "")
            + (f"; Priority={self.priority}" if self.priority else "")
        )


def check_cookie_name(name: str) -> None:
    """Raise ValueError if *name* is not valid for the session cookie."""
    if not _COOKIE_NAME.fullmatch(name):
        raise ValueError(f"cookie name {name!r} must be 1 to 64 characters of an HTTP token")
    if name.lower().startswith(_RESERVED_PREFIXES):
        raise ValueError(f"cookie name {name!r} is reserved; the prefix is added by secure=True")
    for suffix in (_NONCE_SUFFIX, _DEVICE_SUFFIX, _PARTITIONED_SUFFIX):
        if name.endswith(suffix):
            raise ValueError(f"cookie name {name!r} is reserved; choose one that does not end in {suffix}")


def parse_samesite(text: str) -> str:
    """Return *text* as `Lax`, `Strict` or `None`.

    Raises:
        ValueError: It is something else.
    """
    return _one_of("samesite", text, SAMESITE)


def _one_of(argument: str, value: object, choices: Sequence[str]) -> str:
    for each in choices:
        if isinstance(value, str) and value.lower() == each.lower():
            return each
    # Without the value: on a command line it can be a password that was meant for another option.
    raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}")


def parse_cookie_domain(text: str) -> str:
    """Return *text*, a domain whose subdomains may share cookies, in lower case.

    Raises:
        ValueError: It is not a domain name, or many sites are under it; or the list of such names is missing.
    """
    name = host_name(text)
    if name is None or name != text.lower():
        raise ValueError(
            "a cookie domain must be a name such as example.org: no dot at either end, no scheme, no port, "
            "no path, and an international name in its ASCII form (xn--)"
        )
    if name.startswith("[") or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError("this cookie domain is an address: browsers share cookies between names alone")
    if _is_public_suffix(name):
        raise ValueError(
            "this cookie domain is a public suffix, so browsers refuse it: every site under it would get the "
            "cookie; use your own domain under it"
        )
    return name


@lru_cache(maxsize=8)
def _is_public_suffix(name: str) -> bool:
    """Whether everybody may register names under *name*: `co.uk`, `github.io`, and every single label.

    To read the list takes a tenth of a second, and settings ask several times.
    """
    if "." not in name:
        return True
    try:
        from publicsuffixlist import PublicSuffixList
    except ImportError:
        raise ValueError(
            "a cookie domain needs the list of public suffixes: pip install 'stormcellar[domain]'"
        ) from None
    return PublicSuffixList().is_public(name)


def is_within(host: str, domain: str) -> bool:
    """Whether *host* is *domain* or under it, so that browsers accept its cookies for *domain*.

    Args:
        host: In the normal form of `addresses.host_name`.
    """
    return host == domain or host.endswith(f".{domain}")

"""The types of options: how a value is written on the command line, and how it is read."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormcellar.addresses import Network, host_name
from stormcellar.lifetime import MAX_S
from stormcellar.sessions.cookie_attributes import check_cookie_name, parse_cookie_domain, parse_samesite
from stormcellar.stores import StoreOptions
from stormcellar.stores.records import check_keys

MAX_DURATION_S = MAX_S

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,9})(KB|MB|GB)")
_UNIT_BYTES = {"GB": 2**30, "MB": 2**20, "KB": 2**10}
_UNIT_S = {"d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}


def duration_s(text: str) -> float:
    """Return the seconds of a duration such as `500ms`, `90s`, `30m`, `12h` or `7d`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("a duration is a number with a unit: 500ms, 90s, 30m, 12h or 7d")
    seconds = float(match[1]) * _UNIT_S[match[2]]
    if not 0.001 <= seconds <= MAX_DURATION_S:
        raise ValueError("a duration is at least 1ms and at most ten years")
    return seconds


def duration_text(seconds: float) -> str:
    """Return *seconds* as a duration in the largest unit that fits: `90s` for 90, `12h` for 43 200."""
    for unit, unit_s in _UNIT_S.items():
        if (count := round(seconds / unit_s, 6)).is_integer() and count >= 1:
            return f"{count:.0f}{unit}"
    return f"{seconds * 1000:g}ms"


def _integer(text: str, least: int, most: int) -> int:
    # At most nine digits: the conversion of a long text takes quadratic time.
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ValueError(f"it must be a whole number from {least} to {most}")
    return int(text)


def pause_s(text: str) -> float:
    """Return the seconds of a duration, which can be `0s`."""
    return 0.0 if text in ("0", "0s") else duration_s(text)


def pause_text(seconds: float) -> str:
    """Return *seconds* as a duration, which can be `0s`."""
    return duration_text(seconds) if seconds else "0s"


def size_bytes(text: str) -> int:
    """Return the bytes of a size such as `64MB` or `2GB`; 1MB is 1024 KB, as in Redis."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("a size is a whole number with a unit: 500KB, 64MB or 2GB")
    size = int(match[1]) * _UNIT_BYTES[match[2]]
    if not _UNIT_BYTES["MB"] <= size <= 1024 * _UNIT_BYTES["GB"]:
        raise ValueError("a size is at least 1MB and at most 1024GB")
    return size


def size_text(size: int) -> str:
    """Return *size* in the largest unit in which it is a whole number."""
    unit = next(name for name, unit_bytes in _UNIT_BYTES.items() if size % unit_bytes == 0)
    return f"{size // _UNIT_BYTES[unit]}{unit}"


def _port(text: str) -> int:
    return _integer(text, 0, 65_535)


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if text != "localhost":
            raise ValueError("it must be an IP address of this machine, or localhost") from None
    return text


def _networks(text: str) -> tuple[Network, ...]:
    try:
        networks = tuple(ipaddress.ip_network(part.strip()) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(
            "it must be networks such as 127.0.0.1/32,10.0.0.0/8, without bits set behind the prefix"
        ) from None
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("it includes every address; name only those of the proxy")
    return networks


def _hosts(text: str) -> tuple[str, ...]:
    """Return the host names in order, in the normal form of `addresses.host_name`."""
    parts = [part.strip() for part in text.split(",")] if text else []
    hosts = [host_name(part) for part in parts if not re.search(r":\d*$", part) or part.endswith("]")]
    if len(hosts) != len(parts) or None in hosts:
        raise ValueError("it must be host names such as example.org,www.example.org, without a port")
    return tuple(dict.fromkeys(filter(None, hosts)))


def _count(text: str) -> int:
    return _integer(text, 1, 1_000_000)


def _processes(text: str) -> int:
    return _integer(text, 1, 256)


def _keys(text: str) -> frozenset[str]:
    keys = frozenset(key.strip() for key in text.split(",")) if text else frozenset()
    try:
        check_keys(keys)
    except ValueError:
        raise ValueError(
            "it must be keys such as cart,lang: a letter or _, then at most 63 letters, digits, _ : or -"
        ) from None
    return keys


def _cookie_name(text: str) -> str:
    try:
        check_cookie_name(text)
    except ValueError:
        raise ValueError(
            "it must be 1 to 64 characters of an HTTP token; names that begin with __Host-, __Secure- or "
            "__Http-, or end in -form, -device or -partitioned, are reserved"
        ) from None
    return text


def _prefix(text: str) -> str:
    return StoreOptions(prefix=text).prefix


def _path(text: str) -> Path:
    if not text:
        raise ValueError("it must be the name of a file or directory")
    return Path(text).absolute()


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return text

    return parse


def _boolean(text: str) -> bool:
    if text.lower() not in ("1", "0", "true", "false", "yes", "no"):
        raise ValueError("it must be true or false")
    return text.lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class OptionType:
    """The type of an option: its name in `--help`, how to parse a text, how to write a value."""

    metavar: str
    parse: Callable[[str], Any]
    """Returns the value, or raises ValueError: one line that says what a valid value is."""
    text: Callable[[Any], str] = str


ADDRESS = OptionType("IP", _address)
COOKIE_DOMAIN = OptionType("DOMAIN", parse_cookie_domain)
COOKIE_NAME = OptionType("NAME", _cookie_name)
COUNT = OptionType("N", _count)
DIRECTORY = OptionType("DIR", _path)
FILE = OptionType("FILE", _path)
FLAG = OptionType("", _boolean)
HOSTS = OptionType("NAME,...", _hosts)
KEYS = OptionType("KEY,...", _keys)
NETWORKS = OptionType("CIDR,...", _networks)
PAUSE = OptionType("TIME", pause_s, pause_text)
PORT = OptionType("PORT", _port)
PREFIX = OptionType("TEXT", _prefix)
PROCESSES = OptionType("N", _processes)
SAMESITE = OptionType("MODE", parse_samesite, str.lower)
SIZE = OptionType("SIZE", size_bytes, size_text)
TIME = OptionType("TIME", duration_s, duration_text)
URL = OptionType("URL", str)


def time_between(least_s: float, most_s: float) -> OptionType:
    """Return the type of an option that takes a duration within these limits."""

    def parse(text: str) -> float:
        if not least_s <= (seconds := duration_s(text)) <= most_s:
            raise ValueError(f"it must be from {duration_text(least_s)} to {duration_text(most_s)}")
        return seconds

    return OptionType("TIME", parse, duration_text)


def one_of(metavar: str, choices: tuple[str, ...]) -> OptionType:
    """Return the type of an option that takes one of *choices*."""
    return OptionType(metavar, _one_of(choices))

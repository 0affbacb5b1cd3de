"""Every option of the standalone server, once: its flag, its variable, its default and what it takes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.cookies import COOKIE_NAME
from server.network import Network
from stores.base import check_keys

ENVIRONMENT_PREFIX = "STORMCELLAR_"
LOG_LEVELS = ("debug", "info", "warning", "error")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration_s(text: str) -> float:
    """Return the seconds in a duration such as `500ms`, `90s`, `30m`, `12h` or `7d`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("a duration needs a unit: 500ms, 90s, 30m, 12h or 7d")
    return float(match[1]) * _UNIT_S[match[2]]


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise ValueError("a port is a number from 0 (any free one) to 65535")
    return int(text)


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if text != "localhost":
            raise ValueError("an IP address to listen on, or localhost") from None
    return text


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",")) if text else ()
    except ValueError as exc:
        raise ValueError(f"one or more networks such as 127.0.0.1/32,10.0.0.0/8 ({exc})") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise ValueError("a whole number from 1")
    return int(text)


def _processes(text: str) -> int:
    if _positive(text) > 256:
        raise ValueError("at most 256 processes")
    return int(text)


def _keys(text: str) -> frozenset[str]:
    keys = frozenset(key.strip() for key in text.split(",")) if text else frozenset()
    check_keys(keys)
    return keys


def _cookie_name(text: str) -> str:
    if not COOKIE_NAME.fullmatch(text):
        raise ValueError("1 to 64 letters, digits or characters of !#$%&'*+.^_`|~-")
    return text


def _log_level(text: str) -> str:
    if text not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
    return text


def _boolean(text: str) -> bool:
    if text.lower() not in ("1", "0", "true", "false", "yes", "no"):
        raise ValueError("true or false")
    return text.lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class Option:
    """One setting: `--a-name` on the command line, `STORMCELLAR_A_NAME` in the environment."""

    name: str
    parse: Callable[[str], Any]
    default: str | None
    metavar: str
    help: str

    @property
    def flag(self) -> str:
        """How the command line spells it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """How the environment spells it."""
        return ENVIRONMENT_PREFIX + self.name.upper()


OPTIONS = (
    Option("port", _port, "8888", "PORT", "TCP port; 0 takes a free one"),
    Option("address", _address, "127.0.0.1", "IP", "listen here; beyond loopback needs --behind-proxy"),
    Option("store", str, "memory", "URL", "where sessions live: memory, redis, mongo, or a store URL"),
    Option("store_prefix", str, "stormcellar", "TEXT", "begins every key, channel and collection name"),
    Option("store_timeout", duration_s, "2s", "TIME", "budget of one store call, retries included"),
    Option("store_connect_timeout", duration_s, "1s", "TIME", "budget of one connection to the store"),
    Option("idle", duration_s, "30m", "TIME", "a signed-in session ends after this long without activity"),
    Option("absolute", duration_s, "12h", "TIME", "a session ends this long after sign-in, active or not"),
    Option("anonymous_idle", duration_s, "30m", "TIME", "the same as --idle, for visitors not signed in"),
    Option("touch_after", duration_s, "1m", "TIME", "reads record activity at most this often"),
    Option("max_sessions_per_user", _positive, None, "N", "a sign-in beyond it ends the oldest"),
    Option("cookie_name", _cookie_name, "id", "NAME", "of the session cookie; __Host- is added behind TLS"),
    Option("secret_file", Path, None, "FILE", "signing keys, one a line; made if missing"),
    Option("accounts", Path, None, "FILE", "the accounts, as `accounts add` writes them"),
    Option("data_dir", Path, "var", "DIR", "holds the files that are not named otherwise"),
    Option("behind_proxy", _networks, "", "CIDR,...", "where the TLS proxy in front is; cookies are Secure"),
    Option("processes", _processes, "1", "N", "server processes; needs a shared store above 1"),
    Option("carry", _keys, "", "KEY,...", "session keys that survive sign-in"),
    Option("log_level", _log_level, "info", "LEVEL", f"one of {', '.join(LOG_LEVELS)}"),
    Option("demo", _boolean, None, "", "a demo account in memory with a random password"),
)

"""Every option of the standalone server, once: its flag, its variable, its default and what it takes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormcellar.addresses import Network, host_name
from stormcellar.sessions.cookies import check_cookie_name
from stormcellar.stores import StoreOptions
from stormcellar.stores.records import check_keys

ENVIRONMENT_PREFIX = "STORMCELLAR_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
SAMESITE = ("lax", "strict")
MAX_DURATION_S = 10 * 366 * 86_400

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_UNIT_S = {"d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}


def duration_s(text: str) -> float:
    """Return the seconds in a duration such as `500ms`, `90s`, `30m`, `12h` or `7d`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("a duration is a number with a unit: 500ms, 90s, 30m, 12h or 7d")
    seconds = float(match[1]) * _UNIT_S[match[2]]
    if not 0.001 <= seconds <= MAX_DURATION_S:
        raise ValueError("a duration is at least 1ms and at most ten years")
    return seconds


def duration_text(seconds: float) -> str:
    """Return *seconds* as a person would give them: `90s` for 90, `12h` for 43 200."""
    for unit, unit_s in _UNIT_S.items():
        if (count := round(seconds / unit_s, 6)).is_integer() and count >= 1:
            return f"{count:.0f}{unit}"
    return f"{seconds * 1000:g}ms"


def _integer(text: str, least: int, most: int) -> int:
    # Longer than any of them is not worth a conversion, which takes quadratic time.
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ValueError(f"a whole number from {least} to {most}")
    return int(text)


def _port(text: str) -> int:
    return _integer(text, 0, 65_535)


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if text != "localhost":
            raise ValueError("an IP address of this machine, or localhost") from None
    return text


def _networks(text: str) -> tuple[Network, ...]:
    try:
        networks = tuple(ipaddress.ip_network(part.strip()) for part in text.split(",")) if text else ()
    except ValueError as exc:
        raise ValueError(f"one or more networks such as 127.0.0.1/32,10.0.0.0/8 ({exc})") from None
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("that is everybody; name the addresses of the proxy alone")
    return networks


def _hosts(text: str) -> tuple[str, ...]:
    """Return the host names in their order, as `network.host_name` writes them."""
    parts = [part.strip() for part in text.split(",")] if text else []
    hosts = [host_name(part) for part in parts if not re.search(r":\d*$", part) or part.endswith("]")]
    if len(hosts) != len(parts) or None in hosts:
        raise ValueError("one or more host names such as example.org,www.example.org, without a port")
    return tuple(dict.fromkeys(filter(None, hosts)))


def _count(text: str) -> int:
    return _integer(text, 1, 1_000_000)


def _processes(text: str) -> int:
    return _integer(text, 1, 256)


def _keys(text: str) -> frozenset[str]:
    keys = frozenset(key.strip() for key in text.split(",")) if text else frozenset()
    check_keys(keys)
    return keys


def _cookie_name(text: str) -> str:
    check_cookie_name(text)
    return text


def _prefix(text: str) -> str:
    return StoreOptions(prefix=text).prefix


def _path(text: str) -> Path:
    if not text:
        raise ValueError("the name of a file or directory")
    return Path(text).absolute()


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return parse


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
    otherwise: str = "none"
    """What holds where the default says nothing."""

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
    Option(
        "address", _address, "127.0.0.1", "IP", "listen here; beyond loopback needs TLS or a proxy with it"
    ),
    Option("store", str, "memory", "URL", "where sessions live: memory, redis, mongo, or a store URL"),
    Option("store_prefix", _prefix, "stormcellar", "TEXT", "begins every key, channel and collection name"),
    Option("store_timeout", duration_s, "2s", "TIME", "budget of one store call, retries included"),
    Option("store_connect_timeout", duration_s, "1s", "TIME", "budget of one connection to the store"),
    Option("idle", duration_s, "30m", "TIME", "a signed-in session ends after this long without activity"),
    Option("absolute", duration_s, "12h", "TIME", "a session ends this long after sign-in, active or not"),
    Option("anonymous_idle", duration_s, "30m", "TIME", "the same as --idle, for visitors not signed in"),
    Option("touch_after", duration_s, "1m", "TIME", "reads record activity at most this often"),
    Option("remember", duration_s, None, "TIME", "people may ask to stay signed in so long", "not offered"),
    Option("remember_idle", duration_s, None, "TIME", "and so long without activity", "as --remember"),
    Option("renew", duration_s, None, "TIME", "gives a session in use a new ID so often", "never"),
    Option("reauth", duration_s, "10m", "TIME", "after it, changes to an account ask for the password"),
    Option("max_sessions_per_user", _count, None, "N", "a sign-in beyond it ends the oldest", "no limit"),
    Option("login_attempts", _count, "5", "N", "wrong passwords, for an account from an address"),
    Option(
        "login_attempts_per_address", _count, "50", "N", "and from that address in all; then it must wait"
    ),
    Option("visitors_per_address", _count, "1000", "N", "sessions that visitors begin from it in an hour"),
    Option("cookie_name", _cookie_name, "id", "NAME", "of the session cookie; __Host- is added with TLS"),
    Option("cookie_samesite", _one_of(SAMESITE), "lax", "MODE", f"one of {', '.join(SAMESITE)}"),
    Option("secret_file", _path, None, "FILE", "signing keys; made if missing", "secret.keys in --data-dir"),
    Option("accounts", _path, None, "FILE", "see accounts --help", "accounts.json in --data-dir"),
    Option("data_dir", _path, "var", "DIR", "holds the files that are not named otherwise"),
    Option("tls_cert", _path, None, "FILE", "serve TLS with this certificate and its chain, in PEM"),
    Option("tls_key", _path, None, "FILE", "the private key of --tls-cert, readable by its owner only"),
    Option("tls_key_password_file", _path, None, "FILE", "the pass phrase of --tls-key, in its first line"),
    Option("http_redirect_port", _port, None, "PORT", "send plain HTTP from here to TLS; 0 takes a free one"),
    Option("hsts_subdomains", _boolean, "false", "", "TLS is for the subdomains of this host too"),
    Option("behind_proxy", _networks, "", "CIDR,...", "where the TLS proxy in front is; cookies are Secure"),
    Option("allowed_hosts", _hosts, "", "NAME,...", "what this server is called; other hosts get 421", "any"),
    Option("processes", _processes, "1", "N", "server processes; above 1 needs a shared store"),
    Option("carry", _keys, "", "KEY,...", "session keys that survive sign-in"),
    Option("log_level", _one_of(LOG_LEVELS), "info", "LEVEL", f"one of {', '.join(LOG_LEVELS)}"),
    Option("log_format", _one_of(LOG_FORMATS), "text", "FORMAT", f"one of {', '.join(LOG_FORMATS)}"),
    Option("audit_log", _path, None, "FILE", "security events, a line of JSON each", "standard error"),
    Option("demo", _boolean, None, "", "an account with a random password", "while there are no accounts"),
)

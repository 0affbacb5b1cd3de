"""The table of options: for each its name, type, default and purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from stormcellar.accounts.throttle import Rules
from stormcellar.accounts.visitor_limit import DEFAULT_PER_ADDRESS
from stormcellar.lifetime import Lifetime
from stormcellar.runtime import option_types as types
from stormcellar.runtime.connections import MOST_BY_DEFAULT
from stormcellar.runtime.option_types import OptionType
from stormcellar.sessions.absence import DEFAULT_ON_REUSE, OnReuse
from stormcellar.sessions.cookie_attributes import SAMESITE, CookieAttributes
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.stores import StoreOptions

ENVIRONMENT_PREFIX = "STORMCELLAR_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
DATA_FILES = {"secret_file": "secret.keys", "accounts": "accounts.json"}
"""The files in the data directory, by the option that overrides the path."""


@dataclass(frozen=True)
class Option:
    """One setting: the flag `--a-name`, and the environment variable `STORMCELLAR_A_NAME`."""

    name: str
    type: OptionType
    default_value: Any
    """The default, as a value or as a text; None if there is none, or if it depends on other settings."""
    help: str
    otherwise: str = "none"
    """What `--help` shows where there is no fixed default."""

    @property
    def default(self) -> str | None:
        """The default as text; None if there is no fixed one."""
        return None if self.default_value is None else self.type.text(self.default_value)

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return flag_of(self.name)

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return ENVIRONMENT_PREFIX + self.name.upper()


def flag_of(name: str) -> str:
    """Return the flag of the option *name*."""
    return "--" + name.replace("_", "-")


# A default that belongs to a part of the library is read from there.
_LIFETIME = Lifetime()
_STORE = StoreOptions()
_RECHECKS = Rechecks()
_COOKIES = CookieAttributes()
_THROTTLE = Rules()

OPTIONS = (
    Option("port", types.PORT, "8888", "TCP port; 0 selects a free one"),
    Option(
        "address",
        types.ADDRESS,
        "127.0.0.1",
        "the address to listen on; beyond loopback it needs TLS, or a TLS proxy",
    ),
    Option(
        "store", types.URL, "memory", "where sessions are stored: memory, sqlite:PATH, redis, mongo, or a URL"
    ),
    Option(
        "store_prefix", types.PREFIX, _STORE.prefix, "the beginning of every key, channel and collection name"
    ),
    Option("store_timeout", types.TIME, _STORE.timeout_s, "time-out of one store call, including retries"),
    Option(
        "store_connect_timeout",
        types.TIME,
        _STORE.connect_timeout_s,
        "time-out of one connection to the store",
    ),
    Option(
        "recheck",
        types.time_between(1, 3600),
        _RECHECKS.every_s,
        "ask the store this often whether the sessions of open event streams are live",
    ),
    Option(
        "max_memory",
        types.SIZE,
        _STORE.max_memory,
        "what the sessions of the memory store may take",
    ),
    Option("idle", types.TIME, _LIFETIME.idle_s, "end a signed-in session after this time without activity"),
    Option(
        "absolute", types.TIME, _LIFETIME.absolute_s, "end a session this long after sign-in, active or not"
    ),
    Option("anonymous_idle", types.TIME, _LIFETIME.anonymous_s, "the same as --idle, for visitors"),
    Option(
        "anonymous_remember",
        types.TIME,
        _LIFETIME.anonymous_remember_s,
        "keep the sessions of visitors this long after their last visit",
        "until the browser closes",
    ),
    Option(
        "touch_after",
        types.TIME,
        _LIFETIME.touch_after_s,
        "record the activity of reads at most this often",
    ),
    Option(
        "remember",
        types.TIME,
        _LIFETIME.remember_s,
        'offer "Keep me signed in" for this time',
        "not offered",
    ),
    Option(
        "remember_idle",
        types.TIME,
        _LIFETIME.remember_idle_s,
        "idle limit of those who are kept signed in",
        "as --remember",
    ),
    Option("renew", types.TIME, _LIFETIME.renew_s, "give a session in use a new ID after this time", "never"),
    Option(
        "on_reuse",
        types.one_of("POLICY", get_args(OnReuse)),
        DEFAULT_ON_REUSE,
        "if an ID that --renew replaced comes back later: log it, or end the session",
    ),
    Option(
        "reauth", types.TIME, _LIFETIME.reauth_s, "ask for the password again this long after the last proof"
    ),
    Option(
        "max_sessions_per_user",
        types.COUNT,
        _LIFETIME.max_per_user,
        "sessions of one user; a sign-in above it ends the oldest",
        "no limit",
    ),
    Option(
        "login_attempts",
        types.COUNT,
        _THROTTLE.attempts,
        "wrong passwords for one account from one address before a wait",
    ),
    Option(
        "login_attempts_per_address",
        types.COUNT,
        _THROTTLE.attempts_per_address,
        "wrong passwords from one address before a wait",
    ),
    Option(
        "visitors_per_address",
        types.COUNT,
        DEFAULT_PER_ADDRESS,
        "new sessions of visitors from one address in an hour",
    ),
    Option(
        "cookie_name",
        types.COOKIE_NAME,
        _COOKIES.name,
        "name of the session cookie; with TLS, __Host- is added",
    ),
    Option(
        "cookie_samesite",
        types.SAMESITE,
        _COOKIES.samesite,
        f"SameSite of the cookies: {', '.join(SAMESITE).lower()}",
    ),
    Option(
        "cookie_domain",
        types.COOKIE_DOMAIN,
        _COOKIES.domain,
        "share the cookies with the subdomains of this domain",
        "this host only",
    ),
    Option(
        "secret_file",
        types.FILE,
        None,
        "signing keys, created if missing",
        f"{DATA_FILES['secret_file']} in --data-dir",
    ),
    Option(
        "accounts",
        types.FILE,
        None,
        "the account file",
        f"{DATA_FILES['accounts']} in --data-dir",
    ),
    Option("data_dir", types.DIRECTORY, "var", "directory of the signing keys and the account file"),
    Option("tls_cert", types.FILE, None, "serve TLS with this certificate and its chain (PEM)"),
    Option("tls_key", types.FILE, None, "the private key of --tls-cert (PEM, mode 0600)"),
    Option(
        "tls_key_password_file",
        types.FILE,
        None,
        "a file with the pass phrase of --tls-key in its first line",
    ),
    Option(
        "http_redirect_port", types.PORT, None, "port that redirects plain HTTP to TLS; 0 selects a free one"
    ),
    Option("hsts_subdomains", types.FLAG, "false", "extend HSTS to the subdomains of this host"),
    Option("behind_proxy", types.NETWORKS, "", "networks of the TLS proxy in front; makes cookies Secure"),
    Option("allowed_hosts", types.HOSTS, "", "host names of this server; other hosts get 421", "any"),
    Option(
        "max_connections",
        types.COUNT,
        None,
        "connections of a process at once",
        f"what the limit of descriptors allows, at most {MOST_BY_DEFAULT}",
    ),
    Option(
        "max_connections_per_address",
        types.COUNT,
        None,
        "connections of one address to a process at once; not for --behind-proxy",
        "a quarter of --max-connections",
    ),
    Option(
        "drain",
        types.PAUSE,
        None,
        "when stopping, answer 503 on /readyz for this time before the port is closed",
        "5s; 0s on loopback without --behind-proxy",
    ),
    Option("processes", types.PROCESSES, "1", "server processes; more than 1 need a shared store"),
    Option("carry", types.KEYS, "", "session keys that survive sign-in"),
    Option(
        "log_level",
        types.one_of("LEVEL", LOG_LEVELS),
        "info",
        f"lowest level to log: {', '.join(LOG_LEVELS)}",
    ),
    Option(
        "log_format",
        types.one_of("FORMAT", LOG_FORMATS),
        "text",
        f"format of the log: {', '.join(LOG_FORMATS)}",
    ),
    Option("audit_log", types.FILE, None, "security events, one JSON object per line", "standard error"),
    Option("demo", types.FLAG, None, "a demo account with a random password", "while there are no accounts"),
)

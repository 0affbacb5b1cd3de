"""Every option of the standalone server, once: its flag, its variable, its default and what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stormcellar.accounts.throttle import Rules
from stormcellar.accounts.visitor_limit import DEFAULT_PER_ADDRESS
from stormcellar.lifetime import Lifetime
from stormcellar.runtime import option_types as types
from stormcellar.runtime.option_types import OptionType
from stormcellar.sessions import cookies
from stormcellar.stores import StoreOptions

ENVIRONMENT_PREFIX = "STORMCELLAR_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
SAMESITE = tuple(each.lower() for each in cookies.SAMESITE)
DATA_FILES = {"secret_file": "secret.keys", "accounts": "accounts.json"}
"""The files in the data directory, by the option that names another one."""


@dataclass(frozen=True)
class Option:
    """One setting: `--a-name` on the command line, `STORMCELLAR_A_NAME` in the environment."""

    name: str
    type: OptionType
    default_value: Any
    """The default: a value, or a text; None where another setting decides."""
    help: str
    otherwise: str = "none"
    """What holds where the default says nothing."""

    @property
    def default(self) -> str | None:
        """The default as the command line spells it."""
        return None if self.default_value is None else self.type.text(self.default_value)

    @property
    def flag(self) -> str:
        """How the command line spells it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """How the environment spells it."""
        return ENVIRONMENT_PREFIX + self.name.upper()


# Where a default belongs to a part of the library, the table reads it from there.
_LIFETIME = Lifetime()
_STORE = StoreOptions()
_THROTTLE = Rules()

OPTIONS = (
    Option("port", types.PORT, "8888", "TCP port; 0 takes a free one"),
    Option(
        "address", types.ADDRESS, "127.0.0.1", "listen here; beyond loopback needs TLS or a proxy with it"
    ),
    Option("store", types.URL, "memory", "where sessions live: memory, redis, mongo, or a store URL"),
    Option("store_prefix", types.PREFIX, _STORE.prefix, "begins every key, channel and collection name"),
    Option("store_timeout", types.TIME, _STORE.timeout_s, "budget of one store call, retries included"),
    Option(
        "store_connect_timeout", types.TIME, _STORE.connect_timeout_s, "budget of one connection to the store"
    ),
    Option("idle", types.TIME, _LIFETIME.idle_s, "a signed-in session ends after this long without activity"),
    Option(
        "absolute", types.TIME, _LIFETIME.absolute_s, "a session ends this long after sign-in, active or not"
    ),
    Option(
        "anonymous_idle", types.TIME, _LIFETIME.anonymous_s, "the same as --idle, for visitors not signed in"
    ),
    Option("touch_after", types.TIME, _LIFETIME.touch_after_s, "reads record activity at most this often"),
    Option(
        "remember",
        types.TIME,
        _LIFETIME.remember_s,
        "people may ask to stay signed in so long",
        "not offered",
    ),
    Option(
        "remember_idle",
        types.TIME,
        _LIFETIME.remember_idle_s,
        "and so long without activity",
        "as --remember",
    ),
    Option("renew", types.TIME, _LIFETIME.renew_s, "gives a session in use a new ID so often", "never"),
    Option("reauth", types.TIME, _LIFETIME.reauth_s, "after it, changes to an account ask for the password"),
    Option(
        "max_sessions_per_user",
        types.COUNT,
        _LIFETIME.max_per_user,
        "a sign-in beyond it ends the oldest",
        "no limit",
    ),
    Option(
        "login_attempts", types.COUNT, _THROTTLE.attempts, "wrong passwords, for an account from an address"
    ),
    Option(
        "login_attempts_per_address",
        types.COUNT,
        _THROTTLE.attempts_per_address,
        "and from that address in all; then it must wait",
    ),
    Option(
        "visitors_per_address",
        types.COUNT,
        DEFAULT_PER_ADDRESS,
        "sessions that visitors begin from it in an hour",
    ),
    Option(
        "cookie_name",
        types.COOKIE_NAME,
        cookies.DEFAULT_NAME,
        "of the session cookie; __Host- is added with TLS",
    ),
    Option(
        "cookie_samesite",
        types.one_of("MODE", SAMESITE),
        cookies.DEFAULT_SAMESITE.lower(),
        f"one of {', '.join(SAMESITE)}",
    ),
    Option(
        "secret_file",
        types.FILE,
        None,
        "signing keys; made if missing",
        f"{DATA_FILES['secret_file']} in --data-dir",
    ),
    Option("accounts", types.FILE, None, "see accounts --help", f"{DATA_FILES['accounts']} in --data-dir"),
    Option("data_dir", types.DIRECTORY, "var", "holds the files that are not named otherwise"),
    Option("tls_cert", types.FILE, None, "serve TLS with this certificate and its chain, in PEM"),
    Option("tls_key", types.FILE, None, "the private key of --tls-cert, readable by its owner only"),
    Option("tls_key_password_file", types.FILE, None, "the pass phrase of --tls-key, in its first line"),
    Option("http_redirect_port", types.PORT, None, "send plain HTTP from here to TLS; 0 takes a free one"),
    Option("hsts_subdomains", types.FLAG, "false", "TLS is for the subdomains of this host too"),
    Option("behind_proxy", types.NETWORKS, "", "where the TLS proxy in front is; cookies are Secure"),
    Option("allowed_hosts", types.HOSTS, "", "what this server is called; other hosts get 421", "any"),
    Option("processes", types.PROCESSES, "1", "server processes; above 1 needs a shared store"),
    Option("carry", types.KEYS, "", "session keys that survive sign-in"),
    Option("log_level", types.one_of("LEVEL", LOG_LEVELS), "info", f"one of {', '.join(LOG_LEVELS)}"),
    Option("log_format", types.one_of("FORMAT", LOG_FORMATS), "text", f"one of {', '.join(LOG_FORMATS)}"),
    Option("audit_log", types.FILE, None, "security events, a line of JSON each", "standard error"),
    Option("demo", types.FLAG, None, "an account with a random password", "while there are no accounts"),
)

"""The settings of the standalone server, and what follows from them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from stormcellar.addresses import Network, is_loopback
from stormcellar.app.edge import Edge
from stormcellar.lifetime import Lifetime
from stormcellar.private_files import describe
from stormcellar.runtime import option_types as types
from stormcellar.runtime.connections import MOST_BY_DEFAULT, ConnectionLimits, possible_connections
from stormcellar.runtime.options import DATA_FILES, OPTIONS, flag_of
from stormcellar.sessions.absence import OnReuse
from stormcellar.stores import Store, open_store

DRAIN_S = 5.0
"""Half of the time after which `docker stop` kills; two failed checks of most balancers."""

LIFETIME_OPTIONS = {
    "idle_s": "idle",
    "absolute_s": "absolute",
    "anonymous_s": "anonymous_idle",
    "anonymous_remember_s": "anonymous_remember",
    "touch_after_s": "touch_after",
    "remember_s": "remember",
    "remember_idle_s": "remember_idle",
    "renew_s": "renew",
    "reauth_s": "reauth",
    "max_per_user": "max_sessions_per_user",
}
"""The fields of `Lifetime`, each with the option that sets it."""

PATHS = tuple(option.name for option in OPTIONS if option.type in (types.FILE, types.DIRECTORY))
"""The options whose value is the path of a file or directory."""


class SettingsError(ValueError):
    """The settings are not valid. `problems` holds one line for each problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def report(self) -> int:
        """Print the problems on standard error and return the exit status, 2."""
        for line in str(self).splitlines():
            print(f"stormcellar: {line}", file=sys.stderr)
        return 2


@dataclass(frozen=True)
class Settings:
    """The parsed options, one field each; where they were given; what follows from them."""

    port: int
    address: str
    store: str = field(repr=False)  # can contain a password
    store_prefix: str
    store_timeout: float
    store_connect_timeout: float
    recheck: float
    max_memory: int
    idle: float
    absolute: float
    anonymous_idle: float
    anonymous_remember: float | None
    touch_after: float
    remember: float | None
    remember_idle: float | None
    renew: float | None
    on_reuse: OnReuse
    reauth: float
    max_sessions_per_user: int | None
    login_attempts: int
    login_attempts_per_address: int
    visitors_per_address: int
    cookie_name: str
    cookie_samesite: str
    cookie_domain: str | None
    secret_file: Path
    accounts: Path
    data_dir: Path
    tls_cert: Path | None
    tls_key: Path | None
    tls_key_password_file: Path | None
    http_redirect_port: int | None
    hsts_subdomains: bool
    behind_proxy: tuple[Network, ...]
    allowed_hosts: tuple[str, ...]
    max_connections: int | None
    max_connections_per_address: int | None
    drain: float | None
    processes: int
    carry: frozenset[str]
    log_level: str
    log_format: str
    audit_log: Path | None
    demo: bool
    given: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The options that were given, each with its source: `--port` or `STORMCELLAR_PORT`."""

    def label(self, option: str) -> str:
        """Return how a message names *option*: by its source, or by its flag if it was not given."""
        return self.given.get(option, flag_of(option))

    def path_label(self, option: str) -> str:
        """Return the label of the option that determines the path of the file *option*."""
        in_data_dir = option in DATA_FILES and option not in self.given
        return self.label("data_dir" if in_data_dir else option)

    def place(self, option: str) -> str:
        """Return how a message names the path of *option*, which `path_label` names.

        A path that was given and does not exist is not repeated: it may be a secret in the wrong place.
        """
        path, label = getattr(self, option), self.path_label(option)
        is_default = not {option, "data_dir"}.intersection(self.given)
        if is_default or os.path.lexists(path):
            return str(path)
        if option not in DATA_FILES:
            return f"of {label}"
        return f"the file of {label}" if option in self.given else f"{DATA_FILES[option]} in {label}"

    def describe(self, error: OSError | ValueError, option: str = "") -> str:
        """Return *error* in one line, after the label of the option of its file, or of *option*."""
        name = error.filename if isinstance(error, OSError) else None
        found = [each for each in PATHS if name is not None and os.fspath(name) == str(getattr(self, each))]
        labels = [self.path_label(each) for each in found or filter(None, [option])]
        return ": ".join([*labels[:1], describe(error)])

    @property
    def secure(self) -> bool:
        """Whether browsers reach this server over TLS, its own or that of a proxy."""
        return bool(self.tls_cert or self.behind_proxy)

    @property
    def edge(self) -> Edge:
        """How browsers reach this server."""
        return Edge(
            trusted_proxies=self.behind_proxy,
            allowed_hosts=self.allowed_hosts,
            is_secure=self.secure,
            has_tls=self.tls_cert is not None,
            hsts_subdomains=self.hsts_subdomains,
        )

    @property
    def store_kind(self) -> str:
        """The part of the store URL before the colon; the rest can contain a password."""
        return self.store.partition(":")[0]

    @property
    def lifetime(self) -> Lifetime:
        """The limits of a session's life; those that were not given yield to those that were."""
        given = {field: name for field, name in LIFETIME_OPTIONS.items() if name in self.given}
        return Lifetime(**{field: getattr(self, name) for field, name in given.items()})

    def open_store(self) -> Store:
        """Create the store. Does no I/O."""
        return open_store(
            self.store,
            prefix=self.store_prefix,
            timeout_s=self.store_timeout,
            connect_timeout_s=self.store_connect_timeout,
            max_memory=self.max_memory,
        )

    @property
    def connection_limits(self) -> ConnectionLimits:
        """The limits on the connections of a process."""
        most = self.max_connections or min(MOST_BY_DEFAULT, possible_connections())
        return ConnectionLimits(most, self.max_connections_per_address or max(1, most // 4))

    @property
    def drain_s(self) -> float:
        """How long the server goes on at a stop while `/readyz` answers 503."""
        if self.drain is not None:
            return self.drain
        # Without a proxy nobody asks /readyz of a server on loopback: it is a developer's.
        return DRAIN_S if self.behind_proxy or not is_loopback(self.address) else 0.0


assert [*(option.name for option in OPTIONS), "given"] == [field.name for field in fields(Settings)]

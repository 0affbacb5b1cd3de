"""The settings of the standalone server, and the rules that hold between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from server.lifetime import Lifetime
from server.network import Network, is_loopback
from server.options import ENVIRONMENT_PREFIX, OPTIONS, Option
from stores import Store, open_store


class ConfigError(ValueError):
    """What is wrong with the settings, one line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Settings:
    """What a server is run with: one field per option, parsed, and what follows from them."""

    port: int
    address: str
    store: str
    store_prefix: str
    store_timeout: float
    store_connect_timeout: float
    idle: float
    absolute: float
    anonymous_idle: float
    touch_after: float
    max_sessions_per_user: int | None
    cookie_name: str
    secret_file: Path
    accounts: Path
    data_dir: Path
    behind_proxy: tuple[Network, ...]
    processes: int
    carry: frozenset[str]
    log_level: str
    demo: bool

    @property
    def secure(self) -> bool:
        """Whether browsers reach this server over TLS."""
        return bool(self.behind_proxy)

    @property
    def lifetime(self) -> Lifetime:
        """The limits of a session's life."""
        return Lifetime(
            idle_s=self.idle,
            absolute_s=self.absolute,
            anonymous_s=self.anonymous_idle,
            touch_after_s=self.touch_after,
            max_per_user=self.max_sessions_per_user,
        )

    def open_store(self) -> Store:
        """Make the store; no I/O."""
        return open_store(
            self.store,
            prefix=self.store_prefix,
            timeout_s=self.store_timeout,
            connect_timeout_s=self.store_connect_timeout,
        )


def read_settings(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Settings:
    """Return the settings of *flags* over *environment* over the defaults.

    Raises:
        ConfigError: Everything that is wrong, one line each.
    """
    parsed = _parse(OPTIONS, flags, environment)
    problems = _fill_in(parsed)
    settings = Settings(**parsed)
    problems += _contradictions(settings)
    if problems:
        raise ConfigError(*problems)
    return settings


def account_path(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Path:
    """Return where the account file is or will be.

    Raises:
        ConfigError: Everything that is wrong, one line each.
    """
    parsed = _parse([o for o in OPTIONS if o.name in ("data_dir", "accounts")], flags, environment)
    return Path(parsed["accounts"] or parsed["data_dir"] / "accounts.json")


def _parse(
    options: Iterable[Option], flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> dict[str, Any]:
    problems = _unknown_variables(environment)
    parsed: dict[str, Any] = {}
    for option in options:
        text, where = _given(option, flags, environment)
        try:
            parsed[option.name] = option.parse(text) if text is not None else None
        except ValueError as exc:
            problems.append(f"{where}: {text!r} will not do: {exc}")
    if problems:
        raise ConfigError(*problems)
    return parsed


def _fill_in(parsed: dict[str, Any]) -> list[str]:
    """Put in the defaults that depend on other settings; return what is wrong with those given."""
    problems = []
    if parsed["accounts"] is not None and not parsed["accounts"].exists():
        problems.append(f"--accounts: {parsed['accounts']} does not exist; make it with: accounts add NAME")
    parsed["secret_file"] = parsed["secret_file"] or parsed["data_dir"] / "secret.keys"
    parsed["accounts"] = parsed["accounts"] or parsed["data_dir"] / "accounts.json"
    obstacles = _demo_obstacles(parsed)
    if parsed["demo"]:
        problems += [f"--demo: {obstacle}" for obstacle in obstacles]
    parsed["demo"] = not obstacles if parsed["demo"] is None else parsed["demo"]
    return problems


def _given(
    option: Option, flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> tuple[str | None, str]:
    if (text := flags.get(option.name)) is not None:
        return text, option.flag
    return environment.get(option.variable, option.default), option.variable


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    known = {option.variable for option in OPTIONS}
    unknown = sorted(n for n in environment if n.startswith(ENVIRONMENT_PREFIX) and n not in known)
    return [f"{name}: there is no such setting" for name in unknown]


def _demo_obstacles(parsed: Mapping[str, Any]) -> list[str]:
    obstacles = []
    if parsed["accounts"].exists():
        obstacles.append(f"there are real accounts in {parsed['accounts']}")
    if not is_loopback(parsed["address"]):
        obstacles.append("a demo account is for loopback only")
    if parsed["behind_proxy"]:
        obstacles.append("a demo account is not for a server behind a proxy")
    return obstacles


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if not is_loopback(settings.address) and not settings.behind_proxy:
        problems.append(
            f"--address: {settings.address} would serve plain HTTP beyond this machine; "
            "put a TLS proxy in front and name it with --behind-proxy"
        )
    try:
        _ = settings.lifetime
    except ValueError as exc:
        problems.append(_in_flags(str(exc)))
    try:
        store = settings.open_store()
    except ValueError as exc:
        problems.append(f"--store: {exc}")
    else:
        if settings.processes > 1 and not store.shared:
            problems.append("--processes: above 1 needs a store that processes share, such as redis or mongo")
    return problems


def _in_flags(message: str) -> str:
    """Say the names of the limits as the command line does."""
    for name, option in {
        "max_per_user": "--max-sessions-per-user",
        "anonymous_s": "--anonymous-idle",
        "absolute_s": "--absolute",
        "touch_after_s": "--touch-after",
        "idle_s": "--idle",
    }.items():
        message = message.replace(name, option)
    return message


assert [option.name for option in OPTIONS] == [field.name for field in fields(Settings)]

"""Load the settings of the standalone server from flags, environment and defaults."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from stormcellar.addresses import is_loopback
from stormcellar.runtime.options import DATA_FILES, ENVIRONMENT_PREFIX, OPTIONS, Option
from stormcellar.runtime.settings import Settings, SettingsError
from stormcellar.runtime.settings_checks import find_problems


def load_settings(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Settings:
    """Return the settings: a flag overrides a variable of *environment*, which overrides the default.

    Raises:
        SettingsError: One line for each problem.
    """
    parsed = _parse(OPTIONS, flags, environment)
    given = _sources(flags, environment)
    problems = _set_dependent_defaults(parsed, given)
    settings = Settings(**parsed, given=given)
    problems += find_problems(settings)
    if problems:
        raise SettingsError(*problems)
    return settings


def file_path(name: str, flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Path:
    """Return the path of the file of the option *name*, `accounts` or `secret_file`.

    Raises:
        SettingsError: One line for each problem.
    """
    return _file_path(name, _parse([o for o in OPTIONS if o.name in ("data_dir", name)], flags, environment))


def _file_path(name: str, parsed: Mapping[str, Any]) -> Path:
    return Path(parsed[name] or parsed["data_dir"] / DATA_FILES[name])


def _parse(
    options: Iterable[Option], flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> dict[str, Any]:
    problems = _unknown_variables(environment)
    parsed: dict[str, Any] = {}
    for option in options:
        text, where = _given(option, flags, environment)
        try:
            parsed[option.name] = option.type.parse(text) if text is not None else None
        except ValueError as exc:
            # Without the value: it can be a password that was meant for another option.
            problems.append(f"{where}: {exc}")
    if problems:
        raise SettingsError(*problems)
    return parsed


def _given(
    option: Option, flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> tuple[str | None, str]:
    if (text := flags.get(option.name)) is not None:
        return text, option.flag
    return environment.get(option.variable, option.default), option.variable


def _sources(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the options that are given, each with the flag or the variable that gives it."""
    by_variable = {option.name: option.variable for option in OPTIONS if option.variable in environment}
    return by_variable | {
        option.name: option.flag for option in OPTIONS if flags.get(option.name) is not None
    }


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    known = [option.variable for option in OPTIONS]
    unknown = sorted(n for n in environment if n.startswith(ENVIRONMENT_PREFIX) and n not in known)
    hints = [did_you_mean(name, known, prefix=ENVIRONMENT_PREFIX) for name in unknown]
    return [f"{name}: unknown setting{hint}" for name, hint in zip(unknown, hints, strict=True)]


def did_you_mean(given: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return `; did you mean X?` for the most similar of *known*; an empty text if none is similar.

    Args:
        prefix: Common prefix, ignored when comparing.
    """
    names = [name.removeprefix(prefix) for name in known]
    matches = get_close_matches(given.removeprefix(prefix), names, n=1)
    return "".join(f"; did you mean {prefix}{match}?" for match in matches)


def _set_dependent_defaults(parsed: dict[str, Any], given: Mapping[str, str]) -> list[str]:
    """Set the defaults that depend on other settings; return the problems."""
    problems = []
    is_named, path = parsed["accounts"] is not None, _file_path("accounts", parsed)
    if is_named and not os.path.exists(path):
        problems.append(f"{given['accounts']}: the file does not exist; create it with: accounts add NAME")
    parsed["accounts"] = path
    parsed["secret_file"] = _file_path("secret_file", parsed)
    reasons = _reasons_against_demo(parsed)
    if parsed["demo"]:
        problems += [f"{given['demo']}: {reason}" for reason in reasons]
    parsed["demo"] = not reasons if parsed["demo"] is None else parsed["demo"]
    return problems


def _reasons_against_demo(parsed: Mapping[str, Any]) -> list[str]:
    reasons = []
    if os.path.exists(parsed["accounts"]):
        reasons.append(f"the account file {parsed['accounts']} exists")
    if not is_loopback(parsed["address"]):
        reasons.append("a demo account is allowed on loopback only")
    if parsed["behind_proxy"]:
        reasons.append("a demo account is not allowed behind a proxy")
    if parsed["tls_cert"]:
        reasons.append("a demo account is not allowed with TLS")
    return reasons

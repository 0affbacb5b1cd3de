"""The command line: `serve` (the default), `accounts`, `secret`, `doctor`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import NoReturn

from stormcellar.cli import secret
from stormcellar.private_files import describe
from stormcellar.runtime.load_settings import did_you_mean, file_path, load_settings
from stormcellar.runtime.options import OPTIONS, Option
from stormcellar.runtime.settings import SettingsError

_EPILOG = """\
commands:
  serve                      run the server; the default
  accounts add NAME          also list, disable, enable, remove, passwd; see accounts --help
  secret rotate              also list, drop; see secret --help
  doctor                     check the configuration and the store

Each option can also be set in the environment: --store-prefix as STORMCELLAR_STORE_PREFIX.
TIME has a unit: 500ms, 90s, 30m, 12h, 7d. FILE and DIR are relative to the current directory."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the problem in one line and exit with 2."""
        # argparse repeats a value in quotes, after the option or at the end.
        told, *quoted = re.split("['\"]", message, maxsplit=1)
        if quoted:
            told = f"{told.partition(': ')[0]}: it takes no value"
        self.exit(2, f"stormcellar: {told}; see --help\n")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse *arguments*. Unknown ones raise SettingsError, with one line for each.

        The lines repeat names only: the value after a mistyped flag can be a password.
        """
        # Without "intermixed" argparse does not accept NAME after an option.
        parsed, unknown = self.parse_known_intermixed_args(arguments)
        if not unknown:
            return parsed
        flags = [each.partition("=")[0] for each in unknown if each.startswith("-")]
        known = [each for each in self._option_string_actions if each.startswith("--")]
        problems = [
            f"{_shown(flag)}: unknown option{did_you_mean(flag, known, prefix='--')}" for flag in flags
        ]
        raise SettingsError(
            *(problems or ["too many arguments; a command and its name must come first; see --help"])
        )


def _shown(flag: str) -> str:
    """Return *flag* if it looks like the name of an option; else it can be a secret that begins with -."""
    return flag if re.fullmatch(r"-[a-z]|--[a-z]+(-[a-z]+)*", flag) and len(flag) < 40 else "-…"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return the exit status.

    0: success. 1: the command failed, or doctor found a problem. 2: settings or arguments are not valid. 130:
    an interrupt during the start.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _command(arguments)(arguments)
    except SettingsError as exc:
        return exc.report()
    except ModuleNotFoundError as exc:
        if exc.name != "argon2":
            raise
        return SettingsError("argon2-cffi is not installed: pip install 'stormcellar[server]'").report()
    except KeyboardInterrupt:
        return 130


def _command(arguments: list[str]) -> Callable[[list[str]], int]:
    """Remove the command from *arguments* and return its function."""
    if not arguments or arguments[0].startswith("-"):
        return _serve
    name = arguments.pop(0)
    if name not in _COMMANDS:
        raise SettingsError(
            f"unknown command; it must be one of {', '.join(_COMMANDS)}{did_you_mean(name, _COMMANDS)}"
        )
    return _COMMANDS[name]


def _serve(arguments: list[str]) -> int:
    parser = _settings_parser("", "Run the login server.")
    settings = load_settings(_flags(parser.parse(arguments)), os.environ)
    # Imported here, so that the other commands do not load the handlers.
    from stormcellar.runtime.startup import serve

    return serve(settings)


def _doctor(arguments: list[str]) -> int:
    parser = _settings_parser(" doctor", "Check the settings, files, ports and store that serve would use.")
    settings = load_settings(_flags(parser.parse(arguments)), os.environ)
    from stormcellar.cli import doctor

    return doctor.run(settings)


def _accounts(arguments: list[str]) -> int:
    from stormcellar.cli import accounts

    parser = _action_parser("accounts", "Manage the account file.", accounts.ACTIONS, "data_dir", "accounts")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the account; not with list")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parsed = _parse_action(parser, arguments, accounts.ACTIONS)
    if (parsed.action == "list") != (parsed.name is None):
        parser.error(f"accounts {parsed.action} takes {'no' if parsed.name else 'a'} NAME")
    path = file_path("accounts", _flags(parsed), os.environ)
    return _print_result(
        lambda: accounts.run(parsed.action, path, parsed.name, password_stdin=parsed.password_stdin)
    )


def _secret(arguments: list[str]) -> int:
    parser = _action_parser("secret", "Manage the signing keys.", secret.ACTIONS, "data_dir", "secret_file")
    parser.add_argument("key", nargs="?", metavar="KEY", help="number or version of the key to drop")
    parsed = _parse_action(parser, arguments, secret.ACTIONS)
    if (parsed.action == "drop") != (parsed.key is not None):
        parser.error(f"secret {parsed.action} takes {'no' if parsed.key else 'a'} KEY")
    path = file_path("secret_file", _flags(parsed), os.environ)
    return _print_result(lambda: secret.run(parsed.action, path, parsed.key))


def _action_parser(command: str, description: str, actions: Sequence[str], *options: str) -> _Parser:
    parser = _Parser(prog=f"{_program()} {command}", description=description, allow_abbrev=False)
    parser.add_argument("action", metavar="ACTION", help=f"one of {', '.join(actions)}")
    for option in OPTIONS:
        if option.name in options:
            _add(parser, option)
    return parser


def _parse_action(parser: _Parser, arguments: list[str], actions: Sequence[str]) -> argparse.Namespace:
    parsed = parser.parse(arguments)
    if parsed.action not in actions:
        parser.error(f"ACTION is one of {', '.join(actions)}")
    return parsed


def _print_result(act: Callable[[], str]) -> int:
    """Print the result of *act* and return 0, or print its error in one line and return 1."""
    try:
        print(act())
    except (OSError, ValueError) as exc:
        print(f"stormcellar: {describe(exc)}", file=sys.stderr)
        return 1
    return 0


def _settings_parser(command: str, description: str) -> _Parser:
    parser = _Parser(
        prog=_program() + command,
        description=description,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    for option in OPTIONS:
        _add(parser, option)
    return parser


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    text = f"{option.help} (default: {option.default or option.otherwise})"
    if option.type.metavar:
        parser.add_argument(option.flag, dest=option.name, metavar=option.type.metavar, help=text)
    else:
        parser.add_argument(option.flag, dest=option.name, action=argparse.BooleanOptionalAction, help=text)


def _flags(parsed: argparse.Namespace) -> dict[str, str | None]:
    given = {option.name: getattr(parsed, option.name, None) for option in OPTIONS}
    return {name: None if value is None else str(value) for name, value in given.items()}


def _program() -> str:
    return os.path.basename(sys.argv[0]) or "stormcellar"


def _version() -> str:
    try:
        return metadata.version("stormcellar")
    except metadata.PackageNotFoundError:
        return "not installed"


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "serve": _serve,
    "accounts": _accounts,
    "secret": _secret,
    "doctor": _doctor,
}

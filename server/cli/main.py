"""The command line: `serve` (the default), `accounts`, `secret`, `doctor`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import NoReturn

from stormcellar.cli import secret as rotation
from stormcellar.private_files import describe
from stormcellar.runtime.load_settings import did_you_mean, file_path, load_settings
from stormcellar.runtime.options import OPTIONS, Option
from stormcellar.runtime.settings import SettingsError

_COMMANDS = """\
commands:
  serve                      serve; the default
  accounts add NAME          and list, disable, enable, remove, passwd; see accounts --help
  secret rotate              and list, drop; see secret --help
  doctor                     check the configuration and the store

Each option is also read from the environment: --store-prefix from STORMCELLAR_STORE_PREFIX.
TIME has a unit: 500ms, 90s, 30m, 12h, 7d. FILE and DIR count from the current directory."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line."""
        self.exit(2, f"stormcellar: {message}; see --help\n")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse *arguments*, or exit with one line for each that is unknown.

        Of those only the names are repeated: after a flag mistyped comes a value that may be a password.
        """
        # Intermixed, or a NAME after an option is not taken for one.
        parsed, unknown = self.parse_known_intermixed_args(arguments)
        if not unknown:
            return parsed
        flags = [each.partition("=")[0] for each in unknown if each.startswith("-")]
        known = [each for each in self._option_string_actions if each.startswith("--")]
        problems = [
            f"{flag}: there is no such option{did_you_mean(flag, known, prefix='--')}" for flag in flags
        ]
        raise SettingsError(
            *(problems or ["too many arguments; commands and their names come first; see --help"])
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return the exit status.

    0 is success, 1 something that failed or was found wrong, 2 settings or arguments that will not do, 130
    an interrupt before there was anything to end in order.
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
    """Take the command off *arguments* and return what runs it."""
    if not arguments or arguments[0].startswith("-"):
        return _serve
    name = arguments.pop(0)
    if name not in _RUN:
        raise SettingsError(f"there is no such command; one of {', '.join(_RUN)}{did_you_mean(name, _RUN)}")
    return _RUN[name]


def _serve(arguments: list[str]) -> int:
    parser = _settings_parser("", "Serve sessions and sign-in over HTTP.")
    settings = load_settings(_flags(parser.parse(arguments)), os.environ)
    # Imported here, so that `accounts` needs neither an event loop nor the handlers.
    from stormcellar.runtime.serve import serve

    return serve(settings)


def _doctor(arguments: list[str]) -> int:
    parser = _settings_parser(" doctor", "Check what serve would use.")
    settings = load_settings(_flags(parser.parse(arguments)), os.environ)
    from stormcellar.cli.doctor import examine

    return examine(settings)


def _accounts(arguments: list[str]) -> int:
    from stormcellar.cli import accounts as admin

    parser = _action_parser("accounts", "Manage the account file.", admin.ACTIONS, "data_dir", "accounts")
    parser.add_argument("name", nargs="?", metavar="NAME", help="whose account; list takes none")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parsed = _parse_action(parser, arguments, admin.ACTIONS)
    if (parsed.action == "list") != (parsed.name is None):
        parser.error(f"accounts {parsed.action} takes {'no' if parsed.name else 'a'} NAME")
    path = file_path("accounts", _flags(parsed), os.environ)
    return _told(lambda: admin.run(parsed.action, path, parsed.name, password_stdin=parsed.password_stdin))


def _secret(arguments: list[str]) -> int:
    parser = _action_parser("secret", "Manage the signing keys.", rotation.ACTIONS, "data_dir", "secret_file")
    parser.add_argument("key", nargs="?", metavar="KEY", help="the number or the version of the one to drop")
    parsed = _parse_action(parser, arguments, rotation.ACTIONS)
    if (parsed.action == "drop") != (parsed.key is not None):
        parser.error(f"secret {parsed.action} takes {'no' if parsed.key else 'a'} KEY")
    path = file_path("secret_file", _flags(parsed), os.environ)
    return _told(lambda: rotation.run(parsed.action, path, parsed.key))


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


def _told(act: Callable[[], str]) -> int:
    """Print what *act* returns, or the one line that says why not."""
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
        epilog=_COMMANDS,
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


_RUN: dict[str, Callable[[list[str]], int]] = {
    "serve": _serve,
    "accounts": _accounts,
    "secret": _secret,
    "doctor": _doctor,
}

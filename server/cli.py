"""The command line: `serve` (the default), `accounts`, `doctor`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import NoReturn

from server import admin
from server.config import ConfigError, account_path, read_settings
from server.options import OPTIONS, Option

_COMMANDS = """\
commands:
  serve                      serve; the default
  accounts add NAME          and list, disable, enable, remove, passwd; see accounts --help
  doctor                     check the configuration and the store

Each option is also read from the environment: --store-prefix from STORMCELLAR_STORE_PREFIX.
Durations have a unit: 500ms, 90s, 30m, 12h, 7d."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line."""
        self.exit(2, f"stormcellar: {message}; see --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return the exit status.

    0 is success, 1 something that failed or was found wrong, 2 settings or arguments that will not do.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments[:1] and arguments[0] in _RUN else "serve"
    try:
        return _RUN[command](arguments)
    except ConfigError as exc:
        from server.serve import report

        return report(exc)


def _serve(arguments: list[str]) -> int:
    # Imported here, so that `accounts` needs neither an event loop nor the handlers.
    from server.serve import serve

    parsed = _settings_parser("", "Serve sessions and sign-in over HTTP.").parse_args(arguments)
    return serve(read_settings(_flags(parsed), os.environ))


def _doctor(arguments: list[str]) -> int:
    from server.doctor import examine

    parsed = _settings_parser(" doctor", "Check what serve would use.").parse_args(arguments)
    return examine(read_settings(_flags(parsed), os.environ))


def _accounts(arguments: list[str]) -> int:
    parser = _Parser(
        prog=_program() + " accounts", description="Manage the account file.", allow_abbrev=False
    )
    parser.add_argument("action", choices=("add", "list", "disable", "enable", "remove", "passwd"))
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    for option in OPTIONS:
        if option.name in ("data_dir", "accounts"):
            _add(parser, option)
    parsed = parser.parse_args(arguments)
    if (parsed.action == "list") != (parsed.name is None):
        parser.error(f"accounts {parsed.action} takes {'no' if parsed.name else 'a'} NAME")
    path = account_path(_flags(parsed), os.environ)
    try:
        print(admin.run(parsed.action, path, parsed.name, password_stdin=parsed.password_stdin))
    except (OSError, ValueError) as exc:
        print(f"stormcellar: {exc}", file=sys.stderr)
        return 1
    return 0


def _settings_parser(command: str, description: str) -> argparse.ArgumentParser:
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
    text = option.help if option.default in (None, "") else f"{option.help} (default: {option.default})"
    if option.metavar:
        parser.add_argument(option.flag, dest=option.name, metavar=option.metavar, help=text)
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


_RUN: dict[str, Callable[[list[str]], int]] = {"serve": _serve, "accounts": _accounts, "doctor": _doctor}

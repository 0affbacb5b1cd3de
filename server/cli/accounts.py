"""`accounts`: add, list, disable, enable and remove accounts, and change passwords."""

from __future__ import annotations

import getpass
import sys
import time
from dataclasses import replace
from pathlib import Path

from stormcellar.accounts.account_file import Account, AccountFile, Change
from stormcellar.accounts.account_names import canonical_name
from stormcellar.accounts.passwords import hash_password, require_good

ACTIONS = ("add", "list", "disable", "enable", "remove", "passwd")


class ActionRefused(ValueError):
    """The action is not possible; nothing was changed. The message is one line."""


def run(action: str, path: Path, name: str | None, *, password_stdin: bool) -> str:
    """Apply *action* to the account file at *path* and return the text to print.

    Raises:
        ActionRefused: The action is not possible.
    """
    file = AccountFile(path)
    if action == "list":
        return _list(file)
    user = canonical_name(name or "")
    if user is None:
        # Without the name: it can be a password that was typed too early.
        raise ActionRefused("NAME is not a valid account name: use 1 to 64 of a-z 0-9 . _ @ + -")
    if action in ("add", "passwd"):
        _require(file, user, exists=action == "passwd")
        hashed = _new_hash(user, stdin=password_stdin)
        _replace(file, user, lambda account: replace(account or Account(hashed, 0), hash=hashed), action)
    elif action == "remove":
        _replace(file, user, lambda account: None, action)
    else:
        disabled = action == "disable"
        _replace(file, user, lambda account: account and replace(account, disabled=disabled), action)
    return f"{user}: {_DONE[action]}"


_DONE = {
    "add": "added",
    "passwd": "password changed; all sessions of this account have ended",
    "disable": "disabled; all sessions of this account have ended",
    "enable": "enabled",
    "remove": "removed; all sessions of this account have ended",
}


def _replace(file: AccountFile, user: str, change: Change, action: str) -> None:
    """Replace one account; remove it if *change* returns None. Earlier sign-ins become invalid."""

    def checked(account: Account | None) -> Account | None:
        _check(account, user, exists=action != "add")
        return change(account)

    file.replace(user, checked, clock=time.time)


def _require(file: AccountFile, user: str, *, exists: bool) -> None:
    """Make the checks of `_replace` once before the password prompt."""
    _check(file.read().get(user), user, exists=exists)


def _check(account: Account | None, user: str, *, exists: bool) -> None:
    if exists and account is None:
        raise ActionRefused("this account does not exist; show the accounts with: accounts list")
    if not exists and account is not None:
        raise ActionRefused(
            f"account {user!r} already exists; change its password with: accounts passwd {user}"
        )


def _new_hash(user: str, *, stdin: bool) -> str:
    password = _password(stdin=stdin)
    require_good(password, user=user)
    return hash_password(password)


def _password(*, stdin: bool) -> str:
    if stdin:
        return _first_line()
    if not sys.stdin.isatty():
        raise ActionRefused("cannot prompt for the password without a terminal; use --password-stdin")
    try:
        password = getpass.getpass("Password: ")
        again = getpass.getpass("Again: ")
    except EOFError:
        raise ActionRefused("no password was given") from None
    if again != password:
        raise ActionRefused("the two passwords differ")
    return password


def _first_line() -> str:
    try:
        return sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ActionRefused(
            "the password on standard input is not text in the encoding of this locale"
        ) from None


def _list(file: AccountFile) -> str:
    accounts = sorted(file.read().items())
    lines = [name + ("  (disabled)" if account.disabled else "") for name, account in accounts]
    return "\n".join(lines) or "no accounts"

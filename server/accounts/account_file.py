"""The account file: JSON that any process may replace at any moment."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stormcellar.accounts.account_names import canonical_name
from stormcellar.accounts.password_hashes import form_of
from stormcellar.private_files import locked, read_private, replace_private

_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")


@dataclass(frozen=True, slots=True)
class Account:
    """One account."""

    hash: str = field(repr=False)
    valid_after_ms: int
    """Unix time in milliseconds: sign-ins from before it are not valid. It never moves back."""
    disabled: bool = False
    id: str = ""
    """Random; another one with each change that ends earlier sign-ins, such as a new password.

    A sign-in under another ID is not valid, whatever the clock said then. Empty if the file has none.
    """


Change = Callable[[Account | None], Account | None]


def put(accounts: dict[str, Account], user: str, change: Change, *, now_ms: int) -> None:
    """Replace one account by the result of *change*; None removes it. Earlier sign-ins become invalid."""
    before = accounts.pop(user, None)
    changed = change(before)
    if changed is None:
        return
    # Strictly later, even if the clock was set back: ended sessions stay ended, each change shows.
    latest_ms = max(changed.valid_after_ms, before.valid_after_ms if before else 0)
    accounts[user] = replace(changed, valid_after_ms=max(latest_ms + 1, now_ms), id=new_id())


def new_id() -> str:
    """Return a new random ID of an account, 16 characters."""
    return secrets.token_urlsafe(12)


class AccountFile:
    """`{"version": 1, "accounts": {name: {hash, valid_after_ms, disabled, id}}}` in a file with mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = os.fspath(path)

    def stamp(self) -> tuple[int, int, int, int] | None:
        """Return a value that changes with the file's content or permissions; None if the file is missing."""
        try:
            status = os.stat(self._name)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size

    def read(self) -> dict[str, Account]:
        """Return the accounts by name; an empty dict if there is no file. Raises as `find` does."""
        return self.find() or {}

    def find(self) -> dict[str, Account] | None:
        """Return the accounts by name; None if there is no file.

        Raises:
            ValueError: One line: others may read the file, or its content is not valid.
            OSError: The file cannot be read.
        """
        try:
            content = read_private(self.path)
        except FileNotFoundError:
            return None
        try:
            return _parsed(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            reason = f"{type(exc).__name__}: {exc}"
            raise ValueError(f"{self.path} is not an account file ({reason}); repair or remove it") from None

    def edit(self, change: Callable[[dict[str, Account]], None], *, until_s: float | None = None) -> None:
        """Read, *change* and replace the file under a lock. Writes nothing if nothing changed.

        Args:
            until_s: How long to wait for the lock, and the errors: see `private_files.locked`.
        """
        with locked(self.path, until_s=until_s):
            self._edit(change)

    def replace(
        self, user: str, change: Change, *, clock: Callable[[], float], until_s: float | None = None
    ) -> Account | None:
        """Replace one account by the result of *change*, and return the stored one; None removes it.

        Sign-ins from before the replacement become invalid.

        Args:
            clock: Unix time in seconds.
            until_s: How long to wait for the lock, and the errors: see `private_files.locked`.
        """
        with locked(self.path, until_s=until_s):
            self._edit(lambda accounts: put(accounts, user, change, now_ms=int(clock() * 1000)))
            # Until the file was replaced the old password was valid, so `valid_after_ms` is set again.
            replaced_ms = int(clock() * 1000)
            return self._edit(lambda accounts: _end_sign_ins(accounts, user, until_ms=replaced_ms)).get(user)

    def _edit(self, change: Callable[[dict[str, Account]], None]) -> dict[str, Account]:
        before = self.read()
        accounts = dict(before)
        change(accounts)
        if accounts != before:
            content = {"version": 1, "accounts": {name: asdict(a) for name, a in sorted(accounts.items())}}
            replace_private(self.path, json.dumps(content, indent=2) + "\n")
        return accounts


def _end_sign_ins(accounts: dict[str, Account], user: str, *, until_ms: int) -> None:
    account = accounts.get(user)
    if account is not None and account.valid_after_ms < until_ms:
        accounts[user] = replace(account, valid_after_ms=until_ms)


def _parsed(content: Any) -> dict[str, Account]:
    """Return the accounts in *content*; on invalid content raise one of the errors that `find` wraps."""
    if content["version"] != 1:
        raise ValueError("unknown version")
    return {name: _account(name, fields) for name, fields in content["accounts"].items()}


def _account(name: str, fields: Mapping[str, Any]) -> Account:
    account = Account(**fields)
    if canonical_name(name) != name:
        raise ValueError(f"{name!r} is not a valid account name")
    try:
        form_of(account.hash)
    except ValueError as exc:
        raise ValueError(f"the hash of {name!r} {exc}") from None
    if type(account.valid_after_ms) is not int or type(account.disabled) is not bool:
        raise ValueError(f"a field of {name!r} has the wrong type")
    if not isinstance(account.id, str) or not _ID.fullmatch(account.id):
        raise ValueError(f"a field of {name!r} is not valid: its id must be at most 64 of A-Z a-z 0-9 _ -")
    return account

"""Who may sign in: the `AccountDirectory` protocol, and the directory that is a file of argon2id hashes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from server.errors import Busy
from server.files import describe, read_private, replace_private
from server.passwords import PasswordChecker

log = logging.getLogger("stormcellar.accounts")

_NAME = re.compile(r"[a-z0-9._@+-]{1,64}")
_REFRESH_S = 1.0


class AccountDirectory(Protocol):
    """Where accounts live. Write your own over a database, LDAP or the like."""

    async def verify(self, name: str, password: str) -> str | None:
        """Return the user behind *name* if *password* is theirs, else None.

        Takes as long for an unknown or disabled user as for a wrong password, and never blocks the loop.

        Raises:
            server.errors.Busy: Too many are being verified; nothing was begun.
        """

    def valid_after(self, user: str) -> int | None:
        """Return the Unix time in ms that a sign-in must be later than to count; None: unknown or disabled.

        Called for each request of a signed-in user: answer from memory, at most a second old.
        """


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `valid_after_ms` is Unix time in milliseconds."""

    hash: str = field(repr=False)
    valid_after_ms: int
    disabled: bool = False


def canonical_name(name: str) -> str | None:
    """Return *name* as accounts are keyed (NFKC, casefolded), or None if no account can have it."""
    if len(name) > 256:
        return None
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded if _NAME.fullmatch(folded) else None


class MemoryAccounts:
    """Accounts that live as long as the process."""

    def __init__(self, accounts: Mapping[str, Account], *, checker: PasswordChecker) -> None:
        self._accounts = dict(accounts)
        self._checker = checker

    async def verify(self, name: str, password: str) -> str | None:
        """See `AccountDirectory.verify`."""
        user = canonical_name(name)
        account = self._current().get(user) if user is not None else None
        stored = account.hash if account is not None and not account.disabled else None
        if not await self._checker.verify(stored, password) or user is None or stored is None:
            return None
        if self._checker.is_outdated(stored):
            await self._renew_hash(user, stored, password)
        return user

    def valid_after(self, user: str) -> int | None:
        """See `AccountDirectory.valid_after`."""
        account = self._current().get(user)
        return None if account is None or account.disabled else account.valid_after_ms

    def _current(self) -> Mapping[str, Account]:
        return self._accounts

    async def _renew_hash(self, user: str, old: str, password: str) -> None:
        """Hash the *password* just verified with today's parameters; sign-in goes on whatever happens."""
        try:
            new = await self._checker.hash(password)
        except Busy:
            return  # then at the next sign-in
        await self._edit(lambda accounts: _replace_hash(accounts, user, old=old, new=new))

    async def _edit(self, change: Callable[[dict[str, Account]], None]) -> None:
        change(self._accounts)


def _replace_hash(accounts: dict[str, Account], user: str, *, old: str, new: str) -> None:
    """Put *new* in the place of *old*, unless somebody changed the password meanwhile."""
    account = accounts.get(user)
    if account is not None and account.hash == old:
        accounts[user] = replace(account, hash=new)


class FileAccounts(MemoryAccounts):
    """Accounts in a JSON file; a change by any process is noticed within a second.

    A file that goes missing or does not parse leaves the accounts as they were, and is logged.

    Args:
        until_made: The accounts to use as long as there has been no file.
        clock: Seconds that only go forward; decides when the file is looked at again.

    Raises:
        ValueError: The file exists but is not private, or not an account file.
        OSError: It cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        checker: PasswordChecker,
        until_made: Mapping[str, Account] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = AccountFile(path)
        self._clock = clock
        # Before the content, so that a change in between is noticed at the next look.
        self._stamp = self._file.stamp()
        accounts = self._file.read()
        super().__init__(accounts if self._stamp else until_made or {}, checker=checker)
        self._look_again_at = clock() + _REFRESH_S

    def _current(self) -> Mapping[str, Account]:
        if self._clock() >= self._look_again_at:
            self._look_again_at = self._clock() + _REFRESH_S
            self._look()
        return self._accounts

    def valid_after(self, user: str) -> int | None:
        """See `AccountDirectory.valid_after`.

        Before it says "no such account", which ends a session for good, it looks at the file at once: another
        process may have made or enabled the account within this second.
        """
        if (after := super().valid_after(user)) is None:
            self._look()
            after = super().valid_after(user)
        return after

    def _look(self) -> None:
        if (stamp := self._file.stamp()) == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            # An editor may be at work; whose account ends is told by `accounts remove`.
            log.error("accounts unchanged: %s is missing", self._file.path)
            return
        try:
            self._accounts = self._file.read()
        except (OSError, ValueError) as exc:
            log.error("accounts unchanged: %s", describe(exc))

    async def _edit(self, change: Callable[[dict[str, Account]], None]) -> None:
        try:
            await asyncio.to_thread(self._file.edit, change)
        except (OSError, ValueError) as exc:
            log.error("could not store a renewed password hash: %s", describe(exc))
        self._look_again_at = self._clock()


class AccountFile:
    """The file itself: `{"version": 1, "accounts": {name: {hash, valid_after_ms, disabled}}}`, mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file is replaced; None if there is none to be seen."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def read(self) -> dict[str, Account]:
        """Return the accounts by name; none if there is no file.

        Raises:
            ValueError: One line: the file is not private, or not what `edit` writes.
            OSError: It cannot be read.
        """
        try:
            content = read_private(self.path)
        except FileNotFoundError:
            return {}
        try:
            return _parsed(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            reason = f"{type(exc).__name__}: {exc}"
            raise ValueError(f"{self.path} is not an account file ({reason}); mend or remove it") from None

    def edit(self, change: Callable[[dict[str, Account]], None]) -> None:
        """Read, *change* and replace the file, one process at a time. Writes nothing if nothing changed."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            before = self.read()
            accounts = dict(before)
            change(accounts)
            if accounts == before:
                return
            content = {"version": 1, "accounts": {name: asdict(a) for name, a in sorted(accounts.items())}}
            replace_private(self.path, json.dumps(content, indent=2) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A file of its own: the account file is replaced, and with it a lock on it.
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _parsed(content: Any) -> dict[str, Account]:
    """Return the accounts in *content*, or raise whatever says what is wrong with it."""
    if content["version"] != 1:
        raise ValueError("unknown version")
    return {name: _account(name, fields) for name, fields in content["accounts"].items()}


def _account(name: str, fields: Mapping[str, Any]) -> Account:
    account = Account(**fields)
    if canonical_name(name) != name:
        raise ValueError(f"{name!r} cannot be an account name")
    if not isinstance(account.hash, str) or not account.hash.startswith("$argon2id$"):
        raise ValueError(f"the hash of {name!r} is not argon2id")
    if type(account.valid_after_ms) is not int or type(account.disabled) is not bool:
        raise ValueError(f"a field of {name!r} has the wrong type")
    return account

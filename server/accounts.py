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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from server.files import replace_private, require_private
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

    hash: str
    valid_after_ms: int
    disabled: bool = False


def canonical_name(name: str) -> str | None:
    """Return *name* as accounts are keyed (NFKC, casefolded), or None if no account can have it."""
    if len(name) > 256:
        return None
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded if _NAME.fullmatch(folded) else None


class MemoryAccounts:
    """Accounts that live as long as the process, such as the demo account."""

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
            await self._replace_hash(user, stored, await self._checker.hash(password))
        return user

    def valid_after(self, user: str) -> int | None:
        """See `AccountDirectory.valid_after`."""
        account = self._current().get(user)
        return None if account is None or account.disabled else account.valid_after_ms

    def _current(self) -> Mapping[str, Account]:
        return self._accounts

    async def _replace_hash(self, user: str, old: str, new: str) -> None:
        self._accounts[user] = replace(self._accounts[user], hash=new)


class FileAccounts(MemoryAccounts):
    """Accounts in a JSON file; a change by any process is noticed within a second.

    A file that does not parse leaves the accounts as they were, and is logged.

    Args:
        clock: Seconds that only go forward; decides when the file is looked at again.

    Raises:
        ValueError: The file exists but cannot be used.
    """

    def __init__(
        self, path: Path, *, checker: PasswordChecker, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__({}, checker=checker)
        self._file = AccountFile(path)
        self._clock = clock
        self._stamp = self._file.stamp()
        self._accounts = self._file.read()
        self._look_again_at = clock() + _REFRESH_S

    def _current(self) -> Mapping[str, Account]:
        if self._clock() >= self._look_again_at:
            self._look_again_at = self._clock() + _REFRESH_S
            if (stamp := self._file.stamp()) != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._accounts

    def _reload(self) -> None:
        try:
            self._accounts = self._file.read()
        except (OSError, ValueError) as exc:
            log.error("accounts unchanged: %s", exc)

    async def _replace_hash(self, user: str, old: str, new: str) -> None:
        def change(accounts: dict[str, Account]) -> None:
            account = accounts.get(user)
            if account is not None and account.hash == old:
                accounts[user] = replace(account, hash=new)

        try:
            await asyncio.to_thread(self._file.edit, change)
        except (OSError, ValueError) as exc:
            log.error("could not store a renewed password hash: %s", exc)


class AccountFile:
    """The file itself: `{"version": 1, "accounts": {name: {hash, valid_after_ms, disabled}}}`, mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file is replaced; None if there is none."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def read(self) -> dict[str, Account]:
        """Return the accounts by name; none if there is no file.

        Raises:
            ValueError: One line: the file is not private or not what `edit` writes.
        """
        if not self.path.exists():
            return {}
        require_private(self.path)
        try:
            content = json.loads(self.path.read_bytes())
            if content["version"] != 1:
                raise ValueError("unknown version")
            return {name: Account(**fields) for name, fields in content["accounts"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"{self.path} is not a readable account file: {exc}") from exc

    def edit(self, change: Callable[[dict[str, Account]], None]) -> None:
        """Read, *change* and replace the file, one process at a time."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            accounts = self.read()
            change(accounts)
            content = {"version": 1, "accounts": {name: asdict(a) for name, a in sorted(accounts.items())}}
            replace_private(self.path, json.dumps(content, indent=2) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A file of its own: the account file is replaced, and with it a lock on it.
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

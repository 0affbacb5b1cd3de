"""Account directories: the `AccountDirectory` protocol, and two that keep accounts in memory or in a file."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from stormcellar.accounts.account_file import Account, AccountFile, Change, put
from stormcellar.accounts.account_names import canonical_name
from stormcellar.accounts.password_hashes import Decoys
from stormcellar.accounts.passwords import PasswordChecker, require_good
from stormcellar.errors import Busy, PasswordRefused, SignInRevoked
from stormcellar.private_files import LOCK_WAIT_S, LockHeld, describe

__all__ = ["Account", "AccountDirectory", "AccountFile", "FileAccounts", "MemoryAccounts", "canonical_name"]

log = logging.getLogger("stormcellar.accounts")


class AccountDirectory(Protocol):
    """Where accounts are kept. Implement it for a database or LDAP."""

    async def verify(self, name: str, password: str) -> str | None:
        """Return the user behind *name* if *password* is theirs, else None.

        The time it takes must not tell whether there is an account. Must not block the event loop.

        Raises:
            errors.Busy: Too many passwords are being verified; this one was not.
        """

    def valid_after(self, user: str) -> int | None:
        """Return the Unix time in ms after which sign-ins are valid; None if *user* is unknown or disabled.

        Called on the event loop for each request of a signed-in user: it must take microseconds.
        """

    def account_id(self, user: str) -> str | None:
        """Return under which ID a sign-in of *user* counts; None as for `valid_after`.

        It is another one after each change that ends earlier sign-ins, such as a new password, and for an
        account of the same name that is made later. It costs as little as `valid_after`.
        """

    def revision(self) -> object:
        """Return an object that is the same one as long as no account has changed.

        Called on the event loop each second: it must take microseconds.
        """

    async def set_password(self, user: str, new: str, *, verified_ms: int) -> int:
        """Give *user* the password *new* and return the new `valid_after`, later than every sign-in.

        Atomic across processes: of two concurrent changes one is refused.

        Args:
            verified_ms: Unix time just before the present password was verified.

        Raises:
            errors.PasswordRefused: *new* is too weak, or passwords cannot be changed here; see its message.
            errors.SignInRevoked: The account was removed, disabled, or changed at or after *verified_ms*.
            errors.Busy: Too many passwords are being hashed, or the accounts are locked; nothing was changed.
        """


class MemoryAccounts:
    """Accounts in the memory of this process.

    Args:
        clock: Unix time in seconds; the same clock that dates sign-ins.
        key: Secret, used for nothing else; it determines how long names without an account take, so it should
            be the same in all processes and after a restart. None: a random one.

    Raises:
        ValueError: A hash is not valid, or costs too much: see `form_of`.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        *,
        checker: PasswordChecker,
        clock: Callable[[], float] = time.time,
        key: bytes | None = None,
    ) -> None:
        self._accounts = dict(accounts)
        self._checker = checker
        self._clock = clock
        self._key = secrets.token_bytes(32) if key is None else key
        self._decoys = self._make_decoys()

    async def verify(self, name: str, password: str) -> str | None:
        """See `AccountDirectory.verify`."""
        user = canonical_name(name)
        account = self._current().get(user) if user is not None else None
        # Chosen for every name, and the hash of a disabled account is verified, too: the same work for all.
        decoy = self._decoy(user or "")
        matches = await self._checker.verify(decoy if account is None else account.hash, password)
        if not matches or account is None or user is None or not self._is_unchanged(user, account):
            return None
        if self._checker.is_outdated(account.hash):
            await self._renew_hash(user, account.hash, password)
        return user

    def valid_after(self, user: str) -> int | None:
        """See `AccountDirectory.valid_after`."""
        account = self._enabled(user)
        return None if account is None else account.valid_after_ms

    def account_id(self, user: str) -> str | None:
        """See `AccountDirectory.account_id`."""
        account = self._enabled(user)
        return None if account is None else account.id

    def revision(self) -> object:
        """See `AccountDirectory.revision`."""
        return self._current()  # replaced at each change, never changed

    async def set_password(self, user: str, new: str, *, verified_ms: int) -> int:
        """See `AccountDirectory.set_password`."""
        require_good(new, user=user)
        account_id = self.account_id(user)
        hashed = await self._checker.hash(new)

        def change(account: Account | None) -> Account:
            if account is None or account.disabled or account.id != account_id:
                raise SignInRevoked
            if account.valid_after_ms >= verified_ms:
                raise SignInRevoked
            return replace(account, hash=hashed, valid_after_ms=verified_ms)

        return (await self._replace(user, change)).valid_after_ms

    def _current(self) -> Mapping[str, Account]:
        return self._accounts

    def _decoy(self, user: str) -> str:
        accounts, decoys = self._decoys
        if accounts is not self._accounts:
            accounts, decoys = self._decoys = self._make_decoys()
        return decoys.of(user)

    def _make_decoys(self) -> tuple[Mapping[str, Account], Decoys]:
        """Return the decoys, and the accounts that they are made from: those are replaced, never changed."""
        hashes = [account.hash for account in self._accounts.values()]
        return self._accounts, Decoys(hashes, key=self._key, otherwise=self._checker.form)

    def _enabled(self, user: str) -> Account | None:
        account = self._current().get(user)
        return None if account is None or account.disabled else account

    def _is_unchanged(self, user: str, account: Account) -> bool:
        """Whether *account* is still valid: it may have changed while its password waited to be checked."""
        found = self._enabled(user)
        return found is not None and (found.id, found.valid_after_ms) == (account.id, account.valid_after_ms)

    async def _renew_hash(self, user: str, old: str, password: str) -> None:
        """Hash the verified *password* with the current parameters. A failure does not stop the sign-in."""
        try:
            new = await self._checker.hash(password)
        except Busy:
            return  # the next sign-in tries again
        await self._edit(lambda accounts: _replace_hash(accounts, user, old=old, new=new))

    async def _edit(self, change: Callable[[dict[str, Account]], None]) -> None:
        accounts = dict(self._accounts)
        change(accounts)
        self._accounts = accounts

    async def _replace(self, user: str, change: Change) -> Account:
        accounts = dict(self._accounts)
        put(accounts, user, change, now_ms=int(self._clock() * 1000))
        self._accounts = accounts
        return accounts[user]


def _replace_hash(accounts: dict[str, Account], user: str, *, old: str, new: str) -> None:
    """Replace the hash *old* by *new*, unless the password was changed meanwhile."""
    account = accounts.get(user)
    if account is not None and account.hash == old:
        accounts[user] = replace(account, hash=new)


class FileAccounts(MemoryAccounts):
    """Accounts in a JSON file that is checked for changes at every call, so changes take effect at once.

    If the file goes missing or becomes invalid, the accounts stay as they were and the problem is logged.

    Args:
        until_made: The accounts to use until the file exists; changes to them are not stored.
        is_alone: Whether this is the only process, so that the accounts of *until_made* may change.

    Raises:
        ValueError: The file exists, but others may read it or its content is not valid.
        OSError: The file cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        checker: PasswordChecker,
        until_made: Mapping[str, Account] | None = None,
        is_alone: bool = True,
        clock: Callable[[], float] = time.time,
        key: bytes | None = None,
    ) -> None:
        self._file = AccountFile(path)
        self._is_alone = is_alone
        self._problem: str | None = None
        # Taken before the content is read, so that a change in between is noticed at the next call.
        self._stamp: tuple[int, ...] | None = self._file.stamp()
        self._is_made = self._stamp is not None
        accounts = self._file.read()
        first = accounts if self._is_made else until_made or {}
        super().__init__(first, checker=checker, clock=clock, key=key)

    def _current(self) -> Mapping[str, Account]:
        # One stat() call, 2 microseconds, for each request: changes take effect without a delay.
        if (stamp := self._file.stamp()) != self._stamp:
            self._take(stamp)
        return self._accounts

    def _take(self, stamp: tuple[int, ...] | None) -> None:
        """Read the file that has this *stamp*. If it cannot be read, the next call tries again."""
        problem = None
        self._is_made |= stamp is not None
        try:
            if (accounts := self._file.find()) is not None:
                self._accounts = accounts
            else:
                # An editor may be replacing the file; `accounts remove` is the way to end an account.
                problem, stamp = f"{self._file.path} is missing", None
        except ValueError as exc:
            problem = describe(exc)
        except OSError as exc:
            problem, stamp = describe(exc), self._stamp
        self._stamp = stamp
        if problem is not None and problem != self._problem:
            log.error("accounts unchanged: %s", problem)
        self._problem = problem

    async def _edit(self, change: Callable[[dict[str, Account]], None]) -> None:
        if not self._is_made:
            return await super()._edit(change)
        try:
            # One attempt: a sign-in does not wait for the lock, and the next one tries again.
            await asyncio.to_thread(self._file.edit, change, until_s=0.0)
        except LockHeld:
            return
        except (OSError, ValueError) as exc:
            log.error("could not store a renewed password hash: %s", describe(exc))

    async def _replace(self, user: str, change: Change) -> Account:
        if not self._is_made:
            if not self._is_alone:
                raise PasswordRefused("This is a demo account: its password cannot be changed.")
            return await super()._replace(user, change)
        # Counted from here, so that calls that queue for a thread do not wait one after the other.
        until_s = time.monotonic() + LOCK_WAIT_S
        try:
            found = await asyncio.to_thread(
                self._file.replace, user, change, clock=self._clock, until_s=until_s
            )
        except LockHeld as exc:
            log.error("password of %s unchanged: %s", user, describe(exc))
            raise Busy("the account file is locked") from exc
        assert found is not None
        return found

"""`AccountCheck`: whether the account of a user still allows a sign-in made before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Protocol

from stormcellar.sessions.request_info import marks_of
from stormcellar.stores import Record

CHANGING_S = 60
"""A request that changes an account gives its own session a new ID within this time."""
SETTLE_S = 1.0
"""Within this time it has signed its own session in again."""

_IN_MS = 10**11
"""As milliseconds, a day of 1973; as seconds, of the year 5138."""


class Accounts(Protocol):
    """What the session layer needs from an account directory.

    A directory may also have a method `account_id(user)` that returns text, or None if there is no account.
    A sign-in counts only under the same text, so a directory that returns another one after each such change
    depends on no clock. Both methods may be coroutine functions.
    """

    def valid_after(self, user: str) -> int | Awaitable[int | None] | None:
        """Return the Unix time in **milliseconds** after which a sign-in of *user* counts.

        0: every sign-in counts. None: *user* has no account, or it is disabled. Called for each request of a
        signed-in user.
        """


class AccountCheck:
    """Compares a sign-in with the last change of its account.

    Args:
        accounts: None: every sign-in counts.
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(self, accounts: Accounts | None, *, now_ms: Callable[[], int]) -> None:
        self._accounts = accounts
        self.accepts_all = accounts is None
        """Whether every sign-in counts, so that no check is needed."""
        self._account_id = getattr(accounts, "account_id", None)
        self._now_ms = now_ms

    async def counts(self, record: Record) -> bool:
        """Whether the sign-in of *record* still counts; always for an anonymous session."""
        if self._accounts is None or record.user is None:
            return True
        after = await self._valid_after(record.user)
        if after is None or record.auth_ms is None or record.auth_ms <= after:
            return False
        return self._account_id is None or marks_of(record).account == await self.account_id(record.user)

    async def is_changing(self, record: Record) -> bool:
        """Whether the account changed within the last `CHANGING_S` seconds and is not disabled or removed.

        Then the session may be the one that changes its own password and is about to sign in again.
        """
        changed_s = await self._changed_s(record)
        return changed_s is not None and changed_s < CHANGING_S

    async def unsettled_s(self, record: Record) -> float:
        """Return for how many seconds more the session may be the one that is about to sign in again."""
        changed_s = await self._changed_s(record)
        return 0.0 if changed_s is None else max(0.0, SETTLE_S - changed_s)

    async def _changed_s(self, record: Record) -> float | None:
        """Return how many seconds ago the account of *record* changed; None if nobody can sign in to it."""
        if self._accounts is None or record.user is None:
            return None
        after = await self._valid_after(record.user)
        return None if after is None else abs(self._now_ms() - after) / 1000

    async def account_id(self, user: str) -> str | None:
        """Return what identifies the account of *user*, if the directory has such IDs."""
        if self._account_id is None:
            return None
        given = self._account_id(user)
        return (await given if isawaitable(given) else given) or None

    async def _valid_after(self, user: str) -> int | None:
        assert self._accounts is not None
        given = self._accounts.valid_after(user)
        after = await given if isawaitable(given) else given
        if after is not None and 0 < after < _IN_MS:
            raise ValueError(f"valid_after() must return Unix time in milliseconds, not {after!r}")
        return after

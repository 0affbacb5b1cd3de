"""`AccountCheck`: whether the account of a user still allows a sign-in made before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from stormcellar.stores import Record

CHANGING_S = 60
"""A request that changes an account gives its own session a new ID within this time."""


class Accounts(Protocol):
    """What the session layer needs from an account directory."""

    def valid_after(self, user: str) -> int | None:
        """Return the Unix time in ms after which a sign-in of *user* counts; None if there is no account."""


class AccountCheck:
    """Compares the time of a sign-in with the last change of its account.

    Args:
        accounts: None: every sign-in counts.
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(self, accounts: Accounts | None, *, now_ms: Callable[[], int]) -> None:
        self._accounts = accounts
        self._now_ms = now_ms

    def counts(self, record: Record) -> bool:
        """Whether the sign-in of *record* still counts; always for an anonymous session."""
        if self._accounts is None or record.user is None:
            return True
        after = self._accounts.valid_after(record.user)
        return after is not None and record.auth_ms is not None and record.auth_ms > after

    def is_changing(self, record: Record) -> bool:
        """Whether the account changed within the last `CHANGING_S` seconds and is not disabled or removed.

        Then the session may be the one that changes its own password and is about to sign in again.
        """
        if self._accounts is None or record.user is None:
            return False
        after = self._accounts.valid_after(record.user)
        return after is not None and abs(self._now_ms() - after) < 1000 * CHANGING_S

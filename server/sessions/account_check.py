"""`Standing`: whether an account still stands behind a session that began with its password."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from stormcellar.stores import Record

CHANGING_S = 60
"""The request that changes an account gives its own session a new ID within this time."""


class Accounts(Protocol):
    """What sessions ask of an account directory."""

    def valid_after(self, user: str) -> int | None:
        """Return the Unix time in ms that a sign-in must be later than to count; None: no such account."""


class Standing:
    """Compares sign-ins with what has become of their accounts.

    Args:
        accounts: None: every sign-in stands.
        now_ms: Unix time in milliseconds.
    """

    def __init__(self, accounts: Accounts | None, *, now_ms: Callable[[], int]) -> None:
        self._accounts = accounts
        self._now_ms = now_ms

    def counts(self, record: Record) -> bool:
        """Whether the account behind *record* still stands behind that sign-in."""
        if self._accounts is None or record.user is None:
            return True
        after = self._accounts.valid_after(record.user)
        return after is not None and record.auth_ms is not None and record.auth_ms > after

    def is_changing(self, record: Record) -> bool:
        """Whether the account behind *record* changed just now, and is neither disabled nor removed.

        The session may be the one that changes its own password, and about to be signed in again.
        """
        if self._accounts is None or record.user is None:
            return False
        after = self._accounts.valid_after(record.user)
        return after is not None and abs(self._now_ms() - after) < 1000 * CHANGING_S

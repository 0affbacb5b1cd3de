"""Password checks: throttled, reported as events, and with one answer for every failure."""

from __future__ import annotations

from stormcellar.accounts.account_names import canonical_name
from stormcellar.accounts.directory import AccountDirectory
from stormcellar.accounts.throttle import Throttle
from stormcellar.errors import Busy, Throttled
from stormcellar.events import Events, Kind


class Authenticator:
    """Checks names and passwords against *accounts*, as often as *throttle* allows."""

    def __init__(self, accounts: AccountDirectory, throttle: Throttle, events: Events) -> None:
        self._accounts = accounts
        self._throttle = throttle
        self._events = events

    async def check(self, name: str, password: str, *, address: str) -> str | None:
        """Return the user behind *name* if *password* is theirs, else None.

        The attempt is counted before the password is verified, and stays counted if the caller is cancelled.

        Args:
            address: The client's address, as far as trusted proxies confirm it.

        Raises:
            Throttled: Too many attempts; the password was not verified.
            Busy: Too many passwords are being verified; this attempt is not counted.
            StoreUnavailable: The attempt cannot be counted; the password was not verified.
        """
        changed_ms = self._accounts.valid_after(canonical_name(name) or "")
        try:
            admission = await self._throttle.admit(name, address, since_ms=changed_ms or 0)
        except Throttled:
            self._emit(Kind.SIGN_IN_THROTTLED, name, address)
            raise
        try:
            user = await self._accounts.verify(name, password)
        except Busy:
            await self._throttle.give_back(admission)
            raise
        if user is None:
            self._emit(Kind.SIGN_IN_FAILED, name, address)
        else:
            await self._throttle.record_success(admission)
        return user

    def _emit(self, kind: Kind, name: str, address: str) -> None:
        """Emit an event. It holds the names of existing accounts only: others may be mistyped passwords."""
        user = canonical_name(name)
        if user is not None and self._accounts.valid_after(user) is None:
            user = None
        reason = None if user is not None else f"unknown:{self._throttle.fingerprint(name)}"
        self._events.emit(kind, user=user, address=address, reason=reason)

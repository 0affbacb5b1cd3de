"""The one way to check a password: throttled, told to the events, and the same for every wrong answer."""

from __future__ import annotations

from stormcellar.accounts.account_names import canonical_name
from stormcellar.accounts.directory import AccountDirectory
from stormcellar.accounts.throttle import Throttle
from stormcellar.errors import Busy, Throttled
from stormcellar.events import Events, Kind


class Authenticator:
    """Checks names and passwords against *accounts*, no oftener than *throttle* allows."""

    def __init__(self, accounts: AccountDirectory, throttle: Throttle, events: Events) -> None:
        self._accounts = accounts
        self._throttle = throttle
        self._events = events

    async def check(self, name: str, password: str, *, address: str) -> str | None:
        """Return the user behind *name* if *password* is theirs, else None.

        The try is counted before the password is looked at, and stays counted if the caller is cancelled.

        Args:
            address: Of the client, as far as trusted proxies vouch for it.

        Raises:
            Throttled: Too many tries; the password was not looked at, right or wrong.
            Busy: Too many are being verified; this one counts as never made.
            StoreUnavailable: It cannot be counted, so nothing was looked at.
        """
        try:
            admission = await self._throttle.admit(name, address)
        except Throttled:
            self._tell(Kind.SIGN_IN_THROTTLED, name, address)
            raise
        try:
            user = await self._accounts.verify(name, password)
        except Busy:
            await self._throttle.give_back(admission)
            raise
        if user is None:
            self._tell(Kind.SIGN_IN_FAILED, name, address)
        else:
            await self._throttle.settle(admission)
        return user

    def _tell(self, kind: Kind, name: str, address: str) -> None:
        """Emit *kind*; a name is said only if an account has it, for others may be passwords."""
        user = canonical_name(name)
        if user is not None and self._accounts.valid_after(user) is None:
            user = None
        reason = None if user is not None else f"unknown:{self._throttle.fingerprint(name)}"
        self._events.emit(kind, user=user, address=address, reason=reason)

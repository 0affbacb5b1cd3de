"""Password checks: throttled, reported as events, and with one answer for every failure."""

from __future__ import annotations

from stormcellar.accounts.account_names import canonical_name
from stormcellar.accounts.directory import AccountDirectory
from stormcellar.accounts.hashing_queue import ORIGIN, Origin
from stormcellar.accounts.throttle import Throttle
from stormcellar.errors import Busy, Throttled
from stormcellar.events import Events, Kind
from stormcellar.networks import networks_of
from stormcellar.sessions.cookies import mint_device_token


class Authenticator:
    """Checks names and passwords against *accounts*, as often as *throttle* allows."""

    def __init__(self, accounts: AccountDirectory, throttle: Throttle, events: Events) -> None:
        self._accounts = accounts
        self._throttle = throttle
        self._events = events

    async def check(self, name: str, password: str, *, address: str, device: str | None = None) -> str | None:
        """Return the user behind *name* if *password* is theirs, else None.

        The attempt is counted before the password is verified, and stays counted if the caller is cancelled.

        Args:
            address: The client's address, as far as trusted proxies confirm it.
            device: The token of the device, if the client sent one.

        Raises:
            Throttled: Too many attempts; the password was not verified.
            Busy: Too many passwords are being verified; this attempt is not counted.
            StoreUnavailable: The attempt cannot be counted; the password was not verified.
        """
        since_ms = self._changed_ms(canonical_name(name) or "")
        try:
            admission = await self._throttle.admit(name, address, since_ms=since_ms, device=device)
        except Throttled:
            self._emit(Kind.SIGN_IN_THROTTLED, name, address)
            raise
        origin = ORIGIN.set(Origin(admission.is_known, networks_of(address)[-1].name))
        try:
            user = await self._accounts.verify(name, password)
        except Busy:
            await self._throttle.give_back(admission)
            raise
        finally:
            ORIGIN.reset(origin)
        if user is None:
            self._emit(Kind.SIGN_IN_FAILED, name, address)
        else:
            await self._throttle.record_success(admission)
        return user

    async def remember(self, user: str, device: str | None) -> str | None:
        """Make a device known to the account of *user*, who has just signed in there.

        Args:
            device: The token of the device, if the client sent one.

        Returns:
            The token that the client must keep, a new one if it sent none; None if the device stays unknown.
        """
        token = device or mint_device_token()
        is_known = await self._throttle.remember(user, token, since_ms=self._changed_ms(user))
        return token if is_known else None

    def _changed_ms(self, user: str) -> int:
        return self._accounts.valid_after(user) or 0

    def _emit(self, kind: Kind, name: str, address: str) -> None:
        """Emit an event. It holds the names of existing accounts only: others may be mistyped passwords."""
        user = canonical_name(name)
        if user is not None and self._accounts.valid_after(user) is None:
            user = None
        reason = None if user is not None else f"unknown:{self._throttle.fingerprint(name)}"
        self._events.emit(kind, user=user, address=address, reason=reason)

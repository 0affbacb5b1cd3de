"""Session and sign-in events, for an audit log, metrics or mails.

::

    sessions.events.subscribe(lambda event: print(event.kind, event.user, event.reason))
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

log = logging.getLogger("stormcellar.events")


class Kind(StrEnum):
    """What happened. The first six and `FORM_REJECTED` concern sessions; the login server emits the rest."""

    CREATED = "created"
    """A session was created."""
    AUTHENTICATED = "authenticated"
    """A user signed in (reason `sign-in`), or proved again who they are (`again`)."""
    RENEWED = "renewed"
    """The session ID was rotated: `asked` by the application, `periodic`, or `limited` by `expire_in`."""
    DESTROYED = "destroyed"
    """A session was ended: by `logout`, `revoked` from another one, over the `limit` of sessions per user,
    `replaced` at a sign-in, its `account` was disabled, removed or given another password, or an old ID was
    `reused`."""
    EXPIRED = "expired"
    """A session ended by time while a socket, a stream or a long handler of this process held it."""
    REJECTED = "rejected"
    """A cookie was ignored: its signature is invalid (`cookie`), a newer one exists (`superseded`), its ID
    was renewed away long ago (`reused`), its session was ended (`ended`), or there is no trace of the
    session, which expired, or ended more than ten minutes ago (`unknown`)."""
    SIGN_IN_FAILED = "sign_in_failed"
    """A name or a password was wrong."""
    SIGN_IN_THROTTLED = "sign_in_throttled"
    """A sign-in was refused unchecked: too many attempts."""
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  a name
    """A user changed their password."""
    FORM_REJECTED = "form_rejected"
    """A form had no valid form token."""
    ORIGIN_REJECTED = "origin_rejected"
    """An unsafe request came from another site."""
    STORE_FAILED = "store_failed"
    """A request was answered with 503: the store did not answer."""
    RELOADED = "reloaded"
    """Signing keys and certificates were read again."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. Contains no secret."""

    kind: Kind
    at_ms: int
    """Unix time in milliseconds."""
    handle: str | None = None
    """Identifies the session; authorises nothing."""
    user: str | None = None
    """Who is, or was, signed in; at a sign-in, the user who was named."""
    address: str | None = None
    """IP address of the client that sent the request."""
    reason: str | None = None
    """One word that says more; see `Kind`."""


class Events:
    """Calls every subscriber with each event, synchronously and in order.

    Args:
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Call *subscriber* with each event from now on, on the event loop: it must not block.

        An exception that it raises is logged and has no other effect.
        """
        self.subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Call *subscriber* no more.

        Raises:
            ValueError: It did not subscribe.
        """
        # A copy: `emit` may be going through the list.
        remaining = list(self.subscribers)
        remaining.remove(subscriber)
        self.subscribers = remaining

    def emit(
        self,
        kind: Kind,
        *,
        handle: str | None = None,
        user: str | None = None,
        address: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Call every subscriber with an event of this kind and the present time."""
        if not self.subscribers:
            return
        event = Event(kind, self._now_ms(), handle, user, address, reason)
        for subscriber in self.subscribers:
            try:
                subscriber(event)
            except Exception:  # a failing subscriber must not fail the request
                log.exception("event subscriber failed on %s", kind)

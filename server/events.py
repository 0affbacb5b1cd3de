"""What happens to sessions and sign-ins, told to whoever subscribed: an audit log, a metric, a mail.

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
    """What happened. The first six are the life of a session; the others are the login server's."""

    CREATED = "created"
    """A session came into being."""
    AUTHENTICATED = "authenticated"
    """A user signed in (reason `sign-in`), or proved again who they are (`again`)."""
    RENEWED = "renewed"
    """The session ID changed: `asked`, `periodic`, or `limited` by `expire_in`."""
    DESTROYED = "destroyed"
    """A session was ended: by its `logout`, `revoked` from another, beyond the `limit` of its user,
    `replaced` at a sign-in, or its `account` was disabled, removed or given another password."""
    EXPIRED = "expired"
    """A genuine cookie came whose session is over: it reached a limit, or was ended elsewhere."""
    REJECTED = "rejected"
    """A cookie did not count: it is no `cookie` that we signed, or `superseded` by a newer one."""
    SIGN_IN_FAILED = "sign_in_failed"
    SIGN_IN_THROTTLED = "sign_in_throttled"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  a name
    FORM_REJECTED = "form_rejected"
    """A form came without the token of a form rendered for its browser."""
    ORIGIN_REJECTED = "origin_rejected"
    """An unsafe request came from another site."""
    STORE_FAILED = "store_failed"
    RELOADED = "reloaded"
    """Signing keys and certificates were read again."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. Holds no secret."""

    kind: Kind
    at_ms: int
    """Unix time in milliseconds."""
    handle: str | None = None
    """Names the session; authorises nothing."""
    user: str | None = None
    address: str | None = None
    """Of the client whose request it was."""
    reason: str | None = None


class Events:
    """Passes events on, each to every subscriber, at once and in order."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Call *subscriber* with each event from now on, on the event loop: it must not block.

        An exception it raises is logged and otherwise without effect.
        """
        self._subscribers.append(subscriber)

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody would hear of an event."""
        return bool(self._subscribers)

    def emit(self, event: Event) -> None:
        """Tell every subscriber."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:  # whoever listens must not break what is listened to
                log.exception("a subscriber failed on %s", event.kind)

"""`Watched`: a session that a socket, a stream or a long handler belongs to, until it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from stormcellar.stores import Credential, Record

log = logging.getLogger("stormcellar.sessions")


class End(Enum):
    """Why a watched session is over for those who hold it."""

    SIGNED_OUT = "signed_out"
    """It was ended: by a sign-out, from another session, or over the limit of sessions."""
    REPLACED = "replaced"
    """Somebody signed in, or proved again who they are: the browser has another session ID."""
    EXPIRED = "expired"
    ACCOUNT = "account"
    """The account was disabled, removed, or given another password."""
    STORE_DOWN = "store_down"
    """For too long the store did not say whether the session is live."""
    STOPPED = "stopped"
    """The server stops, or the manager was closed."""


def is_same_sign_in(one: Record, other: Record) -> bool:
    """Whether two states of a session belong to the same sign-in, or to the same visitor."""
    return (one.user, one.auth_ms) == (other.user, other.auth_ms)


class Watched:
    """One holder of a session. `SessionWatch.hold` returns it, and `release` gives it back.

    Args:
        record: The session as loaded.
    """

    __slots__ = (
        "_callbacks",
        "_ended",
        "end",
        "is_held",
        "on_new_expiry",
        "record",
        "timer",
    )

    def __init__(self, record: Record) -> None:
        # The data of the session would stay in memory as long as it is held.
        self.record = replace(record, data={}) if record.data else record
        """The session as it was last confirmed, without data."""
        self.end: End | None = None
        """Why the session is over; None while it is live."""
        self._ended: asyncio.Event | None = None
        self.is_held = True
        """False once its holder has let go, or was told that the session is over."""
        self.timer: asyncio.TimerHandle | None = None
        self.on_new_expiry: Callable[[], None] | None = None
        """Called when a check finds that the session expires at another time. It must not block or raise."""
        self._callbacks: list[Callable[[End], None]] = []

    @property
    def credential(self) -> Credential:
        """What is live now; a renewal of the ID changes it."""
        return self.record.credential

    @property
    def ended(self) -> asyncio.Event:
        """Set when the session is over."""
        # Made on first use: most holders take a callback, and an event takes 900 bytes.
        if self._ended is None:
            self._ended = asyncio.Event()
            if self.end is not None:
                self._ended.set()
        return self._ended

    def on_end(self, callback: Callable[[End], None]) -> None:
        """Call *callback* when the session is over, at once if it is. It must not block."""
        if self.end is not None:
            callback(self.end)
        else:
            self._callbacks.append(callback)

    def confirm(self, record: Record) -> None:
        """Record that the session is live, as *record* says."""
        # An equal record would take its memory a second time: the request of the holder has the first one.
        if record == self.record:
            return
        is_new = record.expires_ms != self.record.expires_ms
        self.record = record
        if is_new and self.on_new_expiry is not None:
            self.on_new_expiry()

    def finish(self, end: End) -> None:
        """Record that the session is over. Later calls do nothing."""
        if self.end is not None:
            return
        self.end = end
        if self._ended is not None:
            self._ended.set()
        for callback in self._callbacks:
            try:
                callback(end)
            except Exception:  # one holder must not keep the others open
                log.exception("a callback failed at the end of session %s", self.record.handle)
        self._callbacks.clear()

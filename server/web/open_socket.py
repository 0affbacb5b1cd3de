"""`OpenSocket`: a WebSocket that is being served, and the session that it belongs to."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import isawaitable
from typing import Any

from tornado.log import gen_log
from tornado.websocket import WebSocketClosedError

from stormcellar.errors import SessionChanged, SessionEnded, SessionError
from stormcellar.sessions.live.watched import End, Watched
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.state import SessionState
from stormcellar.stores import StoreUnavailable
from stormcellar.web.socket_limits import Bucket

SESSION_OVER = 4401
"""The close code after the end of the session; the reason is the value of `End`."""
# RFC 6455, 7.4.1; 1013 is registered with IANA.
GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER = 1001, 1008, 1013
_CODES = {End.STOPPED: GOING_AWAY, End.STORE_DOWN: TRY_AGAIN_LATER}

CHECKED_S = 1.0
"""How long a check whether the session is over may take before the socket is closed for another reason."""
TOUCH_AGAIN_S = 1.0
"""The pause before the next touch, if the session is not known to be touched by then."""


class OpenSocket:
    """Closes the socket of *handler* when its session is over or a limit is exceeded.

    Args:
        handler: A `SessionSocketMixin` on a `WebSocketHandler`.
        messages_per_s: How many messages the client may send.
        counts_messages: Whether each message is activity of the session.
    """

    __slots__ = (
        *("_bucket", "_counts_messages", "_handler", "_is_closing"),
        *("_sessions", "_touched_s", "watched"),
    )

    def __init__(self, handler: Any, *, messages_per_s: float, counts_messages: bool) -> None:
        self.watched: Watched | None = None
        """The session; None for a visitor without one."""
        self._handler = handler
        self._sessions: SessionManager = handler.sessions
        self._bucket = Bucket(messages_per_s)
        self._counts_messages = counts_messages
        self._touched_s = -math.inf
        self._is_closing = False

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Watch the session and the messages while the block serves the socket."""
        handler, record, watch = self._handler, self._handler.session.record, self._sessions.watch
        handler.on_message = self._received(handler.on_message)
        watch.at_stop.add(self._stop)
        if record is not None:
            self.watched = watch.hold(record)
            self.watched.on_end(self._finish)
        try:
            yield
        finally:
            watch.at_stop.discard(self._stop)
            if self.watched is not None:
                watch.release(self.watched)
            del handler.on_message

    def _received(self, on_message: Any) -> Any:
        """Return *on_message* with the limits, and with what follows from the errors of the session."""

        async def received(message: str | bytes) -> None:
            if self._is_closing:
                return
            if not self._bucket.take():
                self._close(POLICY_VIOLATION, "too_many_messages")
                return
            self._touch()
            try:
                result = on_message(message)
                if isawaitable(result):
                    await result
            except WebSocketClosedError:
                if not self._is_closing:
                    raise
            except (SessionEnded, SessionChanged) as exc:
                await self._fail(exc)
            except StoreUnavailable as exc:
                self._handler.log_exception(type(exc), exc, exc.__traceback__)
                self._finish(End.STORE_DOWN)

        return received

    async def _fail(self, error: SessionError) -> None:
        """Close the socket because of an error that no message handler caught.

        It may concern another session, or a value that others kept changing.
        """
        watched = self.watched
        if watched is not None:
            self._sessions.watch.check(watched)
            with suppress(TimeoutError):
                await asyncio.wait_for(watched.ended.wait(), CHECKED_S)
        if not self._is_closing:
            self._handler.log_exception(type(error), error, error.__traceback__)
            self._close(TRY_AGAIN_LATER, "not_saved")

    def _touch(self) -> None:
        """Record activity, if that is due, and then find out whether the session was still live."""
        watched = self.watched
        if not self._counts_messages or watched is None:
            return
        if self._touched_s <= time.monotonic() - TOUCH_AGAIN_S:
            task = self._sessions.touch(SessionState.opened(watched.record))
            if task is not None:
                self._touched_s = time.monotonic()
                task.add_done_callback(lambda _: self._sessions.watch.check(watched))

    def _stop(self) -> None:
        self._finish(End.STOPPED)

    def _finish(self, end: End) -> None:
        self._close(_CODES.get(end, SESSION_OVER), end.value)

    def _close(self, code: int, reason: str) -> None:
        if not self._is_closing:
            self._is_closing = True
            gen_log.debug("a socket of session %s is closed: %s", self._handler.session.handle, reason)
            # Otherwise the close frame after a message waits 40 ms for the client's delayed acknowledgement.
            # Before the handshake it has no effect: Tornado clears it (http1connection.py, _finish_request).
            if self._handler.ws_connection is not None:  # the application has not closed it itself
                self._handler.set_nodelay(True)
            self._handler.close(code, reason)

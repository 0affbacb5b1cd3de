"""`SessionStreamMixin`: server-sent events that end with the session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Protocol

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from stormcellar.errors import SessionEnded
from stormcellar.sessions.live.watched import End
from stormcellar.web.mixin import SessionMixin
from stormcellar.web.socket_limits import counted

OVER = "session_over"
"""The last event of a stream whose session is over; its data is `{"reason": ...}`, a value of `End`."""


class Send(Protocol):
    """Sends one event of a stream."""

    def __call__(self, data: Any, *, event: str | None = None, id: str | None = None) -> Awaitable[None]:
        """Send *data* as JSON.

        Args:
            event: Its type; browsers take `message` if there is none.
            id: A browser that reconnects sends the last one as `Last-Event-ID`.

        Raises:
            ValueError: *event* or *id* has a line break.
        """


class EventStream:
    """Writes events to the response of *handler* until its client goes.

    Args:
        heartbeat_s: A comment is sent after this time without an event.
    """

    def __init__(self, handler: RequestHandler, *, heartbeat_s: float) -> None:
        self._handler = handler
        self._heartbeat_s = heartbeat_s
        self._limit = asyncio.timeout(None)
        self._is_open = False
        self._has_gone = False
        # Tornado keeps one future for all writes: a second one before the first is sent would leave that
        # waiting for ever (http1connection.py, write).
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def while_connected(self) -> AsyncIterator[None]:
        """Send heartbeats while the block runs, and cancel it when the client goes."""
        beats = asyncio.ensure_future(self._beat())
        try:
            async with self._limit:
                self._is_open = True
                if self._has_gone:
                    self.stop()
                try:
                    yield
                finally:
                    self._is_open = False
        except StreamClosedError:
            pass
        except TimeoutError:
            if not self._limit.expired():
                raise
        finally:
            beats.cancel()

    def stop(self) -> None:
        """Cancel the block of `while_connected`, now or when it begins."""
        self._has_gone = True
        if self._is_open:
            self._limit.reschedule(0)

    async def send(self, data: Any, *, event: str | None = None, id: str | None = None) -> None:
        """See `Send`."""
        for value in (event, id):
            if value is not None and set("\r\n\0") & set(value):
                raise ValueError("an event type or ID must not have a line break")
        fields = {"event": event, "id": id, "data": json.dumps(data)}
        await self._write(
            "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)
        )

    async def _beat(self) -> None:
        with suppress(StreamClosedError):
            while True:
                await asyncio.sleep(self._heartbeat_s)
                await self._write(":\n")

    async def _write(self, lines: str) -> None:
        async with self._writing:
            self._handler.write(lines + "\n")
            await self._handler.flush()


class SessionStreamMixin(SessionMixin):
    """Gives a handler `event_stream`. Put it before every other base class.

    The request of a stream is no activity of the session, since browsers repeat it by themselves.
    """

    session_activity = False
    stream_visitors: ClassVar[bool] = False
    """Whether visitors, who are not signed in but have a session, get a stream."""
    heartbeat_s: ClassVar[float] = 15.0
    """A comment is sent after this time without an event, so that no proxy ends the connection."""
    max_streams_per_session: ClassVar[int] = 20
    max_streams_per_address: ClassVar[int] = 200

    @asynccontextmanager
    async def event_stream(self) -> AsyncIterator[Send]:
        """Send server-sent events while the session is live and the client is there::

            async def get(self):
                async with self.event_stream() as send:
                    async for item in feed():
                        await send(item, event="item")

        When the session is over, the block is cancelled and the event `session_over` ends the response.
        When the client goes, the block is cancelled.

        Raises:
            HTTPError: 401: nobody is signed in; 429: too many streams are open; 503: the server stops.
            SessionEnded: There is no session.
            SessionChanged: It ended while changes of the handler were being saved.
        """
        if self.session.user is None and not self.stream_visitors:
            raise HTTPError(401, "a stream was refused: nobody is signed in")
        limits = {"per_session": self.max_streams_per_session, "per_address": self.max_streams_per_address}
        if self.session.record is None:
            raise SessionEnded
        with counted(self, **limits):
            await self.session.commit()
            self.set_header("Content-Type", "text/event-stream")
            self.set_header("Cache-Control", "no-store")
            # nginx would wait until its buffer is full.
            self.set_header("X-Accel-Buffering", "no")
            stream = self._stormcellar.stream = EventStream(self, heartbeat_s=self.heartbeat_s)
            await self.flush()
            # Not earlier: the end of the session would cancel the above, and leave no block to cancel.
            async with self.while_session_lives() as watched, stream.while_connected():
                yield stream.send
            if watched.end not in (None, End.STOPPED):
                with suppress(StreamClosedError):
                    await stream.send({"reason": watched.end.value}, event=OVER)

    def on_connection_close(self) -> None:
        """Cancel the block of `event_stream`: the client has gone."""
        super().on_connection_close()
        stream = self._stormcellar.stream
        if stream is not None:
            stream.stop()

"""`GET /events`: sends to a page what changes while it is shown, and the end of its session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

from tornado.web import HTTPError

from stormcellar.app.error_texts import Problem
from stormcellar.app.handlers.base import PageHandler
from stormcellar.app.handlers.session_list import SessionList
from stormcellar.events import Event, Kind
from stormcellar.sessions.live.watched import Watched
from stormcellar.sessions.manager import SessionManager
from stormcellar.stores import Handle, Record, StoreError
from stormcellar.web.socket_limits import counted
from stormcellar.web.stream_mixin import Send, SessionStreamMixin

LIST_EVERY_S = 3.0
"""How often the sessions of the user are read: a sign-in in another process is announced by no store."""
PAUSE_S = 0.1
"""The least time between two reads, so that "sign out all others" of many sessions costs a few."""


class SessionEvents(SessionStreamMixin, PageHandler):
    """`GET /events` and `GET /events?list=sessions`.

    The event `session` comes first, and again when the session is extended; `sessions` has the list as HTML,
    first and at each change; `session_over` is the last.
    """

    always_json = True
    body_types = ()
    # A page has a stream only while it is visible, so this is an office of a thousand behind one address.
    # It is less than half of the connections that one address may have, which leaves the rest for requests.
    max_streams_per_address = 1000

    async def head(self, *_: str) -> None:
        """Answer with the status that a stream would have: a browser hides that of a stream from scripts."""
        self._wants_list()
        if self.session.user is None:
            raise HTTPError(401)
        limits = {"per_session": self.max_streams_per_session, "per_address": self.max_streams_per_address}
        with counted(self, **limits):
            self.set_header("Content-Type", "text/event-stream")

    async def get(self) -> None:
        """Stream."""
        wants_list = self._wants_list()
        async with self.event_stream() as send:
            record = self.session.record
            assert record is not None
            with Changes(self.sessions, record) as changes:
                await self._tell(changes, send, wants_list)

    async def _tell(self, changes: Changes, send: Send, wants_list: bool) -> None:
        told_ms, shown = None, None
        while True:
            if changes.own.record.expires_ms != told_ms:
                told_ms = changes.own.record.expires_ms
                await send(self._session(told_ms), event="session")
            if wants_list:
                shown = await self._tell_list(changes, send, shown)
                await asyncio.sleep(PAUSE_S)
            await changes.wait(LIST_EVERY_S if wants_list else None)

    def _session(self, expires_ms: int) -> dict[str, Any]:
        return {
            "user": self.session.user,
            "left_s": max(0, expires_ms - self.sessions.now_ms()) // 1000,
            # The browser may have another session ID since the page was loaded.
            "form_token": self.xsrf_token.decode(),
        }

    async def _tell_list(self, changes: Changes, send: Send, shown: object) -> object:
        """Send the list if it differs from *shown*; return what is shown then."""
        assert self.session.user is not None
        try:
            records = await self.sessions.of_user(self.session.user)
        except StoreError:
            return shown
        changes.hold(records)
        found = SessionList(records, here=self.session.handle, now_ms=self.sessions.now_ms())
        if found.facts() != shown:
            html = self.render_string("session-list.html", sessions=found.as_text()).decode()
            await send({"html": html}, event="sessions")
        return found.facts()

    def _wants_list(self) -> bool:
        given = self.get_query_arguments("list", strip=False)
        if given not in ([], ["sessions"]):
            raise Problem(400, "Send list at most once, with the value sessions.")
        return bool(given)


class Changes:
    """Wakes a stream when something has changed that its page shows. A context manager.

    Args:
        record: The session of the stream, as loaded.
    """

    def __init__(self, sessions: SessionManager, record: Record) -> None:
        self._watch = sessions.watch
        self._events = sessions.events
        self._held: dict[Handle, Watched] = {}
        self._has_changed = asyncio.Event()
        self.own = self._watch.hold(record)
        """The session of the stream, as it was last confirmed."""

    def __enter__(self) -> Self:
        self.own.on_new_expiry = self._has_changed.set
        self._events.subscribe(self._on_event)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._events.unsubscribe(self._on_event)
        self.hold(())
        self._watch.release(self.own)

    def hold(self, records: Iterable[Record]) -> None:
        """Wake the stream also when one of *records*, and of no others than these, is over.

        The session of the stream is left out: its end cancels the stream.
        """
        before, self._held = self._held, {}
        for record in records:
            if record.handle == self.own.record.handle:
                continue
            watched = before.pop(record.handle, None)
            if watched is None or watched.end is not None:
                watched = self._watch.hold(record)
                watched.on_end(lambda _: self._has_changed.set())
            self._held[record.handle] = watched
        for watched in before.values():
            self._watch.release(watched)

    async def wait(self, most_s: float | None) -> None:
        """Wait for a change, at most *most_s* seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._has_changed.wait()
        self._has_changed.clear()

    def _on_event(self, event: Event) -> None:
        if event.kind is Kind.AUTHENTICATED and event.user == self.own.record.user:
            self._has_changed.set()

"""Home, and "your sessions": who you are, where you are signed in, and ending that."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from server import values
from server.handlers.base import PageHandler, signed_in
from server.handlers.problems import Problem
from server.handlers.words import agent_name, ago
from stores import Record


class Home(PageHandler):
    """`GET /`."""

    async def get(self) -> None:
        """Show who you are and what your session holds."""
        data = self.session_data()
        if self.wants_json:
            self.write({"user": self.session.user, "data": data})
            return
        record = self.session.record
        since = ago(self.sessions.now_ms() - record.auth_ms) if record and record.auth_ms else None
        shown = {key: json.dumps(value, ensure_ascii=False) for key, value in data.items()}
        self.render("home.html", user=self.session.user, since=since, data=shown)


class Sessions(PageHandler):
    """`GET /account/sessions`."""

    @signed_in
    async def get(self) -> None:
        """List where this user is signed in: here first, then the latest sign-in."""
        assert self.session.user is not None
        records = await self.sessions.of_user(self.session.user)
        records.sort(key=lambda record: record.handle != self.session.handle)
        listed = [_listed(record, current=record.handle == self.session.handle) for record in records]
        if self.wants_json:
            self.write({"sessions": listed})
            return
        now_ms = self.sessions.now_ms()
        shown = [
            {**item, "client": agent_name(item["agent"]), "seen": ago(now_ms - record.seen_ms)}
            for item, record in zip(listed, records, strict=True)
        ]
        self.render("sessions.html", user=self.session.user, sessions=shown)


class Revoke(PageHandler):
    """`POST /account/sessions/<handle>/revoke`."""

    page = "/account/sessions"

    @signed_in
    async def post(self, handle: str) -> None:
        """End one session of this user; another user's is as unknown as a random one."""
        assert self.session.user is not None
        if handle == self.session.handle:
            await self.session.logout()
            _done(self, "/")
        elif await self.sessions.revoke(self.session.user, handle):
            _done(self, self.page)
        else:
            raise Problem(404)


class RevokeOthers(PageHandler):
    """`POST /account/sessions/revoke-others`."""

    page = "/account/sessions"

    @signed_in
    async def post(self) -> None:
        """End every session of this user but this one."""
        assert self.session.user is not None and self.session.handle is not None
        await self.sessions.revoke_others(self.session.user, than=self.session.handle)
        _done(self, self.page)


def _done(handler: PageHandler, page: str) -> None:
    if handler.wants_json:
        handler.set_status(204)
    else:
        handler.see_other(page)


def _listed(record: Record, *, current: bool) -> dict[str, Any]:
    client = _client(record)
    return {
        "handle": record.handle,
        "created_at": iso_utc(record.created_ms),
        "seen_at": iso_utc(record.seen_ms),
        "address": str(client.get("address", "")),
        "agent": str(client.get("agent", "")),
        "current": current,
    }


def _client(record: Record) -> dict[str, Any]:
    """Return what *record* tells about its client; nothing if it was written by somebody else."""
    with suppress(values.NotJSON):
        client = values.decode(record.client)
        if isinstance(client, dict):
            return client
    return {}


def iso_utc(unix_ms: int) -> str:
    """Return *unix_ms* as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(unix_ms // 1000, UTC).isoformat().replace("+00:00", "Z")

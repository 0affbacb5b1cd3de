"""Home, and "your sessions": who you are, where you are signed in, and ending that."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from server import values
from server.handlers.base import PageHandler, signed_in
from server.handlers.problems import Problem
from stores import Record


class Home(PageHandler):
    """`GET /`."""

    async def get(self) -> None:
        """Show who you are and what your session holds."""
        data = {key: json.dumps(value, ensure_ascii=False) for key, value in self.session.items()}
        if self.wants_json:
            self.write({"user": self.session.user, "data": dict(self.session)})
        else:
            self.render("home.html", user=self.session.user, data=data, record=self.session.record)


class Sessions(PageHandler):
    """`GET /account/sessions`."""

    @signed_in
    async def get(self) -> None:
        """List where this user is signed in."""
        assert self.session.user is not None
        records = await self.sessions.of_user(self.session.user)
        listed = [_listed(record, current=record.handle == self.session.handle) for record in records]
        if self.wants_json:
            self.write({"sessions": listed})
        else:
            self.render("sessions.html", user=self.session.user, sessions=listed)


class Revoke(PageHandler):
    """`POST /account/sessions/<handle>/revoke`."""

    @signed_in
    async def post(self, handle: str) -> None:
        """End one session of this user; another user's is as unknown as a random one."""
        assert self.session.user is not None
        if handle == self.session.handle:
            await self.session.logout()
        elif not await self.sessions.revoke(self.session.user, handle):
            raise Problem(404)
        _done(self)


class RevokeOthers(PageHandler):
    """`POST /account/sessions/revoke-others`."""

    @signed_in
    async def post(self) -> None:
        """End every session of this user but this one."""
        assert self.session.user is not None and self.session.handle is not None
        await self.sessions.revoke_others(self.session.user, than=self.session.handle)
        _done(self)


def _done(handler: PageHandler) -> None:
    if handler.wants_json:
        handler.set_status(204)
    else:
        handler.see_other("/account/sessions")


def _listed(record: Record, *, current: bool) -> dict[str, Any]:
    client = values.decode(record.client) if record.client else {}
    return {
        "handle": record.handle,
        "created_at": iso_utc(record.created_ms),
        "seen_at": iso_utc(record.seen_ms),
        "address": client.get("address", ""),
        "agent": client.get("agent", ""),
        "current": current,
    }


def iso_utc(unix_ms: int) -> str:
    """Return *unix_ms* as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(unix_ms // 1000, UTC).isoformat().replace("+00:00", "Z")

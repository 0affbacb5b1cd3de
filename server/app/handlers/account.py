"""Home, and "your sessions": who you are, where you are signed in, and ending that."""

from __future__ import annotations

import json
from typing import Any

from stormcellar.app.handlers.base import signed_in
from stormcellar.app.handlers.confirm import ConfirmingPage
from stormcellar.app.handlers.display import agent_name, ago
from stormcellar.app.handlers.pages import Page, refused_in_form
from stormcellar.app.problems import Problem
from stormcellar.sessions.request_info import decoded_client
from stormcellar.stores import Record
from stormcellar.timestamps import iso_utc
from stormcellar.web.reauthentication import reauthenticated


class Home(Page):
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


class Sessions(Page):
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
        shown = [{**item, **self._in_words(record)} for item, record in zip(listed, records, strict=True)]
        self.render("sessions.html", sessions=shown)

    def _in_words(self, record: Record) -> dict[str, str]:
        now_ms = self.sessions.now_ms()
        return {
            "client": agent_name(_client(record)["agent"]),
            "seen": "now" if record.handle == self.session.handle else ago(now_ms - record.seen_ms),
            "signed_in": ago(now_ms - (record.auth_ms or record.created_ms)),
        }


class Revoke(ConfirmingPage):
    """`POST /account/sessions/<handle>/revoke`."""

    page = "/account/sessions"

    @signed_in
    @refused_in_form
    async def post(self, handle: str) -> None:
        """End one session of this user; this one at once, another once it is sure who asks."""
        if handle == self.session.handle:
            await self.session.logout()
            self.clear_site()
            self.done("/signed-out")
        else:
            await self._revoke_other(handle)

    @reauthenticated()
    async def _revoke_other(self, handle: str) -> None:
        """End it; another user's is as unknown as a random one."""
        assert self.session.user is not None
        if not await self.sessions.revoke(self.session.user, handle, address=self.client_address()):
            raise Problem(404)
        self.done(self.page, "That session is signed out.")


class RevokeOthers(ConfirmingPage):
    """`POST /account/sessions/revoke-others`."""

    page = "/account/sessions"

    @signed_in
    @refused_in_form
    @reauthenticated()
    async def post(self) -> None:
        """End every session of this user but this one."""
        assert self.session.user is not None and self.session.handle is not None
        here, address = self.session.handle, self.client_address()
        await self.sessions.revoke_others(self.session.user, than=here, address=address)
        self.done(self.page, "All other sessions are signed out.")


def _listed(record: Record, *, current: bool) -> dict[str, Any]:
    return {
        "handle": record.handle,
        "created_at": iso_utc(record.created_ms),
        "authenticated_at": iso_utc(record.auth_ms or record.created_ms),
        "seen_at": iso_utc(record.seen_ms),
        **_client(record),
        "current": current,
    }


def _client(record: Record) -> dict[str, str]:
    """Return the address and the agent that *record* tells; empty if somebody else wrote it."""
    client = decoded_client(record.client)
    return {name: str(client.get(name, "")) for name in ("address", "agent")}

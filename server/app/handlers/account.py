"""The home page, and the list of the user's sessions."""

from __future__ import annotations

import json

from stormcellar.app.error_texts import Problem
from stormcellar.app.handlers.base import signed_in
from stormcellar.app.handlers.confirm import ConfirmingPage
from stormcellar.app.handlers.display import ago
from stormcellar.app.handlers.pages import STALE, Page, shows_errors_in_form
from stormcellar.app.handlers.session_list import SessionList
from stormcellar.web.reauthentication import reauthenticated


class Home(Page):
    """`GET /`."""

    async def get(self) -> None:
        """Show the user and the session data."""
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
        """List the user's sessions."""
        await _list_sessions(self)


class ListedForm(ConfirmingPage):
    """A form of the page that lists the sessions."""

    page = "/account/sessions"

    async def show_again(self) -> None:
        """List the sessions: some may have ended, or belong to another user than before."""
        await _list_sessions(self, f"{STALE} These are your sessions now.")


class Revoke(ListedForm):
    """`POST /account/sessions/<handle>/revoke`."""

    store_down = (
        "The session store does not respond, so the session may still be signed in. Try again in a moment."
    )

    @signed_in
    @shows_errors_in_form
    async def post(self, handle: str) -> None:
        """End one of the user's sessions; any but the current one requires a recent sign-in."""
        if handle == self.session.handle:
            await self.session.logout()
            self.answer_form("/signed-out")
        else:
            await self._revoke_other(handle)

    @reauthenticated()
    async def _revoke_other(self, handle: str) -> None:
        """End another session; 404 for one of another user, as for an unknown handle."""
        assert self.session.user is not None
        if not await self.sessions.revoke(self.session.user, handle, address=self.client_address()):
            raise Problem(404, "This session does not exist, or it has already ended.")
        self.answer_form(self.page, "The session was signed out.")


class RevokeOthers(ListedForm):
    """`POST /account/sessions/revoke-others`."""

    store_down = (
        "The session store does not respond, so some of the other sessions may still be signed in. Try again"
        " in a moment."
    )

    @signed_in
    @shows_errors_in_form
    @reauthenticated()
    async def post(self) -> None:
        """End all sessions of the user but the current one."""
        assert self.session.user is not None and self.session.handle is not None
        here, address = self.session.handle, self.client_address()
        await self.sessions.revoke_others(self.session.user, than=here, address=address)
        self.answer_form(self.page, "All other sessions were signed out.")


async def _list_sessions(page: Page, error: str | None = None) -> None:
    """Answer with the user's sessions."""
    assert page.session.user is not None
    found = SessionList(
        await page.sessions.of_user(page.session.user),
        here=page.session.handle,
        now_ms=page.sessions.now_ms(),
    )
    if page.wants_json:
        page.write({"sessions": found.as_json()})
    else:
        page.render("sessions.html", sessions=found.as_text(), error=error)

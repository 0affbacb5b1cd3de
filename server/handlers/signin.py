"""Signing in and out, with a new session ID each time."""

from __future__ import annotations

from server.errors import SignInRevoked
from server.handlers.base import BaseHandler, PageHandler
from server.handlers.bodies import text_fields
from server.handlers.negotiation import safe_next
from server.handlers.problems import Problem


class Login(PageHandler):
    """`GET` and `POST /login`."""

    page = "/login"

    async def get(self) -> None:
        """Show the form."""
        target = self.get_query_argument("next", None, strip=False)
        self._show(next_page=safe_next(target))

    async def post(self) -> None:
        """Check the password, then bind the user to a new session ID."""
        fields = text_fields(self.request, "username", "password", optional="next")
        next_page = safe_next(fields.get("next"))
        # Before the hash is read, so that a password change meanwhile makes this sign-in too old.
        auth_ms = self.sessions.now_ms()
        user = await self.context.accounts.verify(fields["username"], fields["password"])
        if user is None:
            self._refuse(next_page)
            return
        try:
            await self.session.login(user, keep=self.context.carry, auth_ms=auth_ms)
        except SignInRevoked:
            self._refuse(next_page)
            return
        if self.wants_json:
            self.write({"user": user})
        else:
            self.see_other(next_page)

    def _refuse(self, next_page: str) -> None:
        """Answer every wrong credential alike."""
        wrong = Problem(401, code="bad_credentials")
        if self.wants_json:
            raise wrong
        self.set_status(401)
        self._show(next_page=next_page, error=wrong.message)

    def _show(self, *, next_page: str, error: str | None = None) -> None:
        self.render("login.html", next_page=next_page, error=error, user=self.session.user)


class Logout(PageHandler):
    """`POST /logout`."""

    def check_xsrf_cookie(self) -> None:
        """Ask a visitor without a session for no token: there is nothing to protect, and nothing happens."""
        if self._presented() is None:
            BaseHandler.check_xsrf_cookie(self)
        else:
            super().check_xsrf_cookie()

    async def post(self) -> None:
        """End the session in the store, then clear the cookie; the same answer if there was none."""
        await self.session.logout()
        if self.wants_json:
            self.set_status(204)
        else:
            self.see_other("/")

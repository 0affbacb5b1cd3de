"""Signing in and out, with a new session ID each time."""

from __future__ import annotations

from stormcellar.app.handlers.base import BaseHandler
from stormcellar.app.handlers.bodies import JSON, is_plain_type, json_object, text_fields
from stormcellar.app.handlers.display import duration
from stormcellar.app.handlers.negotiation import safe_next
from stormcellar.app.handlers.pages import FormPage, Page, WrongPassword, refused_in_form
from stormcellar.app.problems import Problem
from stormcellar.app.security_headers import CLEAR_CACHE
from stormcellar.errors import SignInRevoked


class Login(FormPage):
    """`GET` and `POST /login`."""

    page = "/login"
    _next_page = "/"
    _remember = False

    async def get(self) -> None:
        """Show the form."""
        self._next_page = safe_next(self.get_query_argument("next", None, strip=False))
        self.show()

    @refused_in_form
    async def post(self) -> None:
        """Check the password, then bind the user to a new session ID."""
        fields = text_fields(self.request, "username", "password", optional=("next",))
        self._next_page = safe_next(fields.get("next"))
        self._remember = self._is_to_remember()
        # Before the hash is read, so that a password change meanwhile makes this sign-in too old.
        auth_ms = self.sessions.now_ms()
        user = await self.check_password(fields["username"], fields["password"])
        if user is None:
            raise WrongPassword(401)
        try:
            keep, remember = self.context.carry, self._remember
            await self.session.login(user, keep=keep, auth_ms=auth_ms, remember=remember)
        except SignInRevoked:  # to whoever was locked out meanwhile, as to everybody else
            raise WrongPassword(401) from None
        if self.wants_json:
            self.write({"user": user})
        else:
            self.see_other(self._next_page)

    def show(self, error: str | None = None) -> None:
        """Show the form."""
        remember_s = self.sessions.lifetime.remember_s
        self.render(
            "login.html",
            next_page=self._next_page,
            error=error,
            remember_for=duration(round(remember_s)) if remember_s else None,
            remember=self._remember,
        )

    def _is_to_remember(self) -> bool:
        """Whether `remember` was given: `true` in JSON, a box with the value `yes` in a form.

        Raises:
            Problem: 400 for anything else.
        """
        if "remember" in self.request.query_arguments:
            raise Problem(400, "remember is taken from the body only.")
        if is_plain_type(self.request.headers.get("Content-Type", ""), JSON):
            given = json_object(self.request, unique=True).get("remember")
            if not isinstance(given, bool | None):
                raise Problem(400, "remember must be true or false.")
            return given is True
        sent = self.request.body_arguments.get("remember", [])
        if sent not in ([], [b"yes"]):
            raise Problem(400, "remember must be yes, once, or left out.")
        return bool(sent)


class Logout(Page):
    """`POST /logout`."""

    def check_xsrf_cookie(self) -> None:
        """Ask a visitor without a session for no token: there is nothing to protect, and nothing happens."""
        if self.presented_handle() is None:
            BaseHandler.check_xsrf_cookie(self)
        else:
            super().check_xsrf_cookie()

    async def post(self) -> None:
        """End the session in the store, then clear the browser; the same answer if there was none."""
        await self.session.logout()
        self.clear_site()
        self.done("/signed-out")


class ForgetPages(BaseHandler):
    """`GET /forget.css`: no style at all, but the browser drops the pages that it keeps of this site.

    Chromium keeps a page for the back button in spite of `no-store`, and the last one before a sign-out only
    when the next is there: too late for what the answer to the sign-out says. So that next page loads this.
    """

    def get(self) -> None:
        """Answer."""
        self.set_header("Content-Type", "text/css; charset=UTF-8")
        self.set_header("Clear-Site-Data", CLEAR_CACHE)


class SignedOut(Page):
    """`GET /signed-out`: where signing out leads."""

    async def get(self) -> None:
        """Say so, unless somebody is signed in: then the way leads home."""
        if self.session.user is None:
            self.render("signed-out.html")
        else:
            self.see_other("/")

"""Sign in and sign out."""

from __future__ import annotations

from stormcellar.accounts.account_names import MAX_TYPED, canonical_name
from stormcellar.app.error_texts import Problem
from stormcellar.app.handlers.base import BaseHandler
from stormcellar.app.handlers.bodies import JSON, form_field, is_plain_type, json_object, text_fields
from stormcellar.app.handlers.display import duration
from stormcellar.app.handlers.negotiation import safe_next
from stormcellar.app.handlers.pages import STALE, FormPage, Page, WrongPassword, shows_errors_in_form
from stormcellar.app.security_headers import CLEAR
from stormcellar.errors import SignInRevoked
from stormcellar.web.csrf_mixin import InvalidFormToken

NO_COOKIE = (
    "Your browser did not send the cookie of this page. Try again. If this message appears again, allow"
    " cookies for this site."
)


class Login(FormPage):
    """`GET` and `POST /login`."""

    page = "/login"
    _next_page = "/"
    _has_ended = False
    _name = ""
    _remember = False

    async def get(self) -> None:
        """Render the form."""
        self._next_page = safe_next(self.get_query_argument("next", None, strip=False))
        self._has_ended = "ended" in self.request.query_arguments
        self.show()

    async def answer_refused(self, refused: InvalidFormToken) -> None:
        """Lead the person on who is signed in already; else show the form with what was typed."""
        self._next_page = safe_next(form_field(self.request, "next"))
        self._name = form_field(self.request, "username")
        self._remember = form_field(self.request, "remember") == "yes"
        if self.session.user is not None and self.session.user == canonical_name(self._name):
            self.see_other(self._next_page)
        else:
            self.set_status(refused.status_code)
            self.show(f"{STALE} Enter your password again." if refused.has_cookie else NO_COOKIE)

    @shows_errors_in_form
    async def post(self) -> None:
        """Check the password, then bind the user to the session under a new ID."""
        fields = text_fields(self.request, "username", "password", optional=("next",))
        self._next_page = safe_next(fields.get("next"))
        self._name = fields["username"]
        self._remember = self._wants_remember()
        # Taken before the hash is read: a password change after this time invalidates the sign-in.
        auth_ms = self.sessions.now_ms()
        user = await self.check_password(self._name, fields["password"])
        if user is None:
            raise WrongPassword(401)
        try:
            keep, remember = self.context.carry, self._remember
            await self.session.login(user, keep=keep, auth_ms=auth_ms, remember=remember)
        except SignInRevoked:  # the same answer, so it does not reveal that the account exists
            raise WrongPassword(401) from None
        await self.remember_device(user)
        if self.wants_json:
            self.write({"user": user})
        else:
            self.see_other(self._next_page)

    def show(self, error: str | None = None) -> None:
        """Render the form, with what was typed, but never with a password."""
        remember_s = self.sessions.lifetime.remember_s
        self.render(
            "login.html",
            next_page=self._next_page,
            has_ended=self._has_ended,
            username=self._name if len(self._name) <= MAX_TYPED else "",
            error=error,
            remember_for=duration(round(remember_s)) if remember_s else None,
            remember=self._remember,
        )

    def _wants_remember(self) -> bool:
        """Whether `remember` is set: `true` in JSON, a checkbox with the value `yes` in a form.

        Raises:
            Problem: 400 for any other value.
        """
        if "remember" in self.request.query_arguments:
            raise Problem(400, "Send remember in the body, not in the URL.")
        if is_plain_type(self.request.headers.get("Content-Type", ""), JSON):
            given = json_object(self.request, unique=True).get("remember")
            if not isinstance(given, bool | None):
                raise Problem(400, "remember must be true or false.")
            return given is True
        sent = self.request.body_arguments.get("remember", [])
        if sent not in ([], [b"yes"]):
            raise Problem(400, "remember must be sent once with the value yes, or omitted.")
        return bool(sent)


class Logout(Page):
    """`POST /logout`."""

    # "may": a delete whose reply was lost has an unknown outcome.
    store_down = "The session store does not respond, so you may still be signed in. Try again in a moment."

    def check_xsrf_cookie(self) -> None:
        """Require no form token of a visitor: without a session there is nothing to end."""
        if self.presented_handle() is None:
            BaseHandler.check_xsrf_cookie(self)
        else:
            super().check_xsrf_cookie()

    async def answer_refused(self, refused: InvalidFormToken) -> None:
        """Ask once more, with a new form; without a user there is nothing to end."""
        if self.session.user is None:
            self.see_other("/signed-out")
        else:
            self.set_status(refused.status_code)
            self.render("sign-out.html")

    async def post(self) -> None:
        """End the session in the store; also succeed without a session."""
        await self.session.logout()
        self.answer_form("/signed-out")


class Forget(BaseHandler):
    """`GET /forget.css`: an empty style sheet whose Clear-Site-Data header clears what the browser keeps.

    Chromium keeps pages for the back button in spite of `no-store`. It stores the last page before a sign-out
    only when the next one has loaded, so the signed-out page loads this style sheet. It is one for printing:
    clearing takes seconds with a large cache, and a browser shows a page without waiting for those.
    """

    def get(self) -> None:
        """Answer without rules; clear nothing for a page of another site."""
        self.set_header("Content-Type", "text/css; charset=UTF-8")
        if self.request.headers.get("Sec-Fetch-Site") == "same-origin":
            self.set_header("Clear-Site-Data", CLEAR)


class SignedOut(Page):
    """`GET /signed-out`: the page after signing out."""

    async def get(self) -> None:
        """Render the page; a signed-in user is redirected to the home page."""
        if self.session.user is None:
            self.render("signed-out.html")
        else:
            self.see_other("/")

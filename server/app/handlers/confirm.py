"""Asking for the password again before what matters, without losing what was being done."""

from __future__ import annotations

from urllib.parse import urlencode

from stormcellar.app.handlers.base import signed_in
from stormcellar.app.handlers.bodies import FORM, is_plain_type, text_fields
from stormcellar.app.handlers.negotiation import safe_next
from stormcellar.app.handlers.pages import FormPage, WrongPassword, refused_in_form
from stormcellar.app.problems import Problem
from stormcellar.errors import ReauthenticationRequired
from stormcellar.web.tornado_request import SAFE_METHODS

WRONG = "That is not your password. Nothing was done."


class ConfirmingPage(FormPage):
    """A page with actions for which `server.reauthenticated` may want the password again.

    A form is answered with the question in its place, which sends the same fields to the same address once
    more. The answer changes the session ID, so the form token in it is good for one time: reloading the
    result does nothing twice.
    """

    async def reauthenticate(self) -> bool:
        """Take the password if the request brings one, else ask for it.

        Raises:
            ReauthenticationRequired: In JSON, which gets its proof at `/account/confirm`.
        """
        is_form = is_plain_type(self.request.headers.get("Content-Type", ""), FORM)
        if self.wants_json or not (is_form or self.request.method in SAFE_METHODS):
            raise ReauthenticationRequired
        if self.request.method in SAFE_METHODS:
            self.see_other("/account/confirm?" + urlencode({"next": safe_next(self.request.uri)}))
            return False
        if "password" in self.request.body_arguments:
            await self.prove(text_fields(self.request, "password")["password"])
            return True
        self.set_status(ReauthenticationRequired.status)
        self.show()
        return False

    async def prove(self, password: str) -> None:
        """Check the user's *password*; the session gets a new ID and a new time of sign-in.

        Raises:
            WrongPassword, Throttled, Busy, SignInRevoked, StoreUnavailable
        """
        assert self.session.user is not None
        auth_ms = self.sessions.now_ms()
        user = await self.check_password(self.session.user, password)
        if user is None:
            raise WrongPassword(403, WRONG)
        # Not afresh: a session that was signed out meanwhile stays so, and a second click does nothing twice.
        await self.session.login(user, auth_ms=auth_ms, afresh=False)

    def show(self, error: str | None = None) -> None:
        """Ask for the password, in a form that sends along what was sent here."""
        self.render(
            "confirm.html",
            action=self.request.path,
            fields=_resent(self.request.body_arguments),
            cancel=self.page,
            error=error,
        )


def _resent(given: dict[str, list[bytes]]) -> list[tuple[str, str]]:
    """Return the fields to send again: neither a token that will be dead, nor anything like a password."""
    try:
        return [
            (name, value.decode())
            for name, values in given.items()
            for value in values
            if name != "_xsrf" and "password" not in name.lower()
        ]
    except UnicodeDecodeError:
        raise Problem(400) from None


class Confirm(ConfirmingPage):
    """`GET` and `POST /account/confirm`: the question on a page of its own."""

    _next_page = "/"

    @signed_in
    async def get(self) -> None:
        """Ask."""
        self._next_page = safe_next(self.get_query_argument("next", None, strip=False))
        self.show()

    @signed_in
    @refused_in_form
    async def post(self) -> None:
        """Take the answer, and lead on."""
        fields = text_fields(self.request, "password", optional=("next",))
        self._next_page = safe_next(fields.get("next"))
        await self.prove(fields["password"])
        self.done(self._next_page)

    def show(self, error: str | None = None) -> None:
        """Show the form."""
        fields = [("next", self._next_page)]
        self.render("confirm.html", action=self.request.path, fields=fields, cancel="/", error=error)

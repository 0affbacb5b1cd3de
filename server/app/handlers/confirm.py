"""Confirm the password before a sensitive action, and continue with that action."""

from __future__ import annotations

from urllib.parse import urlencode

from stormcellar.app.error_texts import Problem
from stormcellar.app.handlers.base import signed_in
from stormcellar.app.handlers.bodies import FORM, form_field, is_plain_type, text_fields
from stormcellar.app.handlers.negotiation import safe_next
from stormcellar.app.handlers.pages import FormPage, WrongPassword, shows_errors_in_form
from stormcellar.errors import ReauthenticationRequired
from stormcellar.web.tornado_request import SAFE_METHODS

WRONG = "The password is wrong. Try again."


class ConfirmingPage(FormPage):
    """A page with actions that `reauthenticated` protects.

    If a password is needed, the response to a form is a page that asks for it. That page contains the fields
    of the form as hidden fields, and sends them to the same URL together with the password. The password
    rotates the session ID, which invalidates the form token: reloading the result does not repeat the action.
    """

    async def reauthenticate(self) -> bool:
        """Check the password if the request contains one, else ask for it.

        Raises:
            ReauthenticationRequired: In JSON; such a client sends the password to `/account/confirm`.
        """
        is_form = is_plain_type(self.request.headers.get("Content-Type", ""), FORM)
        if self.wants_json or not (is_form or self.request.method in SAFE_METHODS):
            raise ReauthenticationRequired
        if self.request.method in SAFE_METHODS:
            self.see_other("/account/confirm?" + urlencode({"next": safe_next(self.request.uri)}))
            return False
        if "password" in self.request.body_arguments:
            await self.confirm_password(text_fields(self.request, "password")["password"])
            return True
        self.set_status(ReauthenticationRequired.status)
        self.show()
        return False

    async def confirm_password(self, password: str) -> None:
        """Check the user's *password*, rotate the session ID, and renew the time of sign-in.

        Raises:
            WrongPassword, Throttled, Busy, SignInRevoked, StoreUnavailable
        """
        assert self.session.user is not None
        auth_ms = self.sessions.now_ms()
        user = await self.check_password(self.session.user, password)
        if user is None:
            raise WrongPassword(403, WRONG)
        # afresh=False: a session signed out meanwhile stays signed out, and a double click acts once.
        await self.session.login(user, auth_ms=auth_ms, afresh=False)
        await self.remember_device(user)

    def show(self, error: str | None = None) -> None:
        """Ask for the password, in a form that repeats the fields of this request."""
        self.render(
            "confirm.html",
            action=self.request.path,
            fields=_repeated(self.request.body_arguments),
            cancel=self.page,
            error=error,
        )


def _repeated(given: dict[str, list[bytes]]) -> list[tuple[str, str]]:
    """Return the fields to repeat, without the form token, which expires, and without passwords."""
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
    """`GET` and `POST /account/confirm`: the password on a page of its own."""

    # "may": if the reply of a rotation was lost, the browser has the old session ID.
    store_down = "The session store does not respond. Try again in a moment; you may have to sign in again."
    _next_page = "/"

    @signed_in
    async def get(self) -> None:
        """Ask for the password."""
        self._next_page = safe_next(self.get_query_argument("next", None, strip=False))
        self.show()

    @signed_in
    @shows_errors_in_form
    async def post(self) -> None:
        """Check the password, and redirect to the next page."""
        fields = text_fields(self.request, "password", optional=("next",))
        self._next_page = safe_next(fields.get("next"))
        await self.confirm_password(fields["password"])
        self.answer_form(self._next_page)

    async def show_again(self) -> None:
        """Show the form with its target."""
        self._next_page = safe_next(form_field(self.request, "next"))
        await super().show_again()

    def show(self, error: str | None = None) -> None:
        """Render the form."""
        fields = [("next", self._next_page)]
        self.render("confirm.html", action=self.request.path, fields=fields, cancel="/", error=error)

"""Change the password, and end all other sessions of the user."""

from __future__ import annotations

from stormcellar.app.error_texts import Problem
from stormcellar.app.handlers.base import BaseHandler, signed_in
from stormcellar.app.handlers.bodies import text_fields
from stormcellar.app.handlers.pages import FormPage, WrongPassword, shows_errors_in_form
from stormcellar.errors import SessionChanged, SignInRevoked
from stormcellar.events import Kind

WRONG = "The current password is wrong. Nothing was changed. Try again."
ACCOUNT_CHANGED = (
    "Your account was changed at the same time, maybe by a double click. Sign in with your current password."
)
SIGNED_OUT = "Your password was changed, and you were signed out. Sign in with the new password."
CHANGED = "Your password was changed. You are signed out everywhere else."


class Password(FormPage):
    """`GET` and `POST /account/password`."""

    page = "/account/password"

    @signed_in
    async def get(self) -> None:
        """Render the form."""
        self.show()

    @signed_in
    @shows_errors_in_form
    async def post(self) -> None:
        """Check the current password, store the new one, rotate the session ID, end all other sessions."""
        assert self.session.user is not None
        fields = text_fields(self.request, "current", "new")
        verified_ms = self.sessions.now_ms()
        user = await self.check_password(self.session.user, fields["current"])
        if user is None:
            raise WrongPassword(403, WRONG)
        valid_after = await self._set_password(user, fields["new"], verified_ms)
        self.emit(Kind.PASSWORD_CHANGED, user=user)
        # Sign-ins up to valid_after no longer count, also those during this request: date this one later.
        try:
            await self.session.login(user, auth_ms=valid_after + 1, afresh=False)
        except SessionChanged:
            raise Problem(409, SIGNED_OUT, code="session_changed") from None
        assert self.session.handle is not None
        await self.sessions.revoke_others(user, than=self.session.handle, address=self.client_address())
        self.answer_form("/", CHANGED)

    async def _set_password(self, user: str, new: str, verified_ms: int) -> int:
        try:
            return await self.context.accounts.set_password(user, new, verified_ms=verified_ms)
        except SignInRevoked:
            raise Problem(409, ACCOUNT_CHANGED, code="session_changed") from None

    def show(self, error: str | None = None) -> None:
        """Render the form."""
        self.render("password.html", error=error)


class ChangePasswordRedirect(BaseHandler):
    """`GET /.well-known/change-password`, for password managers (W3C, A Well-Known URL)."""

    def get(self) -> None:
        """Redirect to the page."""
        self.see_other(Password.page)

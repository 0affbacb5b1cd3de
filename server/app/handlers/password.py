"""Change the password, and end all other sessions of the user."""

from __future__ import annotations

from stormcellar.app.error_texts import Problem, done
from stormcellar.app.handlers.base import BaseHandler, signed_in
from stormcellar.app.handlers.bodies import text_fields
from stormcellar.app.handlers.pages import FormPage, WrongPassword, shows_errors_in_form
from stormcellar.errors import SignInRevoked
from stormcellar.events import Kind
from stormcellar.stores import StoreUnavailable

WRONG = "The current password is wrong. Try again."
ACCOUNT_CHANGED = (
    "Your account was changed at the same time, maybe by a double click. Sign in with your current password."
)
SIGNED_OUT = "Your password was changed, and you were signed out. Sign in with the new one."
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
        self.done = Problem(409, SIGNED_OUT, code="password_changed")
        # Sign-ins up to valid_after no longer count, also those during this request: date this one later.
        await self.session.login(user, auth_ms=valid_after + 1, afresh=False)
        self.done = done(CHANGED)
        # Again: with the password, the account has a new set of known devices.
        await self.remember_device(user)
        await self._end_others(user)
        self.answer_form("/", CHANGED)

    async def _end_others(self, user: str) -> None:
        """Delete the records of the other sessions; if that fails, they stay without counting."""
        assert self.session.handle is not None
        try:
            await self.sessions.revoke_others(user, than=self.session.handle, address=self.client_address())
        except StoreUnavailable as error:
            self.log_exception(StoreUnavailable, error, error.__traceback__)

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

"""Changing the password, which ends every other session of its user."""

from __future__ import annotations

from stormcellar.app.handlers.base import BaseHandler, signed_in
from stormcellar.app.handlers.bodies import text_fields
from stormcellar.app.handlers.pages import FormPage, WrongPassword, refused_in_form
from stormcellar.app.problems import Problem
from stormcellar.errors import SessionChanged, SignInRevoked
from stormcellar.events import Kind

WRONG = "The current password is wrong. Nothing was changed."
MEANWHILE = (
    "Your account changed meanwhile, perhaps by a second click. Sign in with the password that holds now."
)
SIGNED_OUT = "Your password is changed, and you were signed out meanwhile. Sign in with the new one."
CHANGED = "Your password is changed. Everywhere else you are signed out."


class Password(FormPage):
    """`GET` and `POST /account/password`."""

    page = "/account/password"

    @signed_in
    async def get(self) -> None:
        """Show the form."""
        self.show()

    @signed_in
    @refused_in_form
    async def post(self) -> None:
        """Check the current password, store the new one, then go on under a new session ID, alone."""
        assert self.session.user is not None
        fields = text_fields(self.request, "current", "new")
        verified_ms = self.sessions.now_ms()
        user = await self.check_password(self.session.user, fields["current"])
        if user is None:
            raise WrongPassword(403, WRONG)
        valid_after = await self._set(user, fields["new"], verified_ms)
        self.tell(Kind.PASSWORD_CHANGED, user=user)
        # From here on no session of before counts, nor one that began while this ran; this one is later.
        try:
            await self.session.login(user, auth_ms=valid_after + 1, afresh=False)
        except SessionChanged:
            raise Problem(409, SIGNED_OUT, code="session_changed") from None
        assert self.session.handle is not None
        await self.sessions.revoke_others(user, than=self.session.handle, address=self.client_address())
        self.done("/", CHANGED)

    async def _set(self, user: str, new: str, verified_ms: int) -> int:
        try:
            return await self.context.accounts.set_password(user, new, verified_ms=verified_ms)
        except SignInRevoked:
            raise Problem(409, MEANWHILE, code="session_changed") from None

    def show(self, error: str | None = None) -> None:
        """Show the form."""
        self.render("password.html", error=error)


class WhereToChange(BaseHandler):
    """`GET /.well-known/change-password`: where password managers lead. Source: W3C, A Well-Known URL."""

    def get(self) -> None:
        """Lead to the page."""
        self.see_other(Password.page)

"""Base classes of HTML pages: the end of the session, flash messages, forms with a password."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from stormcellar.accounts.throttle import KNOWN_S
from stormcellar.app.error_texts import Problem, describe, done
from stormcellar.app.handlers import idle
from stormcellar.app.handlers.base import PageHandler
from stormcellar.app.handlers.negotiation import is_local
from stormcellar.errors import PasswordRefused, Throttled
from stormcellar.web.csrf_mixin import InvalidFormToken
from stormcellar.web.tornado_request import SAFE_METHODS


class Page(PageHandler):
    """A handler whose template extends `page.html`."""

    def expiry(self) -> idle.Expiry | None:
        """Return when the user will be signed out, for the template."""
        uri = self.request.uri or "/"
        url = uri if self.request.method in SAFE_METHODS and is_local(uri) else self.page
        return idle.expiry(self.sessions, self.session, continue_url=url)

    def flashes(self) -> list[str]:
        """Return and remove the flash messages, for the template; HEAD and refused forms leave them."""
        return [] if self.request.method == "HEAD" or self.refused else self.session.flashes()

    def answer_form(self, page: str, message: str | None = None) -> None:
        """Answer a form that succeeded: redirect to *page* and show *message* there once; 204 in JSON.

        If the store fails when the message is saved, the response itself shows it.
        """
        if self.wants_json:
            self.set_status(204)
            return
        if message is not None:
            self.done = done(message)
            self.session.flash(message)
        self.see_other(page)


STALE = "This form was out of date, so it was not used."


class WrongPassword(Problem):
    """User name or password are wrong; the response does not reveal which."""

    def __init__(self, status: int, message: str | None = None) -> None:
        super().__init__(status, message, code="bad_credentials")


class FormPage(Page):
    """A page whose form contains a password."""

    @abstractmethod
    def show(self, error: str | None = None) -> None:
        """Render the form, with the error of the last attempt."""

    async def answer_refused(self, refused: InvalidFormToken) -> None:
        """Show the form again; without a user, lead to sign-in."""
        if self.session.user is None:
            self.ask_to_sign_in()
        else:
            self.set_status(refused.status_code)
            await self.show_again()

    async def show_again(self) -> None:
        """Show the form of this request, which was not used."""
        self.show(f"{STALE} Fill it in again if you still need to.")

    async def check_password(self, name: str, password: str) -> str | None:
        """Return the user if name and password match, else None.

        Raises:
            Throttled, Busy, StoreUnavailable
        """
        return await self.context.authenticator.check(
            name, password, address=self.client_address(), device=self._device_token()
        )

    async def remember_device(self, user: str) -> None:
        """Make this browser known to the account of *user*, who has just signed in, and set its cookie."""
        token = await self.context.authenticator.remember(user, self._device_token())
        if token is not None:
            self.sessions.cookies.write_device(self, token, max_age_s=KNOWN_S)

    def _device_token(self) -> str | None:
        return self.sessions.cookies.read_device(self.request.headers.get_list("Cookie"))

    def show_error(self, error: Problem | Throttled | PasswordRefused) -> None:
        """Render the form again with the message and the status of *error*."""
        status = _status(error)
        self.set_status(status)
        if isinstance(error, Throttled):
            self.set_header("Retry-After", str(error.retry_after_s))
        self.show(describe(status, error)[1])


def _status(error: Problem | Throttled | PasswordRefused) -> int:
    if isinstance(error, Throttled):
        return 429
    if isinstance(error, PasswordRefused):
        return 422
    return error.status_code


P = ParamSpec("P")
F = TypeVar("F", bound=FormPage)


def shows_errors_in_form(
    method: Callable[Concatenate[F, P], Awaitable[None]],
) -> Callable[Concatenate[F, P], Coroutine[Any, Any, None]]:
    """Answer a wrong or refused password with the form and an error message; JSON gets the error."""

    @wraps(method)
    async def wrapper(handler: F, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await method(handler, *args, **kwargs)
        except (WrongPassword, Throttled, PasswordRefused) as error:
            if handler.wants_json:
                raise
            handler.show_error(error)

    return wrapper

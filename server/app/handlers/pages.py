"""What the pages of a person share: how long they stay signed in, and forms that ask for a password."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from stormcellar.app.handlers import idle
from stormcellar.app.handlers.base import PageHandler
from stormcellar.app.handlers.negotiation import is_local
from stormcellar.app.problems import Problem, describe
from stormcellar.errors import PasswordRefused, Throttled
from stormcellar.web.tornado_request import SAFE_METHODS


class Page(PageHandler):
    """A handler whose template extends `page.html`."""

    def stay(self) -> idle.Stay | None:
        """Return how long this person stays signed in, for the template."""
        uri = self.request.uri or "/"
        here = uri if self.request.method in SAFE_METHODS and is_local(uri) else self.page
        return idle.stay(self.sessions, self.session, here=here)

    def flashes(self) -> list[str]:
        """Take the messages that wait, for the template; HEAD shows none, and leaves them."""
        return [] if self.request.method == "HEAD" else self.session.flashes()

    def done(self, page: str, message: str | None = None) -> None:
        """Answer a form that did its work: with *page*, on which *message* shows once; in JSON with 204."""
        if self.wants_json:
            self.set_status(204)
            return
        if message is not None:
            self.session.flash(message)
        self.see_other(page)


class WrongPassword(Problem):
    """The credentials of a form are wrong; which of them is not told."""

    def __init__(self, status: int, message: str | None = None) -> None:
        super().__init__(status, message, code="bad_credentials")


class FormPage(Page):
    """A page with a form that asks for a password."""

    @abstractmethod
    def show(self, error: str | None = None) -> None:
        """Show the form, with what was wrong with the last one."""

    async def check_password(self, name: str, password: str) -> str | None:
        """Return the user whose name and password these are, else None.

        Raises:
            Throttled, Busy, StoreUnavailable
        """
        return await self.context.authenticator.check(name, password, address=self.client_address())

    def refuse(self, error: Problem | Throttled | PasswordRefused) -> None:
        """Show the form again with what *error* says, under its status."""
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


def refused_in_form(
    method: Callable[Concatenate[F, P], Awaitable[None]],
) -> Callable[Concatenate[F, P], Coroutine[Any, Any, None]]:
    """Answer a wrong or refused password with the form once more; JSON with the error."""

    @wraps(method)
    async def wrapper(handler: F, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await method(handler, *args, **kwargs)
        except (WrongPassword, Throttled, PasswordRefused) as error:
            if handler.wants_json:
                raise
            handler.refuse(error)

    return wrapper

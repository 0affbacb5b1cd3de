"""`BrowserSession`: the session whose cookie a test client holds, changed as a request would change it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tornado.httputil import HTTPHeaders

from stormcellar.errors import SignInRevoked
from stormcellar.sessions.cookies import form_basis, mint_secret
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.request_info import Client as ClientInfo
from stormcellar.sessions.request_info import FixedRequestInfo
from stormcellar.sessions.session import Session, state_of
from stormcellar.testing.cookies import CookieJar
from stormcellar.web.response import CookieHeaders, write_session_headers
from stormcellar.web.session_handler import HandlerState

_REQUEST = FixedRequestInfo(ClientInfo("127.0.0.1", "stormcellar.testing"), is_safe=False)


class BrowserSession:
    """Reads and changes the session of the cookie in *cookies*, without a request.

    Args:
        sessions: The manager of the application.
    """

    def __init__(self, sessions: SessionManager, cookies: CookieJar) -> None:
        self._sessions = sessions
        self._cookies = cookies

    @property
    def handle(self) -> str | None:
        """The handle in the session cookie; the session may be over."""
        sid = self._handler_state().sid
        return None if sid is None else sid.handle

    async def load(self) -> Session:
        """Return the session as a request would find it."""
        return await self._sessions.load(self._handler_state().sid, _REQUEST)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Yield the session; save at the end of the block what it changed, and store the cookie.

        Raises:
            CookieRefused: Browsers refuse the session cookie.
            RuntimeError: A verb of the session was called without `await`.
            SessionError, StoreUnavailable: As in a handler; nothing was saved.
        """
        held = self._handler_state()
        held.session = session = await self._sessions.load(held.sid, _REQUEST)
        held.state = state_of(session)
        try:
            yield session
            held.state.require_awaited()
            await session.commit()
        finally:
            # A verb has acted at once, whatever follows: its cookie may be the only one that is valid.
            headers = HTTPHeaders()
            write_session_headers(held, headers)
            self._store(headers)

    async def sign_in(self, user: str, data: Mapping[str, Any], *, remember: bool | None) -> None:
        """Sign *user* in, with *data* in the session.

        Raises:
            ValueError: *remember* has no effect, or *data* is not valid.
            SignInRevoked: The accounts of the manager refuse the user.
        """
        if remember and self._sessions.lifetime.remember_s is None:
            raise ValueError("remember has no effect: the manager needs Lifetime(remember_s=...)")
        async with self.transaction() as session:
            session.update(data)  # so that data that is not valid signs nobody in
            try:
                await session.login(user, remember=remember)
            except SignInRevoked:
                raise SignInRevoked(
                    f"the accounts of the session manager refuse {user!r}: valid_after() must return a time "
                    "before now by the manager's clock, in milliseconds; None means that there is no account"
                ) from None
            session.update(data)

    def form_token(self) -> str:
        """Return a form token for this browser, as a page would contain it; a visitor gets a nonce for it."""
        held = self._handler_state()
        basis = held.request_nonce if held.sid is None else held.sid.secret
        if basis is None:
            basis, headers = mint_secret(), HTTPHeaders()
            self._sessions.cookies.write_nonce(CookieHeaders(headers), basis)
            self._store(headers)
        return self._sessions.forms.make(form_basis(basis))

    def _handler_state(self) -> HandlerState:
        return HandlerState(self._sessions, [self._cookies.header()])

    def _store(self, headers: HTTPHeaders) -> None:
        for line in headers.get_list("Set-Cookie"):
            self._cookies.store(line)

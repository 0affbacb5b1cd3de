"""`SessionHandler`: the session of a handler, and everything else that the mixins keep on it."""

from __future__ import annotations

from asyncio import Future
from typing import Any

from tornado.web import RequestHandler

from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.session import Session
from stormcellar.sessions.state import SessionState
from stormcellar.web.tornado_request import TornadoRequest

SETTING = "stormcellar"
"""The application setting that holds the `SessionManager`."""


class HandlerState:
    """What the mixins keep on a handler, under the one name `_stormcellar`.

    It holds no handler: a reference cycle would leave every request to the garbage collector.

    Args:
        manager: The `SessionManager`; anything else is reported when it is used.
        cookie_headers: The raw Cookie headers of the request.
    """

    sessions: SessionManager
    """The manager that was passed to `session_settings`."""
    sid: SessionId | None = None
    """The session ID in the request's cookie, if its signature is valid."""
    session: Session | None = None
    """None until `SessionMixin.prepare` has run."""
    state: SessionState | None = None
    """Of *session*."""
    is_prepared = False
    """Whether `SessionMixin.prepare` was called."""
    current_user: tuple[tuple[str | None, bool], Any] | None = None
    """`sign_in` when `current_user` was computed or assigned, and that value."""
    is_accessed = False
    """Whether the handler used `self.session`."""
    has_form = False
    """Whether the response contains a form token."""
    nonce: str | None = None
    """A nonce that this response sets although no session is loaded."""
    retry_after_s: int | None = None
    socket: Any = None
    """The `OpenSocket`, while a WebSocket is served."""
    stream: Any = None
    """The `EventStream`, once there is one."""
    answered: Future[None] | None = None
    """While the session is saved: resolves when the response was sent."""

    def __init__(self, manager: Any, cookie_headers: list[str]) -> None:
        self._cookie_headers = cookie_headers
        if isinstance(manager, SessionManager):
            self.sessions = manager
            self.sid = manager.cookies.read(cookie_headers)
        else:
            self._not_a_manager = manager

    def __getattr__(self, name: str) -> Any:
        if name != "sessions":
            raise AttributeError(name)
        if self._not_a_manager is None:
            raise RuntimeError("no session manager: Application(..., **session_settings(manager))")
        found = type(self._not_a_manager).__name__
        raise RuntimeError(f"the setting {SETTING!r} must be a SessionManager, not {found}")

    @property
    def sign_in(self) -> tuple[str | None, bool]:
        """Who is signed in now, and whether this request has signed out: what `current_user` depends on."""
        return (None, False) if self.state is None else (self.state.user, self.state.is_signed_out)

    @property
    def request_nonce(self) -> str | None:
        """The nonce in the request's cookies: a visitor with a form has one."""
        return self.sessions.cookies.read_nonce(self._cookie_headers)

    @property
    def cookie_signed_s(self) -> int | None:
        """When the request's session cookie was signed, in Unix seconds."""
        return self.sessions.cookies.signed_s(self._cookie_headers)

    @property
    def has_cookie(self) -> bool:
        """Whether the request has a session cookie, valid or not."""
        return self.sessions.cookies.is_presented(self._cookie_headers)


class _HandlerStateOnFirstUse:
    """Makes the `HandlerState` of a handler when `_stormcellar` is first used.

    `functools.cached_property` takes a lock for that in Python 3.11.
    """

    def __get__(self, handler: SessionHandler, owner: type | None = None) -> HandlerState:
        is_overridden = type(handler).sessions is not SessionHandler.sessions
        manager = handler.sessions if is_overridden else handler.application.settings.get(SETTING)
        held = HandlerState(manager, handler.request.headers.get_list("Cookie"))
        # Not by `__dict__`: in Python 3.11 each later attribute of the handler would be slower.
        setattr(handler, "_stormcellar", held)  # noqa: B010  mypy knows the descriptor alone
        return held


class SessionHandler(RequestHandler):
    """Base of the mixins. Its only private name is `_stormcellar`."""

    _stormcellar = _HandlerStateOnFirstUse()

    @property
    def sessions(self) -> SessionManager:
        """The manager that was passed to `session_settings`. Override it to use another one."""
        return self._stormcellar.sessions

    @property
    def session(self) -> Session:
        """The session of this request.

        On the page of an error that came before the session was loaded, it is empty and cannot change.

        Raises:
            RuntimeError: Before `SessionMixin.prepare` has run.
        """
        held = self._stormcellar
        if held.session is None:
            if self._status_code < 400:
                raise RuntimeError("the session is not loaded yet: await super().prepare() first")
            request = TornadoRequest(self.request, self.client_address(), held.sessions.secure)
            held.session = held.sessions.empty(request, "it was not loaded")
        held.is_accessed = True
        return held.session

    @session.setter
    def session(self, value: Session) -> None:
        """Take back the session itself, after `self.session |= {...}`.

        Raises:
            AttributeError: *value* is anything else.
        """
        if value is not self._stormcellar.session:
            raise AttributeError("the session cannot be replaced: use its clear() and update()")

    def presented_handle(self) -> str | None:
        """Return the handle in the session cookie, if its signature is valid; the session may be over."""
        sid = self._stormcellar.sid
        return None if sid is None else sid.handle

    def client_address(self) -> str:
        """Return the client's address; override it where a trusted proxy passes the address on."""
        return self.request.remote_ip or ""

"""`FormMixin`: the form tokens of a request, bound to what its browser holds.

Tornado checks them before `prepare`, so everything here must do without the session: the signed cookie and
the nonce say enough, and no store is asked.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

from stormcellar.events import Kind
from stormcellar.sessions.cookies import SessionId, form_basis, mint_secret
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import Session

SETTING = "session_manager"


class FormMixin(RequestHandler):
    """Tornado's form token API (`xsrf_form_html`, `xsrf_token`), with tokens of our own."""

    _session: Session | None = None
    _has_form = False
    _new_nonce: str | None = None
    _sid: SessionId | None = None
    _sid_is_read = False

    @property
    def sessions(self) -> SessionManager:
        """The manager that `session_settings` was given."""
        try:
            manager: SessionManager = self.application.settings[SETTING]
        except KeyError:
            raise RuntimeError("no session manager: Application(..., **session_settings(manager))") from None
        return manager

    @property
    def xsrf_token(self) -> bytes:
        """The token for a form of this response, good for whatever the browser holds when it sends it."""
        token = ".".join(self.sessions.forms.make(form_basis(basis)) for basis in self._form_bases())
        self._has_form = True
        return token.encode()

    def check_xsrf_cookie(self) -> None:
        """Refuse an unsafe request without the token of a form rendered for this browser.

        A body of type application/json is exempt: no page of another site can send one without asking first.
        """
        require_origin(self.request)
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0]
        if media_type.strip().lower() == "application/json":
            return
        sid = self._presented()
        basis = sid.secret if sid is not None else self._held_nonce()
        token = (
            self.get_body_argument("_xsrf", None)
            or self.request.headers.get("X-Xsrftoken")
            or self.request.headers.get("X-Csrftoken")
        )
        if not token or basis is None or not self._is_token(token, basis):
            self._tell_of_rejection(sid)
            raise HTTPError(403, "the form token is missing, or was made for another session")

    def _is_token(self, token: str, basis: str) -> bool:
        return any([self.sessions.forms.check(part, form_basis(basis)) for part in token.split(".", 1)])

    def _form_bases(self) -> list[str]:
        """Return what the browser may hold when it sends a form of this response: one thing, or two.

        The second is the nonce that a visitor has already. To give each form a new one would break the forms
        of their other tabs; but it never becomes the secret of a session, since somebody may have planted it.
        """
        session = self._session
        if session is None:
            return [self._basis_without_session()]
        if session.sid is not None and session.cookie is not CookieChange.CLEAR:
            return [session.sid.secret]
        held = self._held_nonce()
        return [session.reserve(), held] if held else [session.reserve()]

    def _basis_without_session(self) -> str:
        if self._status_code < 400:
            raise RuntimeError("form tokens need the session: await super().prepare() first")
        # An error before prepare(): its page may hold a form, and no session can begin in this response.
        sid = self._presented()
        held = sid.secret if sid is not None else self._held_nonce()
        if held is None:
            held = self._new_nonce = self._new_nonce or mint_secret()
        return held

    def _write_nonce(self) -> None:
        """Give the browser the nonce that a new form needs; take the old one at a sign-in or sign-out."""
        session = self._session
        is_turn = session is not None and _changes_identity(session)
        if not (self._has_form or is_turn):
            return
        cookies, held = self.sessions.cookies, self._held_nonce()
        made = self._new_nonce if session is None else session.reserved
        if self._has_form and made and (is_turn or not held):
            cookies.write_nonce(self, made)
        elif held and is_turn:
            cookies.clear_nonce(self)

    def client_address(self) -> str:
        """Return the address to show for this client; override where a proxy tells it."""
        return self.request.remote_ip or ""

    def _tell_of_rejection(self, sid: SessionId | None) -> None:
        handle = sid.handle if sid is not None else None
        self.sessions.events.emit(Kind.FORM_REJECTED, handle=handle, address=self.client_address())

    def _presented(self) -> SessionId | None:
        if not self._sid_is_read:
            self._sid = self.sessions.cookies.read(self.request.headers.get_list("Cookie"))
            self._sid_is_read = True
        return self._sid

    def _held_nonce(self) -> str | None:
        return self.sessions.cookies.read_nonce(self.request.headers.get_list("Cookie"))


def require_origin(request: HTTPServerRequest) -> None:
    """Refuse an Origin header over which Tornado would stumble when it compares it with Host (web.py, 6.6.1).

    Raises:
        HTTPError: 403.
    """
    try:
        urlsplit(request.headers.get("Origin", ""))
    except ValueError:
        raise HTTPError(403, "Origin is no URL") from None


def _changes_identity(session: Session) -> bool:
    """Whether this request signed in or out, after which tokens of before must not count."""
    if session.presence is Presence.OVER:
        return session.cookie is CookieChange.CLEAR
    return session.cookie is CookieChange.SET and session.user is not None

"""`CsrfMixin`: form tokens, bound to a cookie of the browser.

Tornado checks them before `prepare`, so nothing here needs the session or the store: the signed cookie and
the nonce are enough.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError

from stormcellar.events import Kind
from stormcellar.sessions.cookies import form_basis, mint_secret
from stormcellar.sessions.request_info import CookieChange
from stormcellar.web.session_handler import HandlerState, SessionHandler


class CsrfMixin(SessionHandler):
    """Tornado's form token API (`xsrf_form_html`, `xsrf_token`), with tokens bound to the session."""

    @property
    def xsrf_token(self) -> bytes:
        """The token for a form of this response, valid for any cookie the browser has when it is sent."""
        held = self._stormcellar
        forms = held.sessions.forms
        if held.state is None and self._status_code < 400:
            raise RuntimeError("form tokens need the session: await super().prepare() first")
        token = ".".join(forms.make(form_basis(basis)) for basis in _form_bases(held))
        held.has_form = True
        return token.encode()

    def check_xsrf_cookie(self) -> None:
        """Refuse an unsafe request without the token of a form that was rendered for this browser.

        A body of type application/json is exempt: a page of another site cannot send one without a preflight
        request.
        """
        require_origin(self.request)
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0]
        if media_type.strip().lower() == "application/json":
            return
        held = self._stormcellar
        basis = held.sid.secret if held.sid is not None else held.request_nonce
        token = (
            self.get_body_argument("_xsrf", None)
            or self.request.headers.get("X-Xsrftoken")
            or self.request.headers.get("X-Csrftoken")
        )
        if not token or basis is None or not _is_valid(held, token, basis):
            handle = held.sid.handle if held.sid is not None else None
            held.sessions.events.emit(Kind.FORM_REJECTED, handle=handle, address=self.client_address())
            raise InvalidFormToken(has_cookie=held.has_cookie or held.request_nonce is not None)


class InvalidFormToken(HTTPError):
    """The form token is missing, or was made for another session.

    Args:
        has_cookie: Whether the browser sent a session cookie or a nonce, valid or not.
    """

    def __init__(self, *, has_cookie: bool) -> None:
        super().__init__(403, "the form token is missing, or was made for another session")
        self.has_cookie = has_cookie


class InvalidOrigin(HTTPError):
    """The Origin header is not a URL."""

    def __init__(self) -> None:
        super().__init__(403, "the Origin header is not a URL")


def require_origin(request: HTTPServerRequest) -> None:
    """Refuse an Origin header that makes Tornado raise when it compares it with Host (web.py, 6.6.1).

    Raises:
        InvalidOrigin: 403.
    """
    try:
        urlsplit(request.headers.get("Origin", ""))
    except ValueError:
        raise InvalidOrigin from None


def _is_valid(held: HandlerState, token: str, basis: str) -> bool:
    return any([held.sessions.forms.check(part, form_basis(basis)) for part in token.split(".", 1)])


def _form_bases(held: HandlerState) -> list[str]:
    """Return what the browser may have when it sends a form of this response: one secret, or two.

    The second is the nonce that a visitor already has; a new one for each form would break the forms in other
    tabs. That nonce never becomes the secret of a session, since an attacker may have set it.
    """
    state = held.state
    if state is None:
        # An error page before `prepare`: it may contain a form, and this response cannot create a session.
        present = held.sid.secret if held.sid is not None else held.request_nonce
        if present is None:
            present = held.nonce = held.nonce or mint_secret()
        return [present]
    if state.cookie is CookieChange.SET and state.sid is not None:
        return [state.sid.secret]
    if held.sid is not None and state.cookie is CookieChange.KEEP:
        # A stale cookie stays in the browser, unless this response begins a session.
        may_begin = state.record is None and not state.is_late
        return [held.sid.secret, state.reserve()] if may_begin else [held.sid.secret]
    nonce = held.request_nonce
    return [state.reserve(), nonce] if nonce else [state.reserve()]

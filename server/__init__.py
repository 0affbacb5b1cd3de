"""Server-side sessions for Tornado: a mixin to embed, and a login server to run."""

from server.errors import (
    InsecureTransport,
    SessionChanged,
    SessionEnded,
    SessionError,
    SessionTooLarge,
    SignInRevoked,
)
from server.lifetime import Lifetime
from server.manager import SessionManager
from server.mixin import SessionMixin, session_settings
from server.session import Session

__all__ = [
    "InsecureTransport",
    "Lifetime",
    "Session",
    "SessionChanged",
    "SessionEnded",
    "SessionError",
    "SessionManager",
    "SessionMixin",
    "SessionTooLarge",
    "SignInRevoked",
    "session_settings",
]

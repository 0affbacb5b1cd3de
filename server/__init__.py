"""Server-side sessions for Tornado: a mixin to embed, and a login server to run."""

from server.errors import (
    InsecureTransport,
    PasswordRefused,
    ReauthenticationRequired,
    SessionChanged,
    SessionEnded,
    SessionError,
    SessionTooLarge,
    SignInRevoked,
    Throttled,
)
from server.events import Event, Events, Kind
from server.lifetime import Lifetime
from server.manager import SessionManager
from server.mixin import SessionMixin, session_settings
from server.reauthentication import reauthenticated
from server.session import Session

__all__ = [
    "Event",
    "Events",
    "InsecureTransport",
    "Kind",
    "Lifetime",
    "PasswordRefused",
    "ReauthenticationRequired",
    "Session",
    "SessionChanged",
    "SessionEnded",
    "SessionError",
    "SessionManager",
    "SessionMixin",
    "SessionTooLarge",
    "SignInRevoked",
    "Throttled",
    "reauthenticated",
    "session_settings",
]

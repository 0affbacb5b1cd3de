"""Server-side sessions for Tornado: a mixin to embed, and a login server to run.

Each name is imported when it is first used, so `stormcellar.stores` and the session layer import no Tornado.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stormcellar.errors import (
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
    from stormcellar.events import Event, Events, Kind
    from stormcellar.lifetime import Lifetime
    from stormcellar.sessions.data.keys import Key
    from stormcellar.sessions.data.limits import is_private_key
    from stormcellar.sessions.live.watch import Rechecks
    from stormcellar.sessions.manager import SessionManager
    from stormcellar.sessions.session import Session
    from stormcellar.web.mixin import SessionMixin, session_settings
    from stormcellar.web.reauthentication import reauthenticated
    from stormcellar.web.security_headers import add_security_headers
    from stormcellar.web.socket_mixin import SessionSocketMixin
    from stormcellar.web.stream_mixin import SessionStreamMixin

__all__ = [
    "Event",
    "Events",
    "InsecureTransport",
    "Key",
    "Kind",
    "Lifetime",
    "PasswordRefused",
    "ReauthenticationRequired",
    "Rechecks",
    "Session",
    "SessionChanged",
    "SessionEnded",
    "SessionError",
    "SessionManager",
    "SessionMixin",
    "SessionSocketMixin",
    "SessionStreamMixin",
    "SessionTooLarge",
    "SignInRevoked",
    "Throttled",
    "add_security_headers",
    "is_private_key",
    "reauthenticated",
    "session_settings",
]

_MODULES = {
    "Event": "events",
    "Events": "events",
    "Key": "sessions.data.keys",
    "Kind": "events",
    "Lifetime": "lifetime",
    "Rechecks": "sessions.live.watch",
    "Session": "sessions.session",
    "SessionManager": "sessions.manager",
    "SessionMixin": "web.mixin",
    "SessionSocketMixin": "web.socket_mixin",
    "SessionStreamMixin": "web.stream_mixin",
    "add_security_headers": "web.security_headers",
    "is_private_key": "sessions.data.limits",
    "reauthenticated": "web.reauthentication",
    "session_settings": "web.mixin",
}


if not TYPE_CHECKING:  # or type checkers accept every name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

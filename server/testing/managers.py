"""The session manager of a test: made for it, or that of the application under test."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from tornado.web import Application

from stormcellar.sessions.manager import SessionManager
from stormcellar.stores import Store
from stormcellar.testing.clock import Clock
from stormcellar.testing.faulty_store import FaultyStore
from stormcellar.web.session_handler import SETTING


def make_manager(
    store: Store | None = None, *, clock: Callable[[], float] | None = None, **options: Any
) -> SessionManager:
    """Make a session manager for one test: a store in memory, a random key, and a clock that can be moved.

    Args:
        store: None: a `FaultyStore` in memory.
        clock: None: a `Clock` that begins at the present.
        options: Further arguments of `SessionManager`, such as `lifetime`, `secure` or `accounts`.
    """
    options.setdefault("secrets", [secrets.token_bytes(32)])
    return SessionManager(
        FaultyStore() if store is None else store, clock=Clock() if clock is None else clock, **options
    )


def manager_of(app: Application) -> SessionManager:
    """Return the session manager of *app*, which `session_settings` put into its settings.

    Raises:
        TypeError: *app* is no `Application`.
        ValueError: It has no session manager.
    """
    if not isinstance(app, Application):
        advice = ": call it" if callable(app) else ""
        raise TypeError(f"app must be a tornado.web.Application, not {type(app).__name__}{advice}")
    manager = app.settings.get(SETTING)
    if not isinstance(manager, SessionManager):
        raise ValueError(
            "the application has no session manager: Application(..., **session_settings(manager)), or name "
            "the one that its handlers use: Client(app, sessions=manager)"
        )
    return manager

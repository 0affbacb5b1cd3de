"""The login server with a WebSocket at `/live`, which tells the process that serves it."""

from __future__ import annotations

import os
from typing import Any

from tornado.web import Application
from tornado.websocket import WebSocketHandler

from stormcellar import SessionManager, SessionSocketMixin
from stormcellar.runtime import server
from stormcellar.sessions.live.watch import Rechecks

RECHECK_S = 3.0
PATIENCE_S = 20.0
"""Longer than the store fails, except where a fault is about that."""
SHORT_PATIENCE_S = 2 * RECHECK_S


class LiveSocket(SessionSocketMixin, WebSocketHandler):
    """A socket that ends with its session."""

    def open(self) -> None:
        """Tell the process."""
        self.write_message(str(os.getpid()))

    def on_message(self, message: str | bytes) -> None:
        """Do nothing."""


def install(patience_s: float) -> None:
    """Have the server of this process serve the socket, and ask the store often."""
    make_app, rechecks = server.make_app, Rechecks(every_s=RECHECK_S, patience_s=patience_s)

    def with_socket(*args: Any) -> Application:
        app = make_app(*args)
        app.add_handlers(".*", [("/live", LiveSocket)])
        return app

    def manager(*args: Any, **options: Any) -> SessionManager:
        return SessionManager(*args, **{**options, "rechecks": rechecks})

    vars(server).update(make_app=with_socket, SessionManager=manager)


def prelude(patience_s: float = PATIENCE_S) -> str:
    """Return the source of a program up to the start of the server."""
    return f"from tests.faults.live.program import install\ninstall({patience_s!r})\n"


def program(patience_s: float = PATIENCE_S) -> tuple[str, ...]:
    """Return the arguments of Python for the whole program."""
    main = "import sys\nfrom stormcellar.cli.main import main\nsys.exit(main())\n"
    return ("-c", prelude(patience_s) + main)

"""The URLs of the login server and their handlers. To add a page, add its line here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tornado.template import Loader
from tornado.web import Application

from stormcellar.app import access_log
from stormcellar.app.context import Context
from stormcellar.app.handlers import (
    account,
    base,
    confirm,
    events,
    idle,
    operations,
    password,
    session,
    signin,
    static,
)
from stormcellar.app.security_headers import security_transform
from stormcellar.sessions.manager import SessionManager
from stormcellar.web.mixin import session_settings

# Resolved: a strict editable install consists of symlinks, and Tornado serves no symlink that leads out of
# the static folder (web.py, StaticFileHandler._resolve_symlink_target).
_HERE = Path(__file__).resolve().parent
_STATIC = _HERE / "static"


@cache
def _templates() -> Loader:
    """Return the loader of the templates, which has read all of them: no request needs a file descriptor."""
    folder = _HERE / "templates"
    loader = Loader(str(folder))
    for path in folder.glob("*.html"):
        loader.load(path.name)
    return loader


def make_app(manager: SessionManager, context: Context) -> Application:
    """Return the application of the standalone server."""
    static.Static.read_all(_STATIC)
    given = {"context": context}
    app = Application(
        [
            ("/", account.Home, given),
            ("/login", signin.Login, given),
            ("/logout", signin.Logout, given),
            ("/signed-out", signin.SignedOut, given),
            ("/forget.css", signin.Forget, given),
            ("/idle.css", idle.IdleStyle, given),
            ("/events", events.SessionEvents, given),
            ("/session", session.SessionData, given),
            ("/session/increment", session.Increment, given),
            ("/account/password", password.Password, given),
            ("/.well-known/change-password", password.ChangePasswordRedirect, given),
            ("/account/confirm", confirm.Confirm, given),
            ("/account/sessions", account.Sessions, given),
            ("/account/sessions/revoke-others", account.RevokeOthers, given),
            ("/account/sessions/([A-Za-z0-9_-]{1,64})/revoke", account.Revoke, given),
            ("/healthz", operations.Health, given),
            ("/readyz", operations.Ready, {**given, "readiness": operations.Readiness(manager.store)}),
        ],
        **session_settings(
            manager,
            default_handler_class=base.NotFound,
            default_handler_args=given,
            template_loader=_templates(),
            static_path=str(_STATIC),
            static_handler_class=static.Static,
            static_handler_args={"edge": context.edge},
            log_function=access_log.log_request,
        ),
    )
    app.add_transform(security_transform(context.edge))
    return app

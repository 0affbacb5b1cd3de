"""Sessions in your own application: a counter, and a sign-in form.

    python examples/embed.py [STORE-URL] [--port N] [--key-file FILE]

The default store is `memory:`; others are `sqlite:sessions.db`, `redis://localhost/0` or
`mongodb://localhost`. Without a key file the program makes a key for this run, so a restart signs everybody
out.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.template import DictLoader

from stormcellar import Lifetime, SessionManager, SessionMixin, session_settings
from stormcellar.stores import open_store

PAGE = """<!DOCTYPE html><title>Visits</title>
<h1>Hello, {{ current_user or "visitor" }}</h1>
<p>Visit {{ visits }}.</p>
{% if current_user %}
<form method="post" action="/logout">{% module xsrf_form_html() %}<button>Sign out</button></form>
{% else %}
<form method="post" action="/login">{% module xsrf_form_html() %}
{% if failed %}<p role="alert">That is not the password.</p>{% end %}
<label>Name <input name="name" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button></form>
{% end %}
"""


class Visits(SessionMixin, tornado.web.RequestHandler):
    """Counts the visits of a browser."""

    def get(self) -> None:
        """Count one visit; the session is saved before the page is sent."""
        self.session["visits"] = self.session.get("visits", 0) + 1
        self.show()

    def show(self, *, failed: bool = False) -> None:
        """Show the page."""
        self.render("page.html", visits=self.session.get("visits", 0), failed=failed)


class Login(Visits):
    """Signs in a user who knows the password, with a new session ID; the visits survive."""

    async def post(self) -> None:
        """Check the form. Tornado has already checked its token."""
        name = self.get_body_argument("name")
        given = self.get_body_argument("password", strip=False)
        if not name or not hmac.compare_digest(given.encode(), self.settings["password"].encode()):
            self.set_status(401)
            self.show(failed=True)
            return
        await self.session.login(name, keep={"visits"})
        self.redirect("/", status=303)


class Logout(SessionMixin, tornado.web.RequestHandler):
    """Ends the session in the store, then clears the cookie."""

    async def post(self) -> None:
        """Sign out. The answer is the same if there was no session."""
        await self.session.logout()
        self.redirect("/", status=303)


def make_app(sessions: SessionManager, *, password: str) -> tornado.web.Application:
    """Return the application. This example accepts one *password* for every name."""
    return tornado.web.Application(
        [("/", Visits), ("/login", Login), ("/logout", Logout)],
        template_loader=DictLoader({"page.html": PAGE}),
        password=password,
        **session_settings(sessions),
    )


def parse(
    argv: Sequence[str] | None, description: str | None = __doc__, *flags: str
) -> tuple[SessionManager, argparse.Namespace]:
    """Return the sessions and the options of the command line; exit with status 2 if it is not valid."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", nargs="?", default="memory:", help="a store URL (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8889, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--key-file", type=Path, help="holds one signing key of at least 32 bytes")
    for flag in flags:
        parser.add_argument(flag, action="store_true", help="see above")
    options = parser.parse_args(argv)
    try:
        key = options.key_file.read_text().strip() if options.key_file else secrets.token_urlsafe(32)
        lifetime = Lifetime(idle_s=1800, absolute_s=43_200)
        return SessionManager(open_store(options.store), secrets=[key], lifetime=lifetime), options
    except (OSError, ValueError) as exc:
        parser.error(str(exc))


async def serve(
    sessions: SessionManager,
    port: int,
    *,
    make_app: Callable[..., tornado.web.Application] = make_app,
) -> None:
    """Print the address, and serve until cancelled."""
    password = secrets.token_urlsafe(6)
    http = HTTPServer(make_app(sessions, password=password))
    sockets = bind_sockets(port, "127.0.0.1")
    http.add_sockets(sockets)
    print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}  (any name, password {password})", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        http.stop()
        await sessions.watch.aclose()  # ends sockets and streams, so that their clients know why
        await http.close_all_connections()
        await sessions.aclose()


if __name__ == "__main__":
    sessions, options = parse(None)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(sessions, options.port))

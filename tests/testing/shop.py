"""A small application, as a user of `stormcellar.testing` has one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from stormcellar import (
    SessionManager,
    SessionMixin,
    SessionSocketMixin,
    SessionStreamMixin,
    reauthenticated,
    session_settings,
)

PASSWORD = "open sesame"


class Page(SessionMixin, RequestHandler):
    """Base of the pages."""


class Who(Page):
    """Says who is signed in and what the session holds; takes what it is given."""

    def get(self) -> None:
        """Say it."""
        self.write({"user": self.session.user, "data": dict(self.session)})

    def post(self) -> None:
        """Echo the request."""
        self.write(
            {
                "method": self.request.method,
                "body": self.request.body.decode(),
                "type": self.request.headers.get("Content-Type"),
                "fields": {name: self.get_body_arguments(name) for name in self.request.body_arguments},
                "origin": self.request.headers.get("Origin"),
                "host": self.request.host,
            }
        )

    put = patch = delete = post


class Cart(Page):
    """A cart that visitors have, too."""

    def post(self) -> None:
        """Add something."""
        item = (
            json.loads(self.request.body)["item"]
            if self.request.headers["Content-Type"] == "application/json"
            else self.get_body_argument("item")
        )
        self.session.setdefault("cart", []).append(item)
        self.redirect("/", status=303)


class Login(Page):
    """A sign-in form."""

    def get(self) -> None:
        """Show it."""
        self.write(
            '<form method="post" action="/search"><input name="q"></form>'
            f'<form method="post">{self.xsrf_form_html()}<input name="name"><input name="password"></form>'
        )

    async def post(self) -> None:
        """Check it."""
        if self.get_body_argument("password") != PASSWORD:
            self.send_error(401)
            return
        await self.session.login(self.get_body_argument("name"), keep={"cart"})
        self.redirect("/", status=303)


class Account(Page):
    """A page for users."""

    login_required = True

    def get(self) -> None:
        """Greet."""
        self.write(f"Hello, {self.session.user}")

    @reauthenticated
    def post(self) -> None:
        """Do something that needs a recent proof."""
        self.write("done")


class Room(SessionSocketMixin, WebSocketHandler):
    """A socket that answers."""

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Take the first one."""
        return subprotocols[0] if subprotocols else None

    def on_message(self, message: str | bytes) -> None:
        """Echo it."""
        self.write_message(
            message if isinstance(message, bytes) else f"{self.session.user}: {message}",
            binary=isinstance(message, bytes),
        )


class Feed(SessionStreamMixin, RequestHandler):
    """Two events, and then nothing as long as the session lives."""

    async def get(self) -> None:
        """Send them."""
        async with self.event_stream() as send:
            await send({"n": 1})
            await send("x" * 100_000, event="long", id="7")
            await asyncio.Event().wait()


def make_app(sessions: SessionManager, **settings: Any) -> Application:
    """Return the application."""
    return Application(
        [
            ("/", Who),
            ("/cart", Cart),
            ("/login", Login),
            ("/account", Account),
            ("/room", Room),
            ("/feed", Feed),
        ],
        **session_settings(sessions, **settings),
    )

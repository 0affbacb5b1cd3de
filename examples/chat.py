"""A chat room: a page and a WebSocket with the same session. Who is signed out leaves the room at once.

    python examples/chat.py [STORE-URL] [--port N] [--key-file FILE] [--allow-originless]

The arguments are those of `embed.py`. With `--allow-originless` programs that are no browsers, which send no
Origin, get a socket as well. The room holds those who are connected to this process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import ClassVar

import embed
import tornado.web
from tornado.template import DictLoader
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from stormcellar import SessionManager, SessionMixin, SessionSocketMixin, session_settings

MAX_TEXT = 500
PAGE = """<!DOCTYPE html><title>Chat</title>
{% if current_user %}
<h1>Hello, {{ current_user }}</h1>
<form method="post" action="/logout">{% module xsrf_form_html() %}<button>Sign out</button></form>
<p role="status" id="status">Connecting.</p>
<form id="say"><label>Message <input name="text" maxlength="500" required></label>
<button>Send</button></form>
<ul id="messages"></ul>
<script>
const status = document.getElementById("status"), say = document.getElementById("say");
let socket, pause = 1000;
function connect() {
  const began = Date.now();
  socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
  socket.onopen = () => { status.textContent = "Connected."; };
  socket.onmessage = (event) => {
    const item = document.createElement("li");
    item.textContent = JSON.parse(event.data).text;
    document.getElementById("messages").append(item);
  };
  socket.onclose = (event) => {
    if (Date.now() - began > 60000) { pause = 1000; }
    if (event.code === 4401) { location.reload(); } else { later(); }  // 4401: the session is over
  };
}
function later() {
  status.textContent = "The connection was lost.";
  // Random, and longer each time: when a server stops, every page of the site gets here in the same moment.
  setTimeout(ask, pause * Math.random());
  pause = Math.min(60000, 2 * pause);
}
async function ask() {
  // A refused handshake looks like any lost connection, so ask first who is signed in.
  const who = await fetch("/who").catch(() => ({}));
  if (who.status === 401) { location.reload(); } else if (who.ok) { connect(); } else { later(); }
}
say.onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN) { socket.send(say.text.value); say.reset(); }
};
connect();
</script>
{% else %}
<h1>Sign in to chat</h1>
<form method="post" action="/login">{% module xsrf_form_html() %}
{% if failed %}<p role="alert">That is not the password.</p>{% end %}
<label>Name <input name="name" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button></form>
{% end %}
"""


class Who(SessionMixin, tornado.web.RequestHandler):
    """Says whether somebody is signed in; asking is no activity."""

    session_activity = False

    def get(self) -> None:
        """Answer 204, or 401."""
        self.set_status(204 if self.current_user else 401)


class Room(SessionSocketMixin, WebSocketHandler):
    """Passes each message on to everybody in the room."""

    socket_activity = "messages"
    members: ClassVar[set[Room]] = set()

    def open(self, *args: str, **kwargs: str) -> None:
        """Enter."""
        self.members.add(self)

    def on_close(self) -> None:
        """Leave."""
        self.members.discard(self)

    def on_message(self, message: str | bytes) -> None:
        """Say it to all."""
        tell(self.members, f"{self.current_user}: {str(message)[:MAX_TEXT]}")


def tell(members: Iterable[Room], text: str) -> None:
    """Send *text* to each of *members* that is still connected."""
    for member in list(members):
        with suppress(WebSocketClosedError):
            member.write_message(json.dumps({"text": text}))


def make_app(sessions: SessionManager, *, password: str) -> tornado.web.Application:
    """Return the application. This example accepts one *password* for every name."""
    return tornado.web.Application(
        [
            ("/", embed.Visits),
            ("/login", embed.Login),
            ("/logout", embed.Logout),
            ("/who", Who),
            ("/socket", Room),
        ],
        template_loader=DictLoader({"page.html": PAGE}),
        password=password,
        **session_settings(sessions),
    )


if __name__ == "__main__":
    sessions, options = embed.parse(None, __doc__, "--allow-originless")
    Room.allow_originless = options.allow_originless
    with suppress(KeyboardInterrupt):
        asyncio.run(embed.serve(sessions, options.port, make_app=make_app))

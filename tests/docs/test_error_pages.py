"""The error pages in docs/embedding.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tornado.web
from tornado.ioloop import IOLoop
from tornado.template import DictLoader

from stormcellar import SessionChanged, SessionMixin, Throttled, session_settings
from stormcellar.testing import Client, make_manager
from tests.docs.chapter import run


@pytest.fixture
def client(io_loop: IOLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A browser at an application with the handler of the page."""
    names = run("embedding.md", "TEXTS = {", SessionMixin=SessionMixin, Throttled=Throttled, tornado=tornado)

    class Page(names["Page"]):  # type: ignore[misc]
        def post(self) -> None:
            match self.get_body_argument("want", ""):
                case "409":
                    raise SessionChanged
                case "413":
                    self.session["large"] = "x" * 70_000
                case "429":
                    raise Throttled(7)

    # Tornado keeps one template loader for each folder, whatever the application.
    monkeypatch.setattr(tornado.web.RequestHandler, "_template_loaders", {})
    settings: dict[str, Any] = session_settings(make_manager())
    loader = DictLoader({"error.html": "<p>{{ current_user }}: {{ text }}</p>"})
    client = Client(tornado.web.Application([("/", Page)], template_loader=loader, **settings))
    io_loop.run_sync(client.__aenter__)
    yield client
    io_loop.run_sync(client.aclose)


@pytest.mark.parametrize(
    ("want", "text"),
    [
        ("409", "alice: You signed in or out in another window"),
        ("413", "alice: This is too much to save"),
        ("429", "alice: That was too often. Try again in 7 seconds."),
    ],
)
@pytest.mark.gen_test
async def test_error_page(client: Client, want: str, text: str) -> None:
    """It has the status, and says what to do."""
    await client.force_login("alice")
    answer = await client.post("/", {"want": want})

    assert (answer.code, text in answer.text) == (int(want), True)


@pytest.mark.gen_test
async def test_error_page_before_the_session_is_loaded(client: Client) -> None:
    """A refused form, and a store that is down: nobody seems to be signed in."""
    await client.force_login("alice")
    forged = await client.post("/", {}, form_token=False)
    with client.store.failing():
        down = await client.post("/", {})

    assert (forged.code, "None: You may not do this" in forged.text) == (403, True)
    assert (down.code, "None: Your data cannot be reached" in down.text) == (503, True)

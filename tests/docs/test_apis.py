"""docs/apis.md: handlers for other servers, for programs, and for scripts of another origin."""

from __future__ import annotations

import asyncio
import hmac
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler

from stormcellar import SessionManager, SessionMixin, session_settings
from stormcellar.testing import Client, Response, make_manager
from tests.docs.chapter import blocks, install
from tests.support.chromium import Chromium

PAGE = "apis.md"
KEY = bytes(32)
PASSWORD = "open sesame"
CLOSED = json.dumps({"user": "alice"})


class Form(SessionMixin, RequestHandler):
    """A page with a form, and what takes it."""

    def get(self) -> None:
        """Show it, with two addresses."""
        token = self.xsrf_form_html()
        self.write(f'<form method="post">{token}<input name="a"></form>')
        self.write(f'<form method="post" action="/plain">{token}<input name="b"></form>')

    def post(self) -> None:
        """Take it."""


class Plain(RequestHandler):
    """The same without the mixin."""

    def post(self) -> None:
        """Take a form."""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the page, which can be imported."""
    install(PAGE, tmp_path, monkeypatch)


@pytest.fixture
def client(io_loop: IOLoop) -> Iterator[Client]:
    """A browser at an application with handlers of every kind."""
    sessions = make_manager()
    webhook, tokens = importlib.import_module("webhook"), importlib.import_module("tokens")
    routes: list[Any] = [
        ("/form", Form),
        ("/plain", Plain),
        ("/hook", webhook.AccountClosed, {"sessions": sessions, "key": KEY}),
        ("/tokens", tokens.NewToken),
        ("/orders", tokens.Orders),
    ]
    client = Client(Application(routes, tokens={}, **session_settings(sessions)))
    io_loop.run_sync(client.__aenter__)
    yield client
    io_loop.run_sync(client.aclose)


async def from_outside(client: Client, path: str, headers: dict[str, str], body: str = CLOSED) -> Response:
    """Send what a program sends: no cookie, no Origin, no form token."""
    without = {"Origin": None, "Cookie": None, "Content-Type": "text/plain"}
    return await client.post(path, body=body, headers={**without, **headers}, form_token=False)


@pytest.mark.gen_test
async def test_form_is_for_handlers_with_the_mixin(client: Client) -> None:
    """A handler without it checks another token."""
    taken = await client.submit_form("/form", {"a": "1"})
    refused = await client.submit_form("/form", {"b": "1"})

    assert (taken.code, refused.code) == (200, 403)


@pytest.mark.gen_test
async def test_webhook(client: Client) -> None:
    """A valid signature ends the sessions; no other does, and neither does a page with the user's cookie."""
    await client.force_login("alice")
    signature = hmac.digest(KEY, CLOSED.encode(), "sha256").hex()
    refused = [
        (await from_outside(client, "/hook", {})).code,
        (await from_outside(client, "/hook", {"X-Signature": "0" * 64})).code,
        (await from_outside(client, "/hook", {"X-Signature": signature}, body=CLOSED + " ")).code,
        (await client.post("/hook", body=CLOSED)).code,
    ]
    before = await client.user()
    done = await from_outside(client, "/hook", {"X-Signature": signature})

    assert (refused, before) == ([403] * 4, "alice")
    assert (done.code, await client.user()) == (204, None)


@pytest.mark.gen_test
async def test_token(client: Client) -> None:
    """The token that the page shows signs a program in; the session does not, nor does another scheme."""
    await client.force_login("alice")
    token = (await client.post("/tokens")).json()["token"]
    done = await from_outside(client, "/orders", {"Authorization": f"Bearer {token}"})
    basic = await from_outside(client, "/orders", {"Authorization": f"Basic {token}"})
    with_session = await client.post("/orders")

    assert done.json() == {"user": "alice"}
    assert [basic.code, with_session.code] == [401, 401]
    assert with_session.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.gen_test
async def test_token_needs_a_recent_proof(client: Client) -> None:
    """A page that was left open makes no token."""
    await client.force_login("alice")
    client.clock.advance(600)

    assert (await client.post("/tokens")).code == 403


APP_HOST, API_HOST, OTHER_HOST = "app.shop.localhost", "api.shop.localhost", "other.localhost"
CALL = """
const [path, value, done] = arguments;
fetch("http://%s:%d" + path, OPTIONS)
  .then(async (it) => done([it.status, await it.text()]), () => done("blocked"));
"""


@pytest.fixture
def sessions() -> SessionManager:
    """The manager of the handlers for other origins."""
    return make_manager()


@pytest.fixture
def app(sessions: SessionManager) -> Application:
    """The application of the chapter on CORS; its pages are on the same port, under other hosts."""
    origins: list[str] = []
    app: Application = importlib.import_module("cors").make_app(sessions, origins, PASSWORD)
    return app


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests."""
    with Chromium(tmp_path_factory.mktemp("profile"), "") as browser:
        yield browser


@pytest.mark.parametrize(("host", "is_trusted"), [(APP_HOST, True), (OTHER_HOST, False)])
@pytest.mark.gen_test
async def test_script_of_another_origin(
    app: Application,
    http_server: HTTPServer,
    http_port: int,
    chromium: Chromium,
    host: str,
    is_trusted: bool,
) -> None:
    """In a real browser: one of a trusted origin signs in and writes, any other one is refused."""
    app.settings["trusted_origins"].append(f"http://{APP_HOST}:{http_port}")
    printed = blocks(PAGE, "js")[0]
    options = printed[printed.index("{") : printed.rindex("}") + 1].replace('{text: "tea"}', "value")
    script = CALL.replace("OPTIONS", options) % (API_HOST, http_port)

    async def call(path: str, value: object) -> Any:
        return await asyncio.to_thread(chromium.driver.execute_async_script, script, path, value)

    await asyncio.to_thread(chromium.driver.get, f"http://{host}:{http_port}/none")
    found = [
        await call("/notes", {"text": "tea"}),
        await call("/login", {"name": "alice", "password": PASSWORD}),
        await call("/notes", {"text": "tea"}),
    ]

    assert [each[0] if is_trusted else each for each in found] == (
        [401, 200, 200] if is_trusted else ["blocked"] * 3
    )
    assert not is_trusted or json.loads(found[2][1]) == {"notes": ["tea"]}


@pytest.mark.gen_test
async def test_answers_to_other_origins(app: Application) -> None:
    """One that is not trusted gets no permission, is refused, and caches keep the answers apart."""
    app.settings["trusted_origins"].append("https://app.example.org")
    async with Client(app) as client:
        await client.force_login("alice")
        found = {}
        for origin in ("https://app.example.org", "https://evil.example", "null"):
            answer = await client.post("/notes", json={"text": "tea"}, headers={"Origin": origin})
            found[origin] = answer.code, answer.headers.get("Access-Control-Allow-Origin")
        varies = ",".join(answer.headers.get_list("Vary"))

    assert found == {
        "https://app.example.org": (200, "https://app.example.org"),
        "https://evil.example": (403, None),
        "null": (403, None),
    }
    assert "Origin" in varies

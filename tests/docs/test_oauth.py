"""docs/oauth.md: its programs sign in with a provider on loopback."""

from __future__ import annotations

import base64
import hashlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.httputil import url_concat
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port
from tornado.web import Application, HTTPError, RequestHandler

from stormcellar.testing import Client, make_manager
from tests.docs.chapter import install, run

PAGE = "oauth.md"
CALLBACK = "https://shop.example.org/login/callback"
CLIENT = {"key": "our id", "secret": "our secret"}


class Provider:
    """What the provider knows, and what it does wrong if a test wants it."""

    def __init__(self) -> None:
        self.asked: dict[str, str] = {}
        self.is_down = False


class Authorize(RequestHandler):
    """Leads back at once, as if the user were signed in and agreed."""

    def get(self) -> None:
        """Issue a code."""
        self.settings["provider"].asked = {
            name: self.get_query_argument(name) for name in self.request.arguments
        }
        state = self.get_query_argument("state")
        self.redirect(url_concat(self.get_query_argument("redirect_uri"), {"code": "a code", "state": state}))


class Token(RequestHandler):
    """Gives a token for the code to the client that asked for it."""

    def post(self) -> None:
        """Check everything."""
        asked = self.settings["provider"].asked
        verifier = self.get_body_argument("code_verifier", "")
        hashed = hashlib.sha256(verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
        given = [
            self.get_body_argument(name) for name in ("client_id", "client_secret", "redirect_uri", "code")
        ]
        if given != [*CLIENT.values(), CALLBACK, "a code"] or self.settings["provider"].is_down:
            raise HTTPError(400)
        if challenge != asked.get("code_challenge", challenge):
            raise HTTPError(400)
        self.write({"access_token": "a token"})


class UserInfo(RequestHandler):
    """Says who it is, to the holder of the token."""

    def get(self) -> None:
        """Say it."""
        token = self.get_query_argument("access_token", "") or self.request.headers["Authorization"]
        if token.removeprefix("Bearer ") != "a token":
            raise HTTPError(401)
        self.write({"id": "42", "sub": "42", "email": "alice@example.org"})


@pytest.fixture
def provider(io_loop: IOLoop) -> Iterator[tuple[Provider, str]]:
    """A provider, and its address."""
    provider = Provider()
    listening, port = bind_unused_port()
    routes = [("/authorize", Authorize), ("/token", Token), ("/userinfo", UserInfo)]
    server = HTTPServer(Application(routes, provider=provider))
    server.add_socket(listening)
    yield provider, f"http://127.0.0.1:{port}"
    server.stop()
    io_loop.run_sync(server.close_all_connections, timeout=10)


@pytest.fixture(params=["google", "openid"])
def client(
    request: pytest.FixtureRequest,
    provider: tuple[Provider, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    io_loop: IOLoop,
) -> Iterator[Client]:
    """A browser at an application with each of the two programs, whose provider is on loopback."""
    install(PAGE, tmp_path, monkeypatch)
    oauth, openid = importlib.import_module("oauth"), importlib.import_module("openid")
    if request.param == "openid":
        oauth.Begin, oauth.Callback = openid.OpenIDBegin, openid.OpenIDCallback  # type: ignore[attr-defined]
    for handler in (oauth.Begin, oauth.Callback):
        handler._OAUTH_AUTHORIZE_URL = f"{provider[1]}/authorize"
        handler._OAUTH_ACCESS_TOKEN_URL = f"{provider[1]}/token"
        handler._OAUTH_USERINFO_URL = f"{provider[1]}/userinfo"
    monkeypatch.setenv("GOOGLE_ID", CLIENT["key"])
    monkeypatch.setenv("GOOGLE_SECRET", CLIENT["secret"])
    app = run(PAGE, "def make_app(")["make_app"](make_manager())
    app.settings["openid_client"] = CLIENT
    client = Client(app)
    client.app_user = f"{request.param}:42"  # type: ignore[attr-defined]
    io_loop.run_sync(client.__aenter__)
    yield client
    io_loop.run_sync(client.aclose)


async def begin(client: Client, query: str = "") -> str:
    """Go to the provider, and return the path to which it leads back."""
    away = await client.get(f"/login{query}")
    back = await AsyncHTTPClient().fetch(str(away.location), follow_redirects=False, raise_error=False)
    target = urlsplit(back.headers["Location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == CALLBACK
    return f"{target.path}?{target.query}"


@pytest.mark.gen_test
async def test_sign_in(client: Client, provider: tuple[Provider, str]) -> None:
    """The user gets where they wanted to go, under a new session ID, with the cart."""
    async with client.session_transaction() as session:
        session.update({"cart": ["tea"], "other": 1})
    back = await begin(client, "?next=/orders")
    cookie = client.cookies["id"]
    done = await client.get(back)

    assert (done.code, done.location) == (303, "/orders")
    assert await client.user() == client.app_user  # type: ignore[attr-defined]
    assert await client.data() == {"cart": ["tea"]}
    assert client.cookies["id"] != cookie
    assert provider[0].asked["scope"] == "openid email"


@pytest.mark.gen_test
async def test_state_of_another_browser(client: Client) -> None:
    """Nobody finishes an attacker's sign-in in the browser of a user."""
    async with client.another() as attacker:
        back = await begin(attacker)
    await begin(client)
    refused = await client.get(back)

    assert (refused.code, await client.user()) == (403, None)


@pytest.mark.gen_test
async def test_state_counts_once(client: Client) -> None:
    """The address that the provider led to signs nobody in a second time."""
    back = await begin(client)
    await client.get(back)
    await client.logout()

    assert ((await client.get(back)).code, await client.user()) == (403, None)


@pytest.mark.gen_test
async def test_wrong_state_uses_it_up(client: Client) -> None:
    """There is one guess."""
    back = await begin(client)
    wrong = await client.get("/login/callback?code=a+code&state=guess")

    assert [wrong.code, (await client.get(back)).code] == [403, 403]


@pytest.mark.gen_test
async def test_browser_without_the_cookie(client: Client) -> None:
    """What `samesite="Strict"` does: the browser comes from another site, without it."""
    back = await begin(client)

    assert (await client.get(back, headers={"Cookie": None})).code == 403


@pytest.mark.gen_test
async def test_user_who_says_no(client: Client) -> None:
    """They are led home, and stay visitors."""
    state = parse_qs(urlsplit(await begin(client)).query)["state"][0]
    done = await client.get(f"/login/callback?error=access_denied&state={state}")

    assert (done.code, done.location, await client.user()) == (303, "/", None)


@pytest.mark.gen_test
async def test_provider_that_refuses(client: Client, provider: tuple[Provider, str]) -> None:
    """A 502, and nobody is signed in."""
    back = await begin(client)
    provider[0].is_down = True

    assert ((await client.get(back)).code, await client.user()) == (502, None)


@pytest.mark.parametrize("path", ["//evil.example", "/%5Cevil.example", "https://evil.example"])
@pytest.mark.gen_test
async def test_other_sites_are_no_next_page(client: Client, path: str) -> None:
    """Nobody is led to another site after the sign-in."""
    done = await client.get(await begin(client, f"?next={path}"))

    assert done.location == "/"

"""What a test client sends, and what it makes of the responses."""

from __future__ import annotations

import asyncio

import pytest
from tornado.web import Application, RedirectHandler, RequestHandler

from stormcellar.testing import Client, CookieRefusedWarning, make_manager
from tests.testing.shop import make_app

FORM = "application/x-www-form-urlencoded"


@pytest.mark.gen_test
async def test_form_is_posted_with_a_token(client: Client) -> None:
    """A form of a visitor and one of a user are accepted; without a token they are refused."""
    visitor = await client.post("/", {"item": "tea & milk", "size": ["s", "m"]})
    refused = await client.post("/", {"item": "tea"}, form_token=False)
    await client.force_login("alice")
    user = await client.post("/", {"item": "tea"})
    stale = await client.post("/", {"item": "tea"}, form_token=False)

    assert visitor.json()["fields"] == {"item": ["tea & milk"], "size": ["s", "m"]}
    assert visitor.json()["type"] == FORM
    assert [each.code for each in (visitor, refused, user, stale)] == [200, 403, 200, 403]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.gen_test
async def test_every_method_sends_a_body(client: Client, method: str) -> None:
    """A form, JSON, bytes and text reach the handler, with the token of the browser."""
    send = getattr(client, method)

    form = (await send("/", {"a": "ä"})).json()
    value = (await send("/", json={"a": [1]})).json()
    raw = (await send("/", body=b"\x01", headers={"Content-Type": "text/x"})).json()
    text = (await send("/", body="ä")).json()

    assert [each["method"] for each in (form, value, raw, text)] == [method.upper()] * 4
    assert (form["body"], form["type"]) == ("a=%C3%A4", FORM)
    assert (value["body"], value["type"]) == ('{"a": [1]}', "application/json")
    assert (raw["body"], raw["type"]) == ("\x01", "text/x")
    assert text["body"] == "ä"


@pytest.mark.gen_test
async def test_request_of_another_site(client: Client) -> None:
    """The Origin is that of the application unless the test says otherwise; a foreign one is refused."""
    own = await client.post("/", {})
    foreign = await client.post("/", {}, headers={"origin": "https://evil.example"})
    none = await client.post("/", {}, headers={"Origin": None})

    assert own.json()["origin"].startswith("http://")
    assert (foreign.code, none.json()["origin"]) == (403, None)


class Stock(RequestHandler):
    """A page without the mixin, whose forms have Tornado's own token."""

    def get(self) -> None:
        """Set the cookie of the token."""
        self.write(self.xsrf_token)

    def post(self) -> None:
        """Take a form."""


@pytest.mark.gen_test
async def test_form_token_of_tornado() -> None:
    """It is the value of its cookie, and can be sent in place of ours."""
    app = make_app(make_manager())
    app.add_handlers(".*", [("/stock", Stock)])
    async with Client(app) as client:
        ours = await client.post("/stock", {})
        await client.get("/stock")
        stock = await client.post("/stock", {}, headers={"X-Xsrftoken": client.cookies["_xsrf"]})

    assert (ours.code, stock.code) == (403, 200)


@pytest.mark.gen_test
async def test_redirects_are_followed_by_choice(client: Client) -> None:
    """A form that was posted leads to the page after it, with the session that it began."""
    plain = await client.post("/cart", {"item": "tea"})
    followed = await client.post("/cart", {"item": "milk"}, follow_redirects=True)

    assert (plain.code, plain.location, plain.history) == (303, "/", ())
    assert followed.json()["data"] == {"cart": ["tea", "milk"]}
    assert (followed.method, followed.path) == ("GET", "/")
    assert [each.code for each in followed.history] == [303]


class Redirects(RequestHandler):
    """Redirects as the query says."""

    def get(self) -> None:
        """Redirect."""
        self.redirect(self.get_argument("to"), status=int(self.get_argument("status", "302")))

    def post(self) -> None:
        """Redirect, or answer."""
        if self.get_query_argument("to", None) is None:
            self.write(f"POST {self.request.body.decode()}")
        else:
            self.get()

    def check_xsrf_cookie(self) -> None:
        """Take every form."""


@pytest.mark.gen_test
async def test_kinds_of_redirects() -> None:
    """307 keeps method and body; another site is not visited; a circle ends with an error."""
    app = make_app(make_manager())
    app.add_handlers(".*", [("/r", Redirects), ("/circle", RedirectHandler, {"url": "/circle?again"})])
    async with Client(app) as client:
        kept = await client.post("/r?to=/r&status=307", {"a": "b"}, follow_redirects=True)
        away = await client.get("/r?to=https://id.example/authorize", follow_redirects=True)

        assert kept.text == "POST a=b"
        assert (away.code, away.location) == (302, "https://id.example/authorize")
        with pytest.raises(ValueError, match=r"more than 10 redirects, the last one to /circle$"):
            await client.get("/circle", follow_redirects=True)


@pytest.mark.gen_test
async def test_wrong_requests(client: Client) -> None:
    """A request that cannot be meant is an error that says what to write."""
    with pytest.raises(ValueError, match="a path begins with '/'"):
        await client.get("cart")
    with pytest.raises(ValueError, match="one body: data, json or body"):
        await client.post("/", {"a": "b"}, json={})
    with pytest.raises(TypeError, match="data must be a mapping of form fields, not str: use body="):
        await client.post("/", "a=b")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="JSON"):
        await client.post("/", json={1, 2})


@pytest.mark.gen_test
async def test_response(client: Client) -> None:
    """A response has its text and its JSON, and shows itself without what it contains."""
    page, missing = await client.get("/login?next=/"), await client.get("/nothing")

    assert page.text.startswith("<form") and page.headers["content-type"].startswith("text/html")
    assert repr(page) == "<Response 200 to GET /login>"
    assert (missing.code, missing.reason) == (404, "Not Found")
    with pytest.raises(ValueError, match=r"<Response 200 to GET /login> is not JSON: text/html"):
        page.json()


@pytest.mark.gen_test
async def test_cookie_that_browsers_refuse() -> None:
    """A response whose cookie no browser would keep is answered with a warning that says why."""

    class Page(RequestHandler):
        def get(self) -> None:
            self.set_cookie("__Host-x", "1", secure=True, path="/page")
            self.set_cookie("theme", "dark", path="/page")

    app = make_app(make_manager())
    app.add_handlers(".*", [("/page", Page)])
    async with Client(app) as client:
        with pytest.warns(
            CookieRefusedWarning, match="'__Host-x': a name with the prefix __Host- needs Path="
        ):
            await client.get("/page")

        assert dict(client.cookies) == {"theme": "dark"}


@pytest.mark.gen_test
async def test_many_requests_run_at_once(client: Client, app: Application) -> None:
    """Fifty requests wait for each other in the application, so none waits for another in the client."""
    barrier = asyncio.Barrier(50)

    class Together(RequestHandler):
        async def get(self) -> None:
            await barrier.wait()

    app.add_handlers(".*", [("/together", Together)])
    responses = await asyncio.gather(*(client.get("/together") for _ in range(50)))

    assert {each.code for each in responses} == {200}

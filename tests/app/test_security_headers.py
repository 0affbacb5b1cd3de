"""The headers that every response carries, as a table over routes and statuses."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import tornado.web
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.ioloop import IOLoop

from stormcellar.accounts.throttle import Rules
from stormcellar.app.edge import Edge
from stormcellar.app.security_headers import SECURITY, security_transform
from stormcellar.stores import StoreUnavailable
from tests.support.browser import Browser, token
from tests.support.site import JSON, PASSWORD, OpenSite, Site

HSTS = "max-age=31536000"
EDGE = Edge(
    trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),),
    allowed_hosts=("example.org", "localhost"),
    is_secure=True,
)
STATIC = "/static/style.css"
AS_JSON = {"Accept": JSON, "Content-Type": JSON}
AS_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class World:
    """A secure site, and browsers that know it as example.org."""

    def __init__(self, site: Site) -> None:
        self.site = site
        names = {name: "127.0.0.1" for name in ("example.org", "evil.example", "localhost")}
        self.client = AsyncHTTPClient(force_instance=True, hostname_mapping=names)

    def browser(self, host: str = "example.org") -> Browser:
        """Return a browser without cookies."""
        return Browser(self.client, f"http://{host}:{self.site.port}")

    async def signed_in(self) -> Browser:
        """Return a browser in which alice has signed in."""
        browser = self.browser()
        await browser.json("POST", "/login", {"username": "alice", "password": PASSWORD})
        assert browser.cookies.keys() == {"__Host-id", "__Host-id-device"}
        return browser


@pytest.fixture
def world(open_site: OpenSite, io_loop: IOLoop) -> Iterator[World]:
    """A site at which the second wrong password of an account is one too many."""
    made = World(open_site(edge=EDGE, rules=Rules(attempts=1)))
    yield made
    made.client.close()


async def table(world: World) -> dict[tuple[int, str], HTTPResponse]:
    """Return an answer of every kind: by the status it should have, and what was asked."""
    site, visitor, alice = world.site, world.browser(), await world.signed_in()
    old = alice.copy()
    form = {"username": "bob", "password": PASSWORD, "_xsrf": token(await visitor.get("/login"))}
    style = await visitor.get(STATIC)
    large = json.dumps({"a": "x" * 70_000})
    huge = json.dumps({"a": "x" * 300_000})
    wrong = json.dumps({"username": "carol", "password": "wrong"})
    cross = {**AS_JSON, "Origin": "https://evil.example"}
    fetch, post = visitor.fetch, "POST"
    answers = {
        (200, "a page"): await visitor.get("/login"),
        (200, "a page of a user"): await alice.get("/account/sessions"),
        (200, "a page, HEAD"): await fetch("HEAD", "/login"),
        (200, "JSON"): await alice.get("/session"),
        (200, "health"): await visitor.get("/healthz"),
        (200, "a file"): style,
        (200, "a file, HEAD"): await fetch("HEAD", STATIC),
        (200, "the icon"): await visitor.get("/static/icon.svg"),
        (204, "OPTIONS"): await fetch("OPTIONS", "/login"),
        (303, "to sign-in"): await visitor.get("/account/sessions"),
        (304, "a file"): await visitor.get(STATIC, If_None_Match=style.headers["Etag"]),
        (400, "no JSON"): await alice.fetch("PATCH", "/session", body=b"{", headers=AS_JSON),
        (400, "a query that is no text"): await visitor.get("/login?next=%ff"),
        (401, "JSON"): await visitor.get("/account/sessions", Accept=JSON),
        (401, "wrong password"): await fetch(post, "/login", body=wrong, headers=AS_JSON),
        (403, "no form token"): await fetch(post, "/login", body="a=b", headers=AS_FORM),
        (403, "from another site"): await fetch(post, "/login", body=wrong, headers=cross),
        (403, "over plain HTTP"): await visitor.get("/", X_Forwarded_Proto="http"),
        (403, "a file over plain HTTP"): await visitor.get(STATIC, X_Forwarded_Proto="http"),
        (404, "nowhere"): await visitor.get("/nowhere"),
        (404, "nowhere, JSON"): await visitor.get("/nowhere", Accept=JSON),
        (404, "no file"): await visitor.get("/static/nothing"),
        (404, "the robots' file"): await visitor.get("/robots.txt"),
        (405, "DELETE"): await fetch("DELETE", "/login"),
        (405, "GET"): await visitor.get("/logout"),
        (405, "TRACE"): await fetch("TRACE", "/login"),
        (405, "FOO"): await fetch("FOO", "/login"),
        (405, "a file, POST"): await fetch(post, STATIC, body=b""),
        (405, "a file, TRACE"): await fetch("TRACE", STATIC),
        (413, "a large session"): await alice.fetch("PATCH", "/session", body=large, headers=AS_JSON),
        (413, "a large body"): await alice.fetch("PATCH", "/session", body=huge, headers=AS_JSON),
        (415, "text"): await fetch(post, "/login", body="a", headers={"Content-Type": "text/plain"}),
        (421, "another host"): await fetch("GET", "/", headers={"Host": "evil.example"}),
        (421, "a file, another host"): await fetch("GET", STATIC, headers={"Host": "evil.example"}),
        (429, "too many"): await fetch(post, "/login", body=wrong, headers=AS_JSON),
        (429, "too many, a page"): await fetch(
            post, "/login", body=urlencode({**form, "username": "carol"}), headers=AS_FORM
        ),
        (303, "signed in"): await visitor.fetch(post, "/login", body=urlencode(form), headers=AS_FORM),
        (204, "signed out"): await alice.fetch(post, "/logout", body="{}", headers=AS_JSON),
        (409, "signed out before"): await old.fetch("PATCH", "/session", body='{"a": 1}', headers=AS_JSON),
    }
    site.store.fail["load"] = StoreUnavailable("load")
    answers[503, "a page"] = await visitor.get("/")
    answers[503, "JSON"] = await visitor.get("/session")
    site.store.fail["ping"] = StoreUnavailable("ping")
    answers[503, "not ready"] = await visitor.get("/readyz")
    site.store.fail["load"] = RuntimeError("x")
    answers[500, "a page"] = await visitor.get("/")
    answers[500, "JSON"] = await visitor.get("/session")
    return answers


@pytest.mark.gen_test
async def test_every_response_carries_every_header(world: World) -> None:  # F7 F8 F10
    """Whatever the route and the status: policies, HSTS, no software's name, nothing for other origins."""
    for (status, asked), response in (await table(world)).items():
        headers = response.headers

        assert (response.code, asked) == (status, asked)
        assert ({name: headers.get(name) for name in SECURITY}, asked) == (SECURITY, asked)
        if "another host" not in asked:
            assert (headers.get("Strict-Transport-Security"), asked) == (HSTS, asked)
        assert "Server" not in headers
        assert "tornado" not in str(headers).lower()
        assert not any(name.startswith("Access-Control") for name in headers)
        assert not any(len(headers.get_list(name)) > 1 for name in SECURITY)


@pytest.mark.gen_test
async def test_only_files_may_be_stored(world: World) -> None:  # F6
    """All else is no-store, and another answer for another cookie."""
    for (status, asked), response in (await table(world)).items():
        if "file" in asked or "icon" in asked:
            assert "Set-Cookie" not in response.headers
        else:
            found = response.headers["Cache-Control"], response.headers["Vary"], status, asked
            assert found == ("no-store", "Accept, Cookie", status, asked)


def test_the_policy_allows_nothing_by_itself() -> None:  # F7
    """Nothing is loaded but scripts, styles and images from here, and nothing is unsafe."""
    policy = dict(part.strip().split(" ", 1) for part in SECURITY["Content-Security-Policy"].split(";"))

    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }


# --- HSTS ---


@pytest.mark.gen_test
async def test_this_machine_is_not_held_to_tls(world: World) -> None:  # F7
    """A browser would hold every other server on it to TLS too."""
    response = await world.browser("localhost").get("/login")

    assert response.code == 200
    assert "Strict-Transport-Security" not in response.headers


@pytest.mark.gen_test
async def test_plain_http_speaks_of_no_tls(open_site: OpenSite) -> None:  # F7
    """Without TLS there is nothing to hold anybody to."""
    response = await open_site().browser().get("/login")

    assert "Strict-Transport-Security" not in response.headers


@pytest.mark.parametrize(
    ("edge", "host", "expected"),
    [
        (Edge(is_secure=True), "example.org", HSTS),
        (Edge(is_secure=True), "example.org:8443", HSTS),
        (Edge(is_secure=True, hsts_subdomains=True), "example.org", HSTS + "; includeSubDomains"),
        (Edge(hsts_subdomains=True), "example.org", None),
        *(
            (Edge(is_secure=True), host, None)
            for host in ("localhost", "app.localhost:1", "127.0.0.1:8443", "[::1]", "LOCALHOST.")
        ),
    ],
)
def test_who_is_held_to_tls(edge: Edge, host: str, expected: str | None) -> None:  # F7
    """A year, subdomains by flag only, and this machine's own names never."""
    assert edge.hsts_header(host) == expected


# --- beyond our own handlers ---


class Careless(tornado.web.RequestHandler):
    """A handler of somebody who knows nothing of ours."""

    def get(self) -> None:
        """Break."""
        raise RuntimeError("hunter2")


@pytest.mark.gen_test
async def test_stock_handlers_carry_them_too(world: World) -> None:  # F7 F8 F10
    """Nobody has to think of it: what Tornado answers by itself has them as well."""
    app = tornado.web.Application([("/", Careless)])
    app.add_transform(security_transform(Edge(is_secure=True)))
    server = app.listen(0, "127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    browser = Browser(world.client, f"http://example.org:{port}")

    answers = [await browser.get("/"), await browser.get("/x"), await browser.fetch("FOO", "/")]

    server.stop()
    assert [each.code for each in answers] == [500, 404, 405]
    for each in answers:
        assert {name: each.headers[name] for name in SECURITY} == SECURITY
        assert each.headers["Strict-Transport-Security"] == HSTS
        assert "Server" not in each.headers
        assert b"hunter2" not in each.body

"""Requests from other sites: what `SameSite=None` changes, in a real browser and without one."""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from stormcellar import SessionManager, SessionMixin, session_settings
from stormcellar.stores.memory import MemoryStore
from tests.support.certificates import Authority
from tests.support.chromium import Chromium
from tests.support.core import KEY

APP, OTHER = "app.example.org", "other.example.com"
OpenApp = Callable[..., int]


class Home(SessionMixin, RequestHandler):
    """Signs in and out with a form, which a page of another site may show in a frame."""

    def get(self) -> None:
        """Show who is signed in, and the form."""
        label = "Sign out" if self.session.user else "Sign in"
        self.write(
            f"<h1>{self.session.user}</h1><form method=post>{self.xsrf_form_html()}"
            f"<button>{label}</button></form>"
        )

    async def post(self) -> None:
        """Sign in, or out."""
        if self.session.user:
            await self.session.logout()
        else:
            await self.session.login("ada")
        self.redirect("/", status=303)


class Start(SessionMixin, RequestHandler):
    """Begins a sign-in at another site."""

    def get(self) -> None:
        """Store a random `state`, and show it."""
        self.session["state"] = "a random state"
        self.write("<h1>off to the provider</h1>")


class Callback(SessionMixin, RequestHandler):
    """Ends a sign-in whose answer another site posts, as docs/embedding.md shows it."""

    def check_xsrf_cookie(self) -> None:
        """The other site has no form token of ours; `state` is checked instead."""

    def check_trusted_origin(self, origin: str) -> bool:
        """Accept that site alone."""
        return origin.startswith(f"https://{OTHER}:")

    async def post(self) -> None:
        """Sign in if `state` is the one of this browser."""
        expected = self.session.pop("state", None)
        if expected is None or not hmac.compare_digest(expected, self.get_body_argument("state")):
            self.write("<h1>refused</h1>")
            return
        await self.session.login("ada")
        self.write(f"<h1>{self.session.user}</h1>")


class Elsewhere(RequestHandler):
    """Pages of the other site: our page in a frame, and forms that post to ours."""

    def get(self) -> None:
        """Show them."""
        app = f"https://{APP}:{self.request.host.rpartition(':')[2]}"
        forms = "".join(
            f'<form method=post action="{app}{path}"><input name=state value="a random state">'
            f"<button>{path}</button></form>"
            for path in ("/", "/callback")
        )
        self.write(f'<h1>other</h1>{forms}<iframe src="{app}/"></iframe>')


@pytest.fixture
def open_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApp]:
    """A function that serves the application over TLS in a thread, and returns its port."""
    certificate = Authority(tmp_path_factory.mktemp("tls")).issue()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, threading.Thread]] = []

    def start(**manager: Any) -> int:
        ready: Future[Any] = Future()

        async def serve() -> None:
            sessions = SessionManager(MemoryStore(), secrets=[KEY], secure=True, **manager)
            routes = [("/", Home), ("/start", Start), ("/callback", Callback), ("/elsewhere", Elsewhere)]
            listening, port = bind_unused_port()
            tls = {"certfile": str(certificate.certificate), "keyfile": str(certificate.key)}
            server = HTTPServer(Application(routes, **session_settings(sessions)), ssl_options=tls)
            server.add_socket(listening)
            stop = asyncio.Event()
            ready.set_result((port, asyncio.get_running_loop(), stop))
            await stop.wait()
            server.stop()
            await server.close_all_connections()
            await sessions.aclose()

        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        port, loop, stop = ready.result(timeout=10)
        loops.append((loop, stop, thread))
        return int(port)

    yield start
    for loop, stop, thread in loops:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests."""
    rules = "host-resolver-rules=MAP *.example.org 127.0.0.1,MAP *.example.com 127.0.0.1"
    with Chromium(tmp_path_factory.mktemp("profile"), "", rules) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Chromium) -> Chromium:
    """It without cookies."""
    chromium.forget()
    return chromium


def at(port: int, host: str = APP) -> str:
    """Return the base URL of *host*."""
    return f"https://{host}:{port}"


def test_partitioned_cookie_works_in_a_frame(open_app: OpenApp, browser: Chromium) -> None:  # A6
    """Signed in within the frame, and there alone; signing out there deletes the cookie."""
    port = open_app(samesite="None", cookie_partitioned=True)
    browser.base = at(port)
    browser.driver.get(at(port, OTHER) + "/elsewhere")
    browser.driver.switch_to.frame(0)
    browser.press("Sign in")
    in_frame, cookies = browser.heading, browser.cookies()
    browser.press("Sign out")
    after, left = browser.heading, browser.cookies()
    browser.press("Sign in")
    browser.driver.switch_to.default_content()
    browser.open("/")
    itself = browser.heading

    name = "__Host-id-partitioned"
    assert (in_frame, after, itself) == ("ada", "None", "None")
    assert cookies.keys() == {name}
    assert cookies[name]["partitionKey"]["topLevelSite"] == "https://example.com"
    assert left.keys() == {f"{name}-form"}


@pytest.mark.parametrize(("samesite", "heading"), [("None", "ada"), ("Lax", "refused")])
def test_answer_that_a_provider_posts(
    samesite: str, heading: str, open_app: OpenApp, browser: Chromium
) -> None:  # F15
    """With SameSite=None it comes with the cookie, so `state` is found; with Lax it does not."""
    port = open_app(samesite=samesite)
    browser.base = at(port)
    browser.open("/start")
    browser.driver.get(at(port, OTHER) + "/elsewhere")
    browser.press("/callback")

    assert browser.heading == heading


def test_forged_form_comes_with_the_cookie_and_fails(open_app: OpenApp, browser: Chromium) -> None:  # F1, F2
    """With SameSite=None the form token and the check of the origin are what is left, and enough."""
    port = open_app(samesite="None")
    browser.base = at(port)
    browser.open("/")
    browser.press("Sign in")
    browser.driver.get(at(port, OTHER) + "/elsewhere")
    browser.press("/")
    refused = browser.text
    browser.open("/")

    assert "403" in refused
    assert browser.heading == "ada"


def test_domain_cookie_is_deleted(open_app: OpenApp, browser: Chromium) -> None:  # A6
    """Signing out at a sibling host removes the cookie of the whole domain."""
    port = open_app(cookie_domain="example.org")
    browser.base = at(port)
    browser.open("/")
    browser.press("Sign in")
    cookies = browser.cookies()
    browser.driver.get(at(port, "sibling.example.org"))
    at_the_sibling = browser.heading
    browser.press("Sign out")

    assert cookies["__Secure-id"]["domain"] == ".example.org"
    assert at_the_sibling == "ada"
    assert browser.cookies().keys() == {"__Secure-id-form"}

"""The session is loaded before application code runs: base handlers, error pages, guarded handlers."""

from __future__ import annotations

import asyncio

import pytest
from tornado.web import ErrorHandler, FallbackHandler, HTTPError, RequestHandler, authenticated
from tornado.websocket import WebSocketHandler

from stormcellar import SessionMixin
from stormcellar.stores import StoreUnavailable
from tests.support.embedding import JSON, Lab, look, post_json, set_names


@pytest.fixture
def lab():
    """An application without a handler of its own."""
    return Lab()


def _shows_user(self, status_code, **kwargs):
    self.finish(f"{status_code} {self.current_user} {dict(self.session)}")


@pytest.mark.parametrize("kind", ["function", "coroutine"])
@pytest.mark.gen_test
async def test_a_base_class_can_use_the_session_in_its_prepare(kind, lab, browser):
    """`prepare` of a base class runs after the load, and may change the session."""

    class Function(RequestHandler):
        def prepare(self):
            self.session["asked"] = self.current_user

    class Coroutine(RequestHandler):
        async def prepare(self):
            await asyncio.sleep(0)
            self.session["asked"] = self.current_user

    base = {"function": Function, "coroutine": Coroutine}[kind]
    await lab.open_session(browser, user="alice")
    lab.serve("/", bases=(SessionMixin, base), get=look)

    response = await browser.get("/")

    assert response.body == b'{"user": "alice", "data": {"asked": "alice"}}'
    assert await lab.data() == {"asked": "alice"}


@pytest.mark.gen_test
async def test_a_base_class_can_answer_in_its_prepare(lab, browser):
    """If that `prepare` answers the request, the method does not run, and what it changed is saved."""

    class Base(RequestHandler):
        def prepare(self):
            self.session["asked"] = 1
            self.redirect("/elsewhere")

    lab.serve("/", bases=(SessionMixin, Base), get=look)

    response = await browser.get("/")

    assert (response.code, response.body) == (302, b"")
    assert await lab.data() == {"asked": 1}


@pytest.mark.gen_test
async def test_a_second_call_does_nothing(lab, browser):
    """Two classes that both call the mixin's `prepare` load one session, and run each `prepare` once."""
    ran = []

    class Base(RequestHandler):
        async def prepare(self):
            await SessionMixin.prepare(self)
            ran.append(self.current_user)

    async def prepare(self):
        await super(type(self), self).prepare()
        await SessionMixin.prepare(self)

    await lab.open_session(browser, user="alice")
    lab.serve("/", bases=(SessionMixin, Base), prepare=prepare, get=look)

    response = await browser.get("/")

    assert response.code == 200
    assert (ran, lab.store.calls["load"]) == (["alice"], 1)


@pytest.mark.gen_test
async def test_nothing_is_loaded_for_a_request_that_is_answered(lab, browser):
    """A handler whose own `prepare` answers first makes no store call."""

    async def prepare(self):
        self.redirect("/elsewhere")
        await SessionMixin.prepare(self)

    await lab.open_session(browser, user="alice")
    lab.serve("/", prepare=prepare, get=look)

    response = await browser.get("/")

    assert (response.code, dict(lab.store.calls)) == (302, {})


# --- error pages ---


@pytest.mark.gen_test
async def test_the_page_of_an_unknown_address_knows_the_user(lab, browser):
    """Tornado's `ErrorHandler` raises in `prepare`; the session is loaded then."""
    page = type("NotFound", (SessionMixin, ErrorHandler), {"write_error": _shows_user})
    await lab.open_session(browser, user="alice", theme="dark")
    lab.app.add_handlers(".*", [("/nowhere", page, {"status_code": 404})])

    response = await browser.get("/nowhere")

    assert response.body == b"404 alice {'theme': 'dark'}"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("reason", ["form token", "store", "own prepare"])
@pytest.mark.gen_test
async def test_an_error_before_the_load_has_an_empty_session(reason, lab, browser):
    """The page of such an error can read the session; there is nobody and nothing in it."""
    await lab.open_session(browser, user="alice", theme="dark")
    members = {}
    if reason == "own prepare":

        async def prepare(self):
            raise HTTPError(404)

        members["prepare"] = prepare
    lab.serve("/", get=look, post=look, write_error=_shows_user, **members)

    if reason == "form token":
        response = await browser.fetch("POST", "/", body="a=1")
    else:
        if reason == "store":
            lab.store.fail["load"] = StoreUnavailable("down")
        response = await browser.get("/")

    status = {"form token": 403, "store": 503, "own prepare": 404}[reason]
    assert response.body.decode() == f"{status} None {{}}"
    assert set_names(response) == []


@pytest.mark.gen_test
async def test_the_session_of_an_error_page_cannot_change(lab, browser):
    """A write to it raises, and says why; the client still gets its status."""
    raised = []

    def write_error(self, status_code, **kwargs):
        try:
            self.session["a"] = 1
        except RuntimeError as exc:
            raised.append(str(exc))
        self.finish(f"{status_code}")

    lab.serve("/", post=look, write_error=write_error)

    response = await browser.fetch("POST", "/", body="a=1")

    assert (response.code, response.body) == (403, b"403")
    assert raised == ["the session can no longer change: it was not loaded"]
    assert await lab.records() == []


# --- the current user ---


@pytest.mark.parametrize("reason", ["a store that is down", "an ended session"])
@pytest.mark.gen_test
async def test_the_page_of_a_failed_save_can_show_messages(reason, lab, browser):
    """The layout of a site shows them on every page; there they stay for the next one."""

    async def post(self):
        self.session["item"] = 1
        if reason == "a store that is down":
            lab.store.fail["apply"] = StoreUnavailable("apply")
        else:
            await lab.end(sid.handle)

    def write_error(self, status_code, **kwargs):
        self.finish(f"{status_code} {self.session.flashes()}")

    async def leave(self):
        self.session.flash("Hello.")

    def show(self):
        self.write(f"{self.session.flashes()}")

    sid = await lab.open_session(browser, user="alice")
    lab.serve("/leave", post=leave)
    lab.serve("/", post=post, write_error=write_error, get=show)
    await post_json(browser, "/leave")

    response = await post_json(browser)
    lab.store.fail.clear()
    page = await browser.get("/")

    is_down = reason == "a store that is down"
    assert response.body == (b"503 ['Hello.']" if is_down else b"409 ['Hello.']")
    assert page.body == (b"['Hello.']" if is_down else b"[]")


@pytest.mark.gen_test
async def test_current_user_follows_sign_in_and_sign_out(lab, browser):
    """It is computed again after each, also by an overridden `get_current_user`."""

    async def post(self):
        seen = [self.current_user]
        await self.session.login("alice")
        seen.append(self.current_user)
        await self.session.login("bob")
        seen.append(self.current_user)
        await self.session.logout()
        self.write({"seen": [*seen, self.current_user]})

    def get_current_user(self):
        calls.append(self.session.user)
        return self.session.user and self.session.user.upper()

    calls = []
    lab.serve("/", post=post, get_current_user=get_current_user)

    response = await post_json(browser)

    assert response.body == b'{"seen": [null, "ALICE", "BOB", null]}'
    assert calls == [None, "alice", "bob", None]


@pytest.mark.gen_test
async def test_current_user_follows_the_sign_out_of_an_application_with_users_of_its_own(lab, browser):
    """Such an application keeps its user among the data, so the session has none."""

    async def post(self):
        before = self.current_user
        await self.session.logout()
        self.write({"seen": [before, self.current_user]})

    await lab.open_session(browser, name="alice")
    lab.serve("/", post=post, get_current_user=lambda self: self.session.get("name"))

    response = await post_json(browser)

    assert response.body == b'{"seen": ["alice", null]}'


@pytest.mark.parametrize("guard", ["login_required", "authenticated"])
@pytest.mark.gen_test
async def test_a_coroutine_is_no_current_user(guard, lab, browser):
    """Every coroutine is true, so a guard would let everybody in."""

    async def get_current_user(self):
        return None

    guarded = (
        {"login_required": True, "get": look} if guard == "login_required" else {"get": authenticated(look)}
    )
    lab.serve("/", get_current_user=get_current_user, **guarded)

    response = await browser.get("/")

    assert response.code == 500


@pytest.mark.gen_test
async def test_an_assigned_current_user_lasts_until_the_user_changes(lab, browser):
    """A handler may load its own user object in `prepare`."""

    async def prepare(self):
        await SessionMixin.prepare(self)
        self.current_user = {"name": self.session.user}

    async def post(self):
        before = [self.current_user, self.current_user]
        await self.session.logout()
        self.write({"before": before, "after": self.current_user})

    await lab.open_session(browser, user="alice")
    lab.serve("/", prepare=prepare, post=post)

    response = await post_json(browser)

    assert response.body == b'{"before": [{"name": "alice"}, {"name": "alice"}], "after": null}'


# --- handlers for signed-in users only ---


def _wsgi_like(ran):
    def fallback(request):
        ran.append(request.path)
        body = b"inside"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        request.connection.stream.write(head + body)
        request.connection.finish()

    return fallback


@pytest.mark.gen_test
async def test_a_guarded_fallback_handler_fails_closed(lab, browser):
    """A visitor never reaches the application behind it; a user does."""
    ran = []
    guarded = type("Wiki", (SessionMixin, FallbackHandler), {"login_required": True})
    lab.app.add_handlers(".*", [("/wiki.*", guarded, {"fallback": _wsgi_like(ran)})])

    visitor = await browser.get("/wiki?page=1")
    posted = await browser.fetch("POST", "/wiki", body=b"{}", headers=JSON)
    kept_out = list(ran)
    await lab.open_session(browser, user="alice")
    user = await browser.get("/wiki?page=1")

    assert (visitor.code, visitor.headers["Location"]) == (303, "/login?next=%2Fwiki%3Fpage%3D1")
    assert (posted.code, kept_out) == (403, [])
    assert (user.code, user.body, ran) == (200, b"inside", ["/wiki"])


@pytest.mark.gen_test
async def test_a_store_that_is_down_lets_nobody_in(lab, browser):
    """Without an answer from the store the guard answers 503."""
    ran = []
    guarded = type("Wiki", (SessionMixin, FallbackHandler), {"login_required": True})
    lab.app.add_handlers(".*", [("/wiki", guarded, {"fallback": _wsgi_like(ran)})])
    await lab.open_session(browser, user="alice")
    lab.store.fail["load"] = StoreUnavailable("down")

    response = await browser.get("/wiki")

    assert (response.code, ran) == (503, [])


@pytest.mark.gen_test
async def test_login_required_runs_no_code_of_the_handler(lab, browser):
    """Neither the `prepare` of a base class nor the method runs for a visitor."""
    ran = []

    class Base(RequestHandler):
        def prepare(self):
            ran.append("prepare")

    lab.serve("/", bases=(SessionMixin, Base), get=lambda self: ran.append("get"), login_required=True)

    response = await browser.get("/")

    assert (response.code, ran) == (303, [])


def _forgets_super(self):
    """Does not load the session."""


def _forgets_await(self):
    SessionMixin.prepare(self)


async def _forgets_await_in_a_coroutine(self):
    SessionMixin.prepare(self)


@pytest.mark.parametrize("prepare", [_forgets_super, _forgets_await, _forgets_await_in_a_coroutine])
@pytest.mark.parametrize("where", ["the class", "a base class"])
@pytest.mark.filterwarnings("ignore:coroutine.*never awaited")
@pytest.mark.gen_test
async def test_login_required_fails_closed(prepare, where, lab, browser, caplog):
    """A `prepare` that does not load the session lets nobody in, and the log says what to write."""
    ran = []
    base = type("Base", (RequestHandler,), {"prepare": prepare})
    members = {"login_required": True, "get": lambda self: ran.append("get")}
    if where == "the class":
        lab.serve("/", prepare=prepare, **members)
    else:
        lab.serve("/", bases=(base, SessionMixin), **members)

    response = await browser.get("/")

    assert (response.code, ran) == (500, [])
    assert "Page.prepare() must await super().prepare(), for login_required" in caplog.text


@pytest.mark.parametrize("is_signed_in", [True, False])
@pytest.mark.gen_test
async def test_returning_the_coroutine_of_super_works(is_signed_in, lab, browser):
    """`return super().prepare()` in a coroutine loads the session, and checks `login_required`."""

    class Page(SessionMixin, RequestHandler):
        login_required = True

        async def prepare(self):
            return super().prepare()

    lab.serve("/", bases=(Page,), get=lambda self: self.write(self.current_user))
    if is_signed_in:
        await lab.open_session(browser, user="ada")

    response = await browser.get("/")

    assert (response.code, response.body) == ((200, b"ada") if is_signed_in else (303, b""))


@pytest.mark.gen_test
async def test_a_sign_in_page_elsewhere_gets_the_whole_address(lab, browser):
    """As with `tornado.web.authenticated`, an absolute `login_url` gets an absolute `next`."""
    lab.app.settings["login_url"] = "https://login.example.org/"
    lab.serve("/private", get=look, login_required=True)

    response = await browser.get("/private")

    expected = (
        f"https://login.example.org/?next={browser.base.replace(':', '%3A').replace('/', '%2F')}%2Fprivate"
    )
    assert response.headers["Location"] == expected


@pytest.mark.gen_test
async def test_a_guarded_web_socket_refuses_a_visitor(lab, browser):
    """A handshake is not redirected: no browser would follow it."""
    lab.serve("/", bases=(SessionMixin, WebSocketHandler), login_required=True)
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }

    response = await browser.fetch("GET", "/", headers=upgrade)

    assert response.code == 403
    assert browser.cookies == {}

"""Visitors who come back with a stale cookie, and requests that take long."""

from __future__ import annotations

import json

import pytest
from tornado.httputil import url_concat
from tornado.web import RequestHandler, authenticated

from stormcellar import Lifetime, SessionMixin
from tests.support.browser import Browser, token
from tests.support.embedding import Lab, count, look, post_json, set_names


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    """An application whose users may ask to stay signed in, or with other limits."""
    return Lab(lifetime=getattr(request, "param", Lifetime(remember_s=30 * 86_400)))


class OAuth(SessionMixin, RequestHandler):
    """Begins a sign-in elsewhere with a state, as OAuth clients do, and compares it at the callback."""

    async def get(self) -> None:
        """Redirect with a new state, or check the one that came back."""
        if (came_back := self.get_query_argument("state", None)) is None:
            self.session["state"] = "s1"
            self.redirect(url_concat("https://id.example.org/", {"state": "s1"}))
        else:
            self.write({"matches": self.session.pop("state", None) == came_back})


async def _login(self):
    await self.session.login("alice", remember=self.get_query_argument("remember", None) == "1")


async def _with_lost_answer(lab: Lab, browser: Browser, remember: str) -> None:
    """Sign *browser* in, and lose the answer with the new cookie."""
    lab.serve("/login", post=_login)
    await lab.open_session(browser, cart=1)
    lost = browser.copy()
    assert (await post_json(lost, f"/login?remember={remember}")).code == 200
    lab.clock.advance(31)


@pytest.mark.parametrize("case", ["expired", "lost", "lost, remembered", "signed out"])
@pytest.mark.gen_test
async def test_oauth_begun_by_a_get_keeps_its_state(case, lab, browser):
    """The state is stored by the first click after the session was over, and found at the callback."""
    if case.startswith("lost"):
        await _with_lost_answer(lab, browser, "1" if "remembered" in case else "0")
    else:
        sid = await lab.open_session(browser, user="alice")
        if case == "signed out":
            await lab.inner.destroy(sid.handle, now_ms=lab.sessions.now_ms())
            lab.clock.advance(31)
        else:
            lab.clock.advance(1800)
    lab.app.add_handlers(".*", [("/oauth", OAuth)])

    begun = await browser.get("/oauth")
    back = await browser.get("/oauth?state=s1")

    assert (begun.code, set_names(begun)) == (302, ["id"])
    assert json.loads(back.body) == {"matches": True}


@pytest.mark.parametrize("remember", ["0", "1"])
@pytest.mark.gen_test
async def test_a_lost_answer_to_a_sign_in_is_no_trap(remember, lab, browser):
    """Every later try works: a write, and another sign-in."""
    await _with_lost_answer(lab, browser, remember)
    lab.serve("/", get=look, post=count)

    written = await post_json(browser)
    signed_in = await post_json(browser, f"/login?remember={remember}")
    page = await browser.get("/")

    assert (written.code, signed_in.code) == (200, 200)
    assert json.loads(page.body)["user"] == "alice"


@pytest.mark.gen_test
async def test_a_message_reaches_whom_the_session_has_just_expired(lab, browser):
    """`@authenticated` redirects to a page that says why."""

    def get(self):
        self.session.flash("Please sign in.")
        self.redirect("/login")

    lab.serve("/private", get=get)
    lab.serve("/login", get=lambda self: self.write({"messages": self.session.flashes()}))
    await lab.open_session(browser, user="alice")
    lab.clock.advance(1800)

    await browser.get("/private")
    page = await browser.get("/login")

    assert json.loads(page.body) == {"messages": ["Please sign in."]}


@pytest.mark.gen_test
async def test_a_cart_after_the_limit_of_a_visitor(lab, browser):
    """The item is kept, and the answer is 200."""

    def post(self):
        self.session.setdefault("cart", []).append("tea")

    lab.serve("/", post=post)
    await lab.open_session(browser, cart=["old"])
    lab.clock.advance(1801)

    response = await post_json(browser)

    assert response.code == 200
    assert await lab.data() == {"cart": ["tea"]}


@pytest.mark.gen_test
async def test_a_stale_cookie_that_only_reads(lab, browser):
    """The cookie of a session that is over is cleared once; a superseded one is left alone."""
    lab.serve("/", get=look)
    sid = await lab.open_session(browser, user="alice")
    other = browser.copy()
    await lab.supersede(sid)
    lab.clock.advance(31)
    superseded = await other.get("/")
    lab.clock.advance(1800)
    expired, again = await browser.get("/"), await browser.get("/")

    assert [set_names(each) for each in (superseded, expired, again)] == [[], ["-id"], []]


# --- forms ---


@pytest.mark.parametrize("begins", [False, True], ids=["page only", "page that begins a session"])
@pytest.mark.parametrize("case", ["superseded, late", "superseded", "ended, late", "ended", "expired"])
@pytest.mark.gen_test
async def test_the_form_that_a_stale_visitor_is_given_works(case, begins, lab, browser):
    """The token is valid for what the browser has after that response, whatever becomes of the cookie."""

    def get(self):
        if begins:
            self.session["seen"] = 1
        self.write(self.xsrf_form_html())

    lab.serve("/form", get=get, post=lambda self: self.write("accepted"))
    sid = await lab.open_session(browser, user="alice")
    if case.startswith("superseded"):
        await lab.supersede(sid)
    elif case.startswith("ended"):
        await lab.inner.destroy(sid.handle, now_ms=lab.sessions.now_ms())
    else:
        lab.clock.advance(1800)
    lab.clock.advance(0 if "late" in case else 31)

    page = await browser.get("/form")
    response = await browser.post_form("/form", token(page))

    assert (page.code, response.code, response.body) == (200, 200, b"accepted")


@pytest.mark.gen_test
async def test_no_nonce_beside_a_cookie_that_stays(lab, browser):
    """A form that is bound to the cookie in the browser needs no second one."""
    lab.serve("/form", get=lambda self: self.write(self.xsrf_form_html()))
    sid = await lab.open_session(browser, user="alice")
    await lab.supersede(sid)
    lab.clock.advance(31)

    page = await browser.get("/form")

    assert set_names(page) == []


# --- requests that take long ---


def _delayed(seconds: float):
    """Return a `prepare` for a request whose head arrived *seconds* before its body."""

    async def prepare(self):
        self.request._start_time -= seconds
        await super(type(self), self).prepare()

    return prepare


IDLE_300 = pytest.mark.parametrize(
    "lab", [Lifetime(idle_s=300, anonymous_s=300)], indirect=True, ids=["idle 300 s"]
)


@IDLE_300
@pytest.mark.gen_test
async def test_a_slow_upload_is_saved_and_keeps_the_session(lab, browser):
    """Idle 300 s: the head came after 290 s, the body took 20 s; the next click is signed in."""
    lab.serve("/upload", post=count, prepare=_delayed(20))
    lab.serve("/", get=look)
    await lab.open_session(browser, user="alice")

    lab.clock.advance(290 + 20)
    upload = await post_json(browser, "/upload")
    lab.clock.advance(250)
    page = await browser.get("/")

    assert (upload.code, upload.body) == (200, b"visit 1")
    assert json.loads(page.body) == {"user": "alice", "data": {"visits": 1}}


@IDLE_300
@pytest.mark.gen_test
async def test_a_slow_report_is_saved_and_keeps_the_session(lab, browser):
    """Idle 300 s: the handler begins after 290 s and takes 20 s; the next click is signed in."""

    async def get(self):
        await self.sessions.drain()  # the touch
        lab.clock.advance(20)
        self.request._start_time -= 20
        self.session["report"] = 1

    lab.serve("/report", get=get)
    lab.serve("/", get=look)
    await lab.open_session(browser, user="alice")

    lab.clock.advance(290)
    report = await browser.get("/report")
    lab.clock.advance(250)
    page = await browser.get("/")

    assert report.code == 200
    assert json.loads(page.body) == {"user": "alice", "data": {"report": 1}}


@IDLE_300
@pytest.mark.gen_test
async def test_a_request_that_arrived_after_the_expiry_is_a_visitor(lab, browser):
    """A slow body makes a session that had expired no younger."""
    lab.serve("/upload", post=look, prepare=_delayed(20))
    await lab.open_session(browser, user="alice")

    lab.clock.advance(321)
    upload = await post_json(browser, "/upload")

    assert json.loads(upload.body)["user"] is None


@IDLE_300
@pytest.mark.gen_test
async def test_no_request_is_older_than_ten_minutes(lab, browser):
    """Backends keep an expired record that long."""
    lab.serve("/upload", post=look, prepare=_delayed(3600))
    await lab.open_session(browser, user="alice")

    lab.clock.advance(300 + 599)
    within = await post_json(browser.copy(), "/upload")
    lab.clock.advance(300 + 601)
    beyond = await post_json(browser.copy(), "/upload")

    assert [json.loads(each.body)["user"] for each in (within, beyond)] == ["alice", None]


@pytest.mark.gen_test
async def test_authenticated_sends_a_late_request_to_sign_in(lab, browser):
    """Whoever was signed out a moment ago is a visitor for `@authenticated`, and keeps a newer cookie."""
    lab.serve("/", get=authenticated(look))
    sid = await lab.open_session(browser, user="alice")
    await lab.inner.destroy(sid.handle, now_ms=lab.sessions.now_ms())

    response = await browser.get("/")

    assert (response.code, set_names(response)) == (302, [])


@pytest.mark.parametrize("verb", ["logout", "login"])
@pytest.mark.gen_test
async def test_what_expired_and_was_ended_stays_ended_if_the_clock_goes_back(verb, lab, browser):
    """Signing out, or in again, with an expired cookie ends its session for every clock."""

    async def post(self):
        await self.session.logout() if verb == "logout" else await self.session.login("alice")

    lab.serve("/end", post=post)
    lab.serve("/", get=look)
    await lab.open_session(browser, user="alice")
    old = browser.copy()
    lab.clock.advance(1801)
    ended = await post_json(browser, "/end")
    lab.clock.advance(-60)

    assert ended.code == 200
    assert json.loads((await old.get("/")).body)["user"] is None
    assert json.loads((await browser.get("/")).body)["user"] == (None if verb == "logout" else "alice")


@pytest.mark.gen_test
async def test_what_expired_during_a_sign_in_stays_ended_if_the_clock_goes_back(lab, browser):
    """The clock jumps while the password is checked, so the user gets another session; the first one ends."""

    async def post(self):
        lab.clock.advance(1801)
        await self.session.login("alice")

    lab.serve("/login", post=post)
    lab.serve("/", get=look)
    await lab.open_session(browser, cart=1)
    old = browser.copy()
    signed_in = await post_json(browser, "/login")
    lab.clock.advance(-1801)

    assert signed_in.code == 200
    assert json.loads((await browser.get("/")).body)["user"] == "alice"
    assert json.loads((await old.get("/")).body)["data"] == {}


@pytest.mark.gen_test
async def test_an_id_that_was_replaced_ends_nothing(lab, browser):
    """A sign-out with a superseded cookie leaves the session of the newer one alone."""

    async def post(self):
        await self.session.logout()

    lab.serve("/end", post=post)
    lab.serve("/login", post=_login)
    lab.serve("/", get=look)
    await lab.open_session(browser, cart=1)
    old = browser.copy()
    await post_json(browser, "/login")
    lab.clock.advance(31)
    await post_json(old, "/end")

    assert json.loads((await browser.get("/")).body)["user"] == "alice"


@pytest.mark.gen_test
async def test_a_cookie_replaced_in_the_future_is_no_trap(lab, browser):
    """If the clock was ahead at a sign-in whose answer was lost, no write is refused once it is right."""
    await _with_lost_answer(lab, browser, "0")
    lab.clock.advance(-600)
    lab.serve("/", get=look, post=count)

    assert (await post_json(browser)).code == 200

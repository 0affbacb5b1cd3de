"""The verbs of a session in a handler: which cookie goes with which response, whatever becomes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop
from tornado.web import HTTPError

from stormcellar.stores import StoreUnavailable
from tests.support.embedding import Lab, cookie_lines, post_json, set_names


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application whose sessions are on a steered store."""
    lab = Lab()
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


def _who(self):
    """Show who is signed in, and what the session holds."""
    self.write(f"{self.session.user} {dict(self.session)}")


def _write(self):
    """Write to the session, and show it as a page would."""
    self.session["n"] = 1
    self.write("written")


# --- login ---


async def _plain(self):
    self.write("welcome")


async def _redirects(self):
    self.redirect("/", status=303)


async def _raises_500(self):
    raise HTTPError(500)


async def _fails(self):
    raise ValueError("boom")


async def _raises_404(self):
    raise HTTPError(404)


async def _clears_cookies(self):
    self.set_cookie("mine", "1")
    self.clear_all_cookies()


async def _clears_all(self):
    self.write("half")
    self.clear()


async def _has_an_unsaved_change(self):
    self.session["after"] = 1


async def _has_an_unfit_change(self):
    self.session["after"] = []
    self.session["after"].append({1})


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (_plain, 200),
        (_redirects, 303),
        (_raises_404, 404),
        (_raises_500, 500),
        (_fails, 500),
        (_clears_all, 200),
        (_clears_cookies, 200),
        (_has_an_unfit_change, 500),
    ],
)
@pytest.mark.parametrize("had_session", [True, False])
@pytest.mark.gen_test
async def test_new_cookie_goes_with_any_response(had_session, rest, status, lab, browser):
    """After a sign-in the new ID reaches the browser whatever the rest of the request comes to."""  # C1
    if had_session:
        await lab.open_session(browser, cart=[1])
    old = browser.cookies.get("id")

    async def sign_in(self):
        await self.session.login("alice")
        await rest(self)

    lab.serve("/", get=_who, post=sign_in)

    response = await post_json(browser, "/")
    page = await browser.get("/")

    assert response.code == status
    assert browser.cookies["id"] != old
    assert page.body == b"alice {}"


@pytest.mark.parametrize("fault", [StoreUnavailable("down"), RuntimeError("bug")])
@pytest.mark.gen_test
async def test_new_cookie_goes_though_the_store_failed_later(fault, lab, browser):
    """A store that fails after the sign-in drops the data, but not the only copy of the new ID."""

    async def sign_in(self):
        await self.session.login("alice")
        lab.store.fail["apply"] = fault
        await _has_an_unsaved_change(self)

    lab.serve("/", get=_who, post=sign_in)

    response = await post_json(browser, "/")
    page = await browser.get("/")

    assert response.code in (500, 503)
    assert page.body == b"alice {}"


@pytest.mark.gen_test
async def test_new_cookie_goes_though_the_session_ended_again(lab, browser):
    """A sign-in whose later write finds the session gone is a 409 that carries the cookie all the same."""

    async def sign_in(self):
        await self.session.login("alice")
        await lab.end(self.session.handle)
        await _has_an_unsaved_change(self)

    lab.serve("/", post=sign_in)

    response = await post_json(browser, "/")

    assert response.code == 409
    assert set_names(response) == ["id"]


@pytest.mark.gen_test
async def test_finish_waits_for_a_verb_at_work(lab, browser):
    """A response finished while a sign-in is still at work waits for it, or its cookie would be lost."""

    async def sign_in(self):
        task = asyncio.ensure_future(self.session.login("alice"))
        await gate.reached()
        self.finish("welcome")
        asyncio.get_running_loop().call_soon(gate.open)
        await task

    gate = lab.store.gate("create")
    lab.serve("/", get=_who, post=sign_in)

    response = await post_json(browser, "/")
    page = await browser.get("/")

    assert (response.code, response.body) == (200, b"welcome")
    assert page.body == b"alice {}"


@pytest.mark.gen_test
async def test_failure_beside_a_verb_at_work(lab, browser):
    """An exception that overtakes a sign-in is answered after it, with the new cookie."""

    async def sign_in(self):
        tasks.append(asyncio.ensure_future(self.session.login("alice")))
        await gate.reached()
        asyncio.get_running_loop().call_soon(gate.open)
        raise ValueError("boom")

    tasks = []
    gate = lab.store.gate("create")
    lab.serve("/", get=_who, post=sign_in)

    response = await post_json(browser, "/")
    page = await browser.get("/")

    assert response.code == 500
    assert page.body == b"alice {}"
    await tasks[0]


@pytest.mark.gen_test
async def test_flush_while_a_verb_is_at_work(lab, browser, caplog):
    """The first flush is refused while a sign-in is at work, since its cookie could not follow."""

    async def sign_in(self):
        tasks.append(asyncio.ensure_future(self.session.login("alice")))
        await gate.reached()
        asyncio.get_running_loop().call_soon(gate.open)
        await self.flush()

    tasks = []
    gate = lab.store.gate("create")
    lab.serve("/", get=_who, post=sign_in)

    response = await post_json(browser, "/")
    page = await browser.get("/")

    assert response.code == 500
    assert "before flush()" in caplog.text
    assert page.body == b"alice {}"
    await tasks[0]


@pytest.mark.parametrize("verb", ["create", "rotate"])
@pytest.mark.gen_test
async def test_store_down_at_login(verb, lab, browser):
    """A sign-in without a store: 503 with Retry-After, and the cookie untouched."""
    if verb == "rotate":
        await lab.open_session(browser, cart=[1])
    before = dict(browser.cookies)
    lab.store.fail[verb] = StoreUnavailable("down")

    async def sign_in(self):
        await self.session.login("alice")

    lab.serve("/", get=_who, post=sign_in)

    response = await post_json(browser, "/")

    assert response.code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert browser.cookies == before


# --- logout and renew ---


@pytest.mark.parametrize("rest", [_plain, _redirects, _raises_404, _raises_500, _fails])
@pytest.mark.gen_test
async def test_deletion_goes_with_any_response(rest, lab, browser):
    """After a sign-out the cookie is deleted whatever the rest of the request comes to."""  # C5
    await lab.open_session(browser, user="alice")

    async def sign_out(self):
        await self.session.logout()
        await rest(self)

    lab.serve("/", post=sign_out)

    response = await post_json(browser, "/")

    assert set_names(response) == ["-id"]
    assert browser.cookies == {}
    assert await lab.records() == []


@pytest.mark.gen_test
async def test_logout_without_a_store(lab, browser):
    """A sign-out that the store did not confirm is a 503, and the cookie stays for another try."""
    await lab.open_session(browser, user="alice")
    lab.store.fail["destroy"] = StoreUnavailable("down")

    async def sign_out(self):
        await self.session.logout()

    lab.serve("/", post=sign_out)

    response = await post_json(browser, "/")

    assert response.code == 503
    assert cookie_lines(response) == []


@pytest.mark.gen_test
async def test_logout_of_a_visitor(lab, browser):
    """A sign-out where there is no session asks no store and sets no cookie."""  # C6

    async def sign_out(self):
        await self.session.logout()

    lab.serve("/", post=sign_out)

    response = await post_json(browser, "/")

    assert response.code == 200
    assert cookie_lines(response) == []
    assert dict(lab.store.calls) == {}


@pytest.mark.gen_test
async def test_slow_request_after_a_logout(lab, browser):
    """A request that was at work when the user signed out cannot bring the session back."""  # D1
    await lab.open_session(browser, user="alice")
    other = browser.copy()

    async def sign_out(self):
        await self.session.logout()

    lab.serve("/", get=_write, post=sign_out)
    gate = lab.store.gate("apply")
    slow = asyncio.create_task(other.get("/"))
    await gate.reached()

    await post_json(browser, "/")
    gate.open()
    late = await slow

    assert late.code == 409
    assert cookie_lines(late) == []
    assert await lab.records() == []


@pytest.mark.gen_test
async def test_renewal_carries_the_changes(lab, browser):
    """A renewal gives a new ID and saves what was pending; the old ID is dead."""
    await lab.open_session(browser, user="alice", a=1)
    old = browser.copy()

    async def renew(self):
        self.session["b"] = 2
        await self.session.renew()

    lab.serve("/", get=_who, post=renew)

    response = await post_json(browser, "/")
    pages = [await browser.get("/"), await old.get("/")]

    assert set_names(response) == ["id"]
    assert [page.body for page in pages] == [b"alice {'a': 1, 'b': 2}", b"None {}"]


# --- a cookie whose session is over ---


@pytest.mark.gen_test
async def test_superseded_reads_as_anonymous(lab, browser):
    """Under an older cookie a page is anonymous, and the cookie stays: a newer one may be on its way."""
    sid = await lab.open_session(browser, user="alice", a=1)
    await lab.supersede(sid)
    lab.serve("/", get=_who)

    response = await browser.get("/")

    assert response.body == b"None {}"
    assert cookie_lines(response) == []


@pytest.mark.gen_test
async def test_ended_reads_as_anonymous_and_is_cleared(lab, browser):
    """Under the cookie of an ended session a page is anonymous, and the cookie is deleted."""  # A6 B1
    await lab.open_session(browser, user="alice", a=1)
    lab.clock.advance(1801)
    lab.serve("/", get=_who)

    response = await browser.get("/")

    assert response.body == b"None {}"
    assert cookie_lines(response) == [
        "id=; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Path=/; SameSite=Lax"
    ]


@pytest.mark.parametrize("how", ["superseded", "ended"])
@pytest.mark.gen_test
async def test_late_unsafe_write(how, lab, browser):
    """An unsafe request that writes right after its session's end is 409, and makes no session."""  # A2 D1
    sid = await lab.open_session(browser, user="alice")
    await (lab.supersede(sid) if how == "superseded" else lab.end(sid.handle))
    seen = []

    def write_error(self, status_code, *, exc_info):
        seen.append(exc_info[1].code)
        self.finish()

    lab.serve("/", post=_write, write_error=write_error)

    response = await post_json(browser, "/")

    assert response.code == 409
    assert seen == ["session_ended"]
    assert set_names(response) == []
    assert lab.store.calls["create"] + lab.store.calls["apply"] == 0


@pytest.mark.parametrize("how", ["superseded", "ended"])
@pytest.mark.gen_test
async def test_late_safe_write(how, lab, browser):
    """A safe request that writes right after its session's end is answered; the write is dropped."""
    sid = await lab.open_session(browser, user="alice")
    await (lab.supersede(sid) if how == "superseded" else lab.end(sid.handle))
    lab.serve("/", get=_write)

    response = await browser.get("/")

    assert (response.code, response.body) == (200, b"written")
    assert set_names(response) == []
    assert lab.store.calls["create"] + lab.store.calls["apply"] == 0


@pytest.mark.parametrize("how", ["superseded", "ended"])
@pytest.mark.gen_test
async def test_login_after_the_end(how, lab, browser):
    """Signing in is the one thing that sets a cookie over one whose session is over."""
    sid = await lab.open_session(browser, user="alice", old=1)
    await (lab.supersede(sid) if how == "superseded" else lab.end(sid.handle))

    async def sign_in(self):
        await self.session.login("alice")

    lab.serve("/", get=_who, post=sign_in)

    response = await post_json(browser, "/")
    page = await browser.get("/")

    assert (response.code, set_names(response)) == (200, ["id"])
    assert page.body == b"alice {}"


@pytest.mark.gen_test
async def test_logout_under_a_superseded_cookie(lab, browser):
    """Signing out under an older cookie ends nothing and leaves the cookie: the newer session goes on."""
    sid = await lab.open_session(browser, user="alice")
    await lab.supersede(sid)

    async def sign_out(self):
        await self.session.logout()

    lab.serve("/", post=sign_out)

    response = await post_json(browser, "/")

    assert (response.code, cookie_lines(response)) == (200, [])
    assert len(await lab.records()) == 1


# --- plain HTTP ---


@pytest.mark.parametrize(
    "host", ["example.com", "192.0.2.1:8888", "localhost.example.com", "127.0.0.1.nip.io"]
)
@pytest.mark.parametrize("verb", ["write", "login"])
@pytest.mark.gen_test
async def test_no_cookie_over_plain_http(verb, host, lab, browser, caplog):
    """Beyond loopback, a session cookie over plain HTTP is a 500 and one line that says what to set."""  # A5

    async def change(self):
        if verb == "login":
            await self.session.login("alice")
        self.session["a"] = 1

    lab.serve("/", post=change)

    response = await post_json(browser, "/", Host=host)

    assert response.code == 500
    assert cookie_lines(response) == []
    assert await lab.records() == []
    assert [(r.levelname, r.name) for r in caplog.records] == [("ERROR", "stormcellar.sessions")]
    assert "secure=True" in caplog.records[0].getMessage()


@pytest.mark.gen_test
async def test_no_cookie_for_a_peer_beyond_loopback(lab, browser, caplog):
    """The peer counts, not only the Host it claims."""  # A5

    async def prepare(self):
        self.request.remote_ip = "192.0.2.7"
        await super(type(self), self).prepare()

    lab.serve("/", prepare=prepare, post=_write)

    response = await post_json(browser, "/", Host="localhost")

    assert response.code == 500
    assert cookie_lines(response) == []
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("host", ["localhost:99", "app.localhost", "127.0.0.2", "[::1]:80", "LOCALHOST"])
@pytest.mark.gen_test
async def test_loopback_over_plain_http(host, lab, browser):
    """On this machine itself a session works without TLS, under every name it has."""
    lab.serve("/", post=_write)

    response = await post_json(browser, "/", Host=host)

    assert (response.code, set_names(response)) == (200, ["id"])


@pytest.mark.gen_test
async def test_reading_over_plain_http(lab, browser):
    """Without anything to keep, plain HTTP beyond loopback is served: no cookie is wanted."""
    lab.serve("/", get=_who)

    response = await browser.get("/", Host="example.com")

    assert (response.code, response.body) == (200, b"None {}")


# --- served over TLS ---


class TestSecure:
    """An application told `secure=True`."""

    @pytest.fixture
    def lab(self, io_loop: IOLoop) -> Iterator[Lab]:
        """An application behind a proxy that speaks TLS."""
        lab = Lab(secure=True)
        yield lab
        io_loop.run_sync(lab.sessions.aclose, timeout=10)

    @pytest.mark.gen_test
    async def test_cookie(self, lab, browser):
        """The cookie is `__Host-id`, Secure, HttpOnly and Lax, without Domain or expiry."""  # A4
        lab.serve("/", post=_write)

        response = await post_json(browser, "/", Host="example.com")

        (line,) = cookie_lines(response)
        pair, _, attributes = line.partition("; ")
        assert pair.startswith("__Host-id=2|")
        assert attributes == "HttpOnly; Path=/; SameSite=Lax; Secure"

    @pytest.mark.gen_test
    async def test_deletion(self, lab, browser):
        """A deletion repeats what browsers demand under `__Host-`."""  # A6
        await lab.open_session(browser, user="alice")

        async def sign_out(self):
            await self.session.logout()

        lab.serve("/", post=sign_out)

        response = await post_json(browser, "/")

        assert cookie_lines(response) == [
            "__Host-id=; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"
            "; HttpOnly; Path=/; SameSite=Lax; Secure"
        ]

    @pytest.mark.gen_test
    async def test_plain_name_is_not_read(self, lab, browser):
        """The name without the prefix, which a neighbour could plant, is never read."""  # A4 A7
        sid = await lab.open_session(browser, user="alice")
        lab.serve("/", get=_who)

        response = await browser.get("/", Cookie=f"id={lab.signed(sid)}")

        assert response.body == b"None {}"
        assert dict(lab.store.calls) == {}


class Accounts:
    """Says that every account was disabled while it signed in, once told to."""

    disabled = False

    def valid_after(self, user: str) -> int | None:
        """Return None for a disabled account."""
        return None if self.disabled else 0


class TestAccounts:
    """An application that asks an account directory."""

    @pytest.fixture
    def lab(self, io_loop: IOLoop) -> Iterator[Lab]:
        """An application with accounts."""
        lab = Lab(accounts=Accounts())
        yield lab
        io_loop.run_sync(lab.sessions.aclose, timeout=10)

    @pytest.mark.gen_test
    async def test_disabled_during_login(self, lab, browser):
        """An account disabled while it signs in is answered 401, and nobody is signed in."""  # C11
        gate = lab.store.gate("create")

        async def sign_in(self):
            await self.session.login("alice")

        lab.serve("/", get=_who, post=sign_in)
        signing_in = asyncio.create_task(post_json(browser, "/"))
        await gate.reached()
        lab.sessions._accounts._accounts.disabled = True
        gate.open()

        response = await signing_in

        assert response.code == 401
        assert (await browser.get("/")).body == b"None {}"
        assert await lab.records() == []

    @pytest.mark.gen_test
    async def test_disabled_later(self, lab, browser):
        """A disabled account's session is over with the next request, and its cookie cleared."""  # C11
        await lab.open_session(browser, user="alice")
        lab.serve("/", get=_who)
        lab.sessions._accounts._accounts.disabled = True

        response = await browser.get("/")

        assert (response.body, set_names(response)) == (b"None {}", ["-id"])


# --- without await ---


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("login", ("eve",)),
        ("logout", ()),
        ("renew", ()),
        ("expire_in", (60,)),
        ("modify", ("n", lambda n: 2)),
        ("commit", ()),
    ],
)
@pytest.mark.parametrize("answer", [_plain, _redirects])
@pytest.mark.filterwarnings("ignore:coroutine.*never awaited")
@pytest.mark.gen_test
async def test_a_verb_without_await_is_an_error(verb, arguments, answer, lab, browser, caplog):
    """It would do nothing; the response is 500, the log says why, and nothing has changed."""

    async def forgets(self):
        getattr(self.session, verb)(*arguments)
        await answer(self)

    lab.serve("/", get=_who, post=forgets)
    await lab.open_session(browser, user="ada", n=1)

    response = await post_json(browser)

    assert response.code == 500
    assert f"session.{verb}() did nothing, since it was called without await" in caplog.text
    assert (await browser.get("/")).body == b"ada {'n': 1}"


@pytest.mark.gen_test
async def test_a_verb_in_a_task_is_awaited(lab, browser):
    """It may run beside other work of the handler."""

    async def at_once(self):
        await asyncio.gather(self.session.login("ada"), asyncio.sleep(0))

    lab.serve("/", get=_who, post=at_once)

    assert (await post_json(browser)).code == 200
    assert (await browser.get("/")).body == b"ada {}"

"""What `SessionMixin` loads and saves, and when."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, RequestHandler

from stormcellar import Lifetime, SessionManager, SessionMixin, session_settings
from stormcellar.stores import Delta, StoreUnavailable
from stormcellar.stores.memory import MemoryStore
from stormcellar.web.session_handler import HandlerState
from tests.support.embedding import Lab, Ping, Wire, count, errors, look, post_json, set_names


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application whose sessions are on a steered store."""
    lab = Lab(lifetime=Lifetime(touch_after_s=60))
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


# --- visitors ---


@pytest.mark.gen_test
async def test_visitor_costs_nothing(lab, browser):
    """A visitor without a cookie costs no store call, gets no cookie and leaves no record."""  # A15
    lab.serve("/", get=look)

    response = await browser.get("/")

    assert response.body == b'{"user": null, "data": {}}'
    assert response.headers.get_list("Set-Cookie") == []
    assert dict(lab.store.calls) == {}
    assert await lab.records() == []


@pytest.mark.parametrize("cookie", ["", "x", "2|1:0|junk", " ", '""', "a" * 5000, "0" * 190])
@pytest.mark.gen_test
async def test_junk_cookie_is_a_visitor(cookie, lab, browser):
    """A malformed or badly signed cookie is none: no store call, no error, no cookie."""  # A3 A11 G2 H9
    lab.serve("/", get=look)

    response = await browser.get("/", Cookie=f"id={cookie}")

    assert (response.code, response.body) == (200, b'{"user": null, "data": {}}')
    assert response.headers.get_list("Set-Cookie") == []
    assert dict(lab.store.calls) == {}


@pytest.mark.gen_test
async def test_first_write_makes_a_session(lab, browser):
    """The first thing to keep makes a record and gives the cookie; the next request finds it."""
    lab.serve("/", get=count)

    first = await browser.get("/")
    second = await browser.get("/")

    assert [first.body, second.body] == [b"visit 1", b"visit 2"]
    assert [set_names(first), set_names(second)] == [["id"], []]
    assert await lab.data() == {"visits": 2}
    assert dict(lab.store.calls) == {"create": 1, "load": 1, "apply": 1}


@pytest.mark.gen_test
async def test_taking_back_a_first_write(lab, browser):
    """A value that is set and deleted again in one request makes no session."""  # A15

    def get(self):
        self.session["a"] = 1
        del self.session["a"]

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert response.headers.get_list("Set-Cookie") == []
    assert dict(lab.store.calls) == {}


@pytest.mark.gen_test
async def test_id_from_the_cookie_only(lab, browser):
    """A session ID in the URL, the body or another header is not looked at."""  # A8
    sid = await lab.open_session(browser, user="alice")
    value, browser.cookies = browser.cookies["id"], {}
    lab.serve("/", get=look, post=look)

    in_url = await browser.get(f"/?id={value}&session={sid.handle}.{sid.secret}")
    in_header = await browser.get("/", Authorization=f"Bearer {value}", X_Session=value, id=value)
    in_body = await browser.fetch(
        "POST", "/", body=f'{{"id": "{value}"}}', headers={"Content-Type": "application/json"}
    )

    assert {r.body for r in (in_url, in_header, in_body)} == {b'{"user": null, "data": {}}'}
    assert dict(lab.store.calls) == {}


@pytest.mark.gen_test
async def test_id_appears_nowhere_else(lab, browser, caplog):
    """Neither the ID nor its secret shows in a body, a header other than Set-Cookie, or a log."""  # A9 I2
    caplog.set_level(logging.DEBUG)

    async def post(self):
        await self.session.login("alice")
        self.write(self.xsrf_form_html())

    def get(self):
        self.session["n"] = self.session.get("n", 0) + 1
        self.write(repr(self.session) + self.xsrf_form_html())
        if self.get_query_argument("fail", None):
            raise ValueError("boom")

    lab.serve("/", get=get, post=post)
    answers = [
        await browser.fetch("POST", "/", body=b"{}", headers={"Content-Type": "application/json"}),
        await browser.get("/"),
        await browser.get("/?fail=1"),
    ]
    value = browser.cookies["id"]
    secret = lab.sessions.cookies.read([f"id={value}"]).secret
    lab.store.fail["load"] = StoreUnavailable("down")
    answers.append(await browser.get("/"))

    shown = [caplog.text]
    for answer in answers:
        others = [pair for pair in answer.headers.get_all() if pair[0] != "Set-Cookie"]
        shown.append(f"{answer.body!r} {others}")

    assert [code.code for code in answers] == [200, 200, 500, 503]
    assert not any(secret in text or value in text for text in shown)


# --- saved before the first byte ---


@pytest.mark.gen_test
async def test_nothing_is_sent_before_the_store_has_it(lab, http_server, http_port):
    """Not one byte reaches the client before the store has answered."""  # D12
    lab.serve("/", get=count)
    gate = lab.store.gate("create")
    wire, other = await Wire.connect(http_port), await Wire.connect(http_port)
    wire.ask("GET / HTTP/1.1")
    first = asyncio.create_task(wire.first_byte())
    await gate.reached()

    await other.is_open()

    assert not first.done()
    assert await lab.records() == []
    gate.open()
    assert await first == b"H"
    assert await lab.data() == {"visits": 1}
    await wire.close()
    await other.close()


@pytest.mark.gen_test
async def test_what_counts_as_a_change(lab, browser):
    """Put, delete and a change inside a list are one delta; what was only read is not written."""  # D4
    await lab.open_session(browser, a=1, b=2, cart=[1], same=[3], read={"x": 1})

    def get(self):
        self.session["a"] = 10
        del self.session["b"]
        self.session["cart"].append(2)
        self.session["same"] = [3]
        self.write(self.session["read"])

    lab.serve("/", get=get)
    seen = []
    apply = lab.inner.apply

    async def watch(credential, delta, **kwargs):
        seen.append(delta)
        return await apply(credential, delta, **kwargs)

    lab.inner.apply = watch
    response = await browser.get("/")

    assert response.code == 200
    assert seen == [Delta({"a": b"10", "cart": b"[1,2]"}, frozenset({"b"}))]


@pytest.mark.gen_test
async def test_parallel_requests_lose_nothing(lab, browser):
    """Requests that loaded the same session and write different keys all keep what they wrote."""  # D3
    await lab.open_session(browser, start=1)

    def get(self, key):
        self.session[key] = 1

    lab.serve("/(k[0-9])", get=get)
    gates = [lab.store.gate("apply") for _ in range(8)]
    pages = [asyncio.create_task(browser.get(f"/k{n}")) for n in range(8)]
    for gate in gates:
        await gate.reached()
    for gate in reversed(gates):
        gate.open()

    codes = [page.code for page in await asyncio.gather(*pages)]

    assert codes == [200] * 8
    assert await lab.data() == {"start": 1} | {f"k{n}": 1 for n in range(8)}


@pytest.mark.parametrize("status", [200, 302, 400, 404, 499])
@pytest.mark.gen_test
async def test_up_to_499_saves(status, lab, browser):
    """A response below 500 saves, whether the status was set or raised."""
    await lab.open_session(browser, a=0)

    def get(self):
        self.session["a"] = 1
        self.set_status(status)

    def post(self):
        self.session["b"] = 1
        raise HTTPError(status, reason="so")

    lab.serve("/", get=get, post=post)

    codes = [(await browser.get("/")).code, (await post_json(browser)).code]

    assert codes == [status, status]
    assert await lab.data() == {"a": 1, "b": 1}


@pytest.mark.parametrize("status", [500, 502, 503, 599])
@pytest.mark.gen_test
async def test_from_500_drops(status, lab, browser):
    """A response of 500 or above drops what was changed."""
    await lab.open_session(browser, a=0)

    def get(self):
        self.session["a"] = 1
        self.set_status(status)

    def post(self):
        self.session["a"] = 1
        raise HTTPError(status, reason="so")

    lab.serve("/", get=get, post=post)

    codes = [(await browser.get("/")).code, (await post_json(browser)).code]

    assert codes == [status, status]
    assert await lab.data() == {"a": 0}
    assert lab.store.calls["apply"] == 0


@pytest.mark.gen_test
async def test_commit_outlives_a_500(lab, browser):
    """What was committed on purpose stays, whatever becomes of the response."""

    async def get(self):
        self.session["a"] = 1
        await self.session.commit()
        self.session["b"] = 2
        raise ValueError("boom")

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert response.code == 500
    assert set_names(response) == ["id"]
    assert await lab.data() == {"a": 1}


@pytest.mark.gen_test
async def test_body_of_a_204_is_refused_before_saving(lab, browser):
    """The 500 for a body where none may be comes before anything is saved, and so drops it."""
    await lab.open_session(browser, a=0)

    def get(self):
        self.session["a"] = 1
        self.set_status(204)
        self.write("oops")

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert response.code == 500
    assert await lab.data() == {"a": 0}


@pytest.mark.gen_test
async def test_prepare_may_write(lab, browser):
    """A handler that overrides `prepare` may use the session once it has awaited the mixin's."""

    async def prepare(self):
        await SessionMixin.prepare(self)
        self.session["prepared"] = True

    lab.serve("/", prepare=prepare, get=look)

    response = await browser.get("/")

    assert response.body == b'{"user": null, "data": {"prepared": true}}'
    assert await lab.data() == {"prepared": True}


# --- streams ---


@pytest.mark.gen_test
async def test_flush_with_changes_pending(lab, browser, caplog):
    """Streaming before saving is refused, with what to do about it, and nothing is sent or saved."""

    async def get(self):
        self.session["a"] = 1
        self.write("begin")
        await self.flush()

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert response.code == 500
    assert b"begin" not in response.body
    assert "await self.session.commit() before flush()" in caplog.text
    assert await lab.records() == []


@pytest.mark.gen_test
async def test_flush_after_commit(lab, browser):
    """A committed session streams; its cookie goes with the first part."""

    async def get(self):
        self.session["a"] = 1
        await self.session.commit()
        self.write("begin")
        await self.flush()
        self.write("end")

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert (response.code, response.body) == (200, b"beginend")
    assert set_names(response) == ["id"]
    assert await lab.data() == {"a": 1}


@pytest.mark.parametrize(
    "late",
    [
        lambda session: session.__setitem__("a", 2),
        lambda session: session.pop("a"),
        lambda session: session.clear(),
        lambda session: session.commit(),
        lambda session: session.login("alice"),
        lambda session: session.logout(),
        lambda session: session.renew(),
        lambda session: session.modify("a", lambda n: n),
    ],
)
@pytest.mark.parametrize("begin", ["flush", "finish"])
@pytest.mark.gen_test
async def test_too_late_to_change(begin, late, lab, browser):
    """Once the response has begun or is finished, assignment and verbs raise instead of being lost."""
    await lab.open_session(browser, a=1)
    raised = []

    async def get(self):
        self.write("begin")
        await getattr(self, begin)()
        try:
            done = late(self.session)
            if asyncio.iscoroutine(done):
                await done
        except RuntimeError as exc:
            raised.append(str(exc))

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert (response.code, response.body) == (200, b"begin")
    assert raised == ["the session can no longer change: the response has begun"]
    assert await lab.data() == {"a": 1}


@pytest.mark.gen_test
async def test_flush_before_prepare(lab, browser):
    """A session loaded after the first flush can be read, but not changed."""
    await lab.open_session(browser, a=1)
    raised = []

    async def prepare(self):
        self.write("begin ")
        await self.flush()
        await SessionMixin.prepare(self)

    def get(self):
        try:
            self.session["a"] = 2
        except RuntimeError as exc:
            raised.append(str(exc))
        self.write(f"{self.session['a']}")

    lab.serve("/", prepare=prepare, get=get)

    response = await browser.get("/")

    assert response.body == b"begin 1"
    assert raised == ["the session can no longer change: the response has begun"]


@pytest.mark.parametrize("item", [2, {3}])
@pytest.mark.gen_test
async def test_nested_change_after_the_first_flush(item, lab, browser, caplog):
    """A nested change after the first flush, JSON or not, is logged as an error and not written."""
    sid = await lab.open_session(browser, cart=[1])

    async def get(self):
        cart = self.session["cart"]
        await self.flush()
        cart.append(item)
        self.write("end")

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert (response.code, response.body) == (200, b"end")
    assert errors(caplog) == [f"session {sid.handle} changed too late to be saved: the response has begun"]
    assert await lab.data() == {"cart": [1]}


@pytest.mark.gen_test
async def test_taking_back_after_finish_sends_nothing_early(lab, http_server, http_port):
    """What the handler does after finish() cannot make the response leave before the save."""  # D12

    def get(self):
        cart = self.session.setdefault("cart", [])
        cart.append(1)
        self.finish("done")
        cart.clear()
        self.flush()

    lab.serve("/", get=get)
    gate = lab.store.gate("create")
    wire, other = await Wire.connect(http_port), await Wire.connect(http_port)
    wire.ask("GET / HTTP/1.1")
    reading = asyncio.create_task(wire.reply())
    await gate.reached()
    await other.is_open()

    assert not reading.done()
    gate.open()
    assert (await reading).body == b"done"
    assert await lab.data() == {"cart": [1]}
    await wire.close()
    await other.close()


# --- activity ---


@pytest.mark.gen_test
async def test_read_slides_the_expiry(lab, browser):
    """A read extends the session in the background, at most once in `touch_after_s`."""  # B7
    await lab.open_session(browser, a=0)
    lab.serve("/", get=look)

    lab.clock.advance(59)
    await browser.get("/")
    await lab.sessions.drain()
    early = lab.store.calls["apply"]
    lab.clock.advance(1)
    await browser.get("/")
    await lab.sessions.drain()

    (record,) = await lab.records()
    assert (early, lab.store.calls["apply"]) == (0, 1)
    assert record.seen_ms == lab.sessions.now_ms()
    assert record.expires_ms == lab.sessions.now_ms() + 1_800_000


@pytest.mark.parametrize("fault", [StoreUnavailable("down"), RuntimeError("bug")])
@pytest.mark.gen_test
async def test_touch_never_changes_the_response(fault, lab, browser):
    """A touch that fails, or waits, leaves the response as it is."""
    await lab.open_session(browser, a=0)
    lab.serve("/", get=look)
    lab.store.fail["apply"] = fault
    gate = lab.store.gate("apply")
    lab.clock.advance(61)

    response = await browser.get("/")

    assert (response.code, response.body) == (200, b'{"user": null, "data": {"a": 0}}')
    await gate.reached()
    gate.open()
    await lab.sessions.drain()


@pytest.mark.gen_test
async def test_request_that_is_no_activity(lab, browser):
    """A handler with `session_activity = False` reads without extending anything."""  # B8 B9
    await lab.open_session(browser, a=0)
    lab.serve("/", get=look, session_activity=False)
    lab.clock.advance(61)

    await browser.get("/")
    await lab.sessions.drain()

    assert dict(lab.store.calls) == {"load": 1}


@pytest.mark.gen_test
async def test_update_in_place(lab, browser):
    """`self.session |= ...` changes the session; another session in its place is refused."""

    def change(handler):
        handler.session |= {"a": 1}
        with pytest.raises(AttributeError, match="cannot be replaced"):
            handler.session = {"a": 2}

    lab.serve("/", get=look, post=change)
    await browser.get("/")

    assert (await post_json(browser)).code == 200
    assert (await browser.get("/")).body == b'{"user": null, "data": {"a": 1}}'


@pytest.mark.gen_test
async def test_ping_without_the_mixin(lab, browser):
    """A handler without the mixin neither loads a session nor touches its cookie."""
    await lab.open_session(browser, a=0)

    response = await browser.get("/ping")

    assert response.body == b"pong"
    assert response.headers.get_list("Set-Cookie") == []
    assert dict(lab.store.calls) == {}
    assert not issubclass(Ping, SessionMixin)


@pytest.mark.gen_test
async def test_handler_may_set_common_private_names(lab, browser):
    """An attribute such as `_session`, which SQLAlchemy's users set, is the application's own."""

    def get(self):
        self._session = self._sid = self._answered = self._accessed = "the application's own"
        self.session["seen"] = True
        self.write("answered")

    lab.serve("/", get=get)

    response = await browser.get("/")

    assert (response.code, response.body) == (200, b"answered")
    assert await lab.data() == {"seen": True}


def test_setting_of_the_same_name_is_refused(lab):
    """A setting of the application is not replaced silently."""
    with pytest.raises(ValueError, match="'stormcellar' is reserved"):
        session_settings(lab.sessions, stormcellar="mine")


@pytest.mark.gen_test
async def test_handler_may_choose_its_manager(lab, browser):
    """An overridden `sessions`, such as one per tenant, is used for the load, the save and the cookie."""
    other = SessionManager(MemoryStore(), secrets=["k" * 32], cookie_name="tenant")

    def get(self):
        self.session["seen"] = True
        self.write("hello")

    lab.serve("/", bases=(SessionMixin, RequestHandler), get=get, sessions=property(lambda self: other))

    response = await browser.get("/")

    assert response.headers["Set-Cookie"].startswith("tenant=")
    assert lab.store.calls == {}
    assert [record.data async for record in other.store.scan(now_ms=other.now_ms())] == [{"seen": b"true"}]


@pytest.mark.gen_test
async def test_cookie_that_cannot_be_sent_leaves_no_save_behind(lab, browser, recwarn):
    """If the response cannot be held, nothing is saved and no coroutine is left that was never awaited."""

    def get(self):
        self.session["seen"] = True
        self.set_cookie("other", "value")
        self._new_cookie["other"]["path"] = "/\r\nX: y"
        self.write("hello")

    lab.serve("/", get=get)

    response = await browser.get("/")
    gc.collect()

    assert response.code == 500
    assert lab.store.calls == {}
    assert [str(warning.message) for warning in recwarn] == []


def test_setting_of_another_type_is_named(lab):
    """A setting that is no manager is told as what it is."""
    held = HandlerState(object(), [])

    with pytest.raises(RuntimeError, match="must be a SessionManager, not object"):
        _ = held.sessions

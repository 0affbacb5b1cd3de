"""`Client`: the session of a test's browser, and who is signed in."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from tornado.web import Application

from stormcellar import Kind, Lifetime, SessionManager, SignInRevoked, session_settings
from stormcellar.stores import StoreFull, StoreUnavailable, open_store
from stormcellar.testing import Client, Clock, CookieRefused, make_manager
from tests.testing.shop import make_app

DAY_S = 86_400


class Accounts:
    """An account directory of a test: the time of the last change of each account."""

    def __init__(self, **changed_ms: int | None) -> None:
        self.changed_ms = changed_ms

    async def valid_after(self, user: str) -> int | None:
        """Return that time."""
        return self.changed_ms.get(user)


@pytest.mark.gen_test
async def test_forced_login(client: Client) -> None:
    """The user is signed in with the given data, for the client and for the application."""
    await client.force_login("alice", {"cart": ["tea"]})

    response = await client.get("/")
    assert response.json() == {"user": "alice", "data": {"cart": ["tea"]}}
    assert (await client.user(), await client.data()) == ("alice", {"cart": ["tea"]})
    assert [(event.kind, event.user) for event in client.events] == [
        (Kind.CREATED, "alice"),
        (Kind.AUTHENTICATED, "alice"),
    ]


@pytest.mark.gen_test
async def test_forced_login_is_a_sign_in(client: Client) -> None:
    """The session ID of the visitor is rotated, and the visitor's data does not survive."""
    await client.post("/cart", {"item": "tea"})
    visitor = dict(client.cookies)

    await client.force_login("alice")

    assert client.cookies["id"] != visitor["id"]
    assert await client.data() == {}


@pytest.mark.gen_test
async def test_logout(client: Client, sessions: SessionManager) -> None:
    """The session ends in the store, and its cookie is gone."""
    await client.force_login("alice")
    handle = client.handle

    await client.logout()

    assert (await client.user(), client.handle, dict(client.cookies)) == (None, None, {})
    assert await sessions.of_user("alice") == []
    assert (client.events[-1].kind, client.events[-1].handle) == (Kind.DESTROYED, handle)


@pytest.mark.gen_test
async def test_session_transaction(client: Client) -> None:
    """The block changes the session of the browser: that of a visitor, too, which begins with it."""
    async with client.session_transaction() as session:
        session["cart"] = ["tea"]
    await client.post("/cart", {"item": "milk"})
    async with client.session_transaction() as session:
        cart = session["cart"]
        session["cart"].append("sugar")
        session.flash("Saved.")

    assert list(cart) == ["tea", "milk", "sugar"]
    assert (await client.get("/")).json() == {"user": None, "data": {"cart": ["tea", "milk", "sugar"]}}


@pytest.mark.gen_test
async def test_failed_transaction_saves_nothing(client: Client) -> None:
    """After an exception in the block the data is as before."""
    await client.force_login("alice", {"n": 1})

    with suppress(LookupError):
        async with client.session_transaction() as session:
            session["n"] = 2
            raise LookupError

    assert await client.data() == {"n": 1}


@pytest.mark.gen_test
async def test_failed_transaction_keeps_the_new_id(client: Client) -> None:
    """A verb has acted at once, so the client takes the new cookie although the block failed."""
    await client.force_login("alice")

    with suppress(LookupError):
        async with client.session_transaction() as session:
            await session.renew()
            raise LookupError

    assert await client.user() == "alice"


@pytest.mark.gen_test
async def test_verb_without_await_is_an_error(client: Client) -> None:
    """A verb that was not awaited in the block did nothing, and is named."""
    with pytest.raises(RuntimeError, match=r"session.login\(\) did nothing"):
        async with client.session_transaction() as session:
            called = session.login("alice")
    called.close()


@pytest.mark.gen_test
async def test_reading_begins_no_session(client: Client) -> None:
    """To look at a visitor's session creates no record and sets no cookie."""
    async with client.session_transaction() as session:
        assert dict(session) == {}

    assert (await client.user(), await client.data(), client.handle) == (None, {}, None)
    assert (client.events, dict(client.cookies)) == ([], {})


@pytest.mark.gen_test
async def test_sessions_of_a_user(client: Client) -> None:
    """A second browser is another session; both end when the user is signed out everywhere."""
    async with client.another() as telephone:
        await client.force_login("alice")
        await telephone.force_login("alice")
        handles = {record.handle for record in await client.sessions_of("alice")}

        ended = await client.logout_everywhere("alice")

        assert handles == {client.handle, telephone.handle}
        assert ended == 2
        assert [(await each.get("/account")).code for each in (client, telephone)] == [303, 303]


@pytest.mark.gen_test
async def test_moved_clock(client: Client) -> None:
    """A session expires, and a proof of identity grows old, when the test says so."""
    await client.force_login("alice")
    fresh = (await client.post("/account")).code
    client.clock.advance(600)
    stale = (await client.post("/account")).code
    client.clock.advance(1799)
    before = await client.user()
    client.clock.advance(1)

    assert (fresh, stale) == (200, 403)
    assert (before, await client.user()) == ("alice", None)


@pytest.mark.gen_test
async def test_user_who_is_kept_signed_in(client: Client) -> None:
    """The cookie outlives the browser if it was asked for, and no longer than that."""
    async with client.another() as other:
        await client.force_login("alice", remember=True)
        await other.force_login("bob")
        for each in (client, other):
            each.cookies.close_browser()
        client.clock.advance(7 * DAY_S - 60)

        assert (await client.user(), await other.user()) == ("alice", None)
        client.clock.advance(60)
        assert "id" not in client.cookies


@pytest.mark.gen_test
async def test_store_that_fails(client: Client) -> None:
    """The application answers 503 while the store is down, and the session is as before after that."""
    await client.force_login("alice")

    with client.store.failing():
        down = await client.get("/")
        with pytest.raises(StoreUnavailable):
            await client.user()

    assert (down.code, down.headers["Retry-After"]) == (503, "2")
    assert await client.user() == "alice"


@pytest.mark.gen_test
async def test_one_operation_fails_with_an_error_of_choice(client: Client) -> None:
    """Reads go on while writes find the store full."""
    with client.store.failing("create", "apply", error=StoreFull("no room")):
        read, written = await client.get("/"), await client.post("/cart", {"item": "tea"})

    assert (read.code, written.code) == (200, 503)
    assert (await client.post("/cart", {"item": "tea"})).code == 303


@pytest.mark.gen_test
async def test_reply_that_is_lost(client: Client) -> None:
    """The write is done, and the application does not know."""
    await client.force_login("alice")

    with client.store.failing("apply", is_done=True):
        response = await client.post("/cart", {"item": "tea"})

    assert response.code == 503
    assert await client.data() == {"cart": ["tea"]}


@pytest.mark.gen_test
async def test_manager_of_the_applications_own() -> None:
    """Any manager will do: for another store, key, cookie and clock."""
    sessions = SessionManager(open_store("memory"), secrets=["k" * 32], secure=True, cookie_name="shop")

    async with Client(make_app(sessions)) as client:
        await client.force_login("alice")

        assert list(client.cookies) == ["__Host-shop"]
        assert (await client.get("/account")).text == "Hello, alice"
        assert (await client.post("/cart", {"item": "tea"})).code == 303
        with pytest.raises(TypeError, match="make_manager"):
            client.clock.advance(1)
        with pytest.raises(TypeError, match="a MemoryStore does not fail at will"):
            client.store.failing()


@pytest.mark.gen_test
async def test_cookie_domain() -> None:
    """With a cookie domain the browser shows a host of that domain, or the cookie is refused."""
    sessions = make_manager(secure=True, cookie_domain="example.org")

    async with Client(make_app(sessions), host="shop.example.org") as client:
        await client.force_login("alice")
        response = await client.post("/", form_token=True)
        elsewhere = Client(make_app(sessions), "http://127.0.0.1:1")
        with pytest.raises(CookieRefused, match=r"Domain is example\.org, and the client's host is 127"):
            await elsewhere.force_login("alice")

        assert await client.user() == "alice"
        assert response.json()["host"] == "shop.example.org"
        assert response.json()["origin"] == "https://shop.example.org"


@pytest.mark.gen_test
async def test_accounts_that_refuse_the_user() -> None:
    """The error says what `valid_after` must return; nobody is signed in."""
    now_ms = int(time.time() * 1000)
    accounts = Accounts(alice=now_ms - 1000, eve=None, early=now_ms + 60_000)

    async with Client(make_app(make_manager(accounts=accounts))) as client:
        for user in ("eve", "early", "nobody"):
            with pytest.raises(SignInRevoked, match=f"refuse '{user}'.*valid_after"):
                await client.force_login(user)
            assert await client.user() is None
        await client.force_login("alice")

        assert await client.user() == "alice"


@pytest.mark.gen_test
async def test_wrong_logins() -> None:
    """What cannot be signed in is an error that says what to write."""
    async with Client(make_app(make_manager())) as client:
        with pytest.raises(TypeError, match=r"write str\(user\)"):
            await client.force_login(42)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="remember_s"):
            await client.force_login("alice", remember=True)
        with pytest.raises(ValueError, match="session key 'cart'"):
            await client.force_login("alice", {"cart": {1, 2}})

        assert (await client.user(), client.events) == (None, [])


def test_wrong_applications() -> None:
    """Neither a function, nor an application without a manager, is one to test."""
    sessions = make_manager()
    with pytest.raises(TypeError, match="not function: call it"):
        Client(make_app)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not SessionManager$"):
        Client(sessions)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"session_settings\(manager\)"):
        Client(Application())
    with pytest.raises(ValueError, match=r"'shop\.example' without TLS.*secure=True"):
        Client(make_app(sessions), host="shop.example")
    with pytest.raises(ValueError, match="without a path"):
        Client(make_app(sessions), "127.0.0.1:8888/x")


def test_manager_of_an_earlier_test() -> None:
    """A manager that was closed serves no second test, and belongs to no second event loop."""
    app = make_app(make_manager())

    async def test() -> Client:
        async with Client(app) as client:
            await client.force_login("alice")
        return client

    client = asyncio.run(test())

    with pytest.raises(RuntimeError, match="anew for each test"):
        asyncio.run(test())
    with pytest.raises(RuntimeError, match="this client is closed"):
        asyncio.run(client.get("/"))


def test_client_in_another_event_loop() -> None:
    """A client that was used in one event loop says so in another one, instead of waiting for ever."""
    client = Client(make_app(make_manager()), "http://127.0.0.1:1")

    async def ask() -> None:
        with pytest.raises(ConnectionRefusedError):
            await client.get("/")

    asyncio.run(ask())

    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(client.get("/"))
    asyncio.run(client.aclose())


@pytest.mark.gen_test
async def test_client_without_a_server() -> None:
    """A client that serves nothing yet says how to begin."""
    client = Client(make_app(make_manager()))

    with pytest.raises(RuntimeError, match=r"async with Client\(app\) as client"):
        await client.get("/")
    with pytest.raises(TypeError, match=r"async with Client\(app\) as client"), client:
        pass


@pytest.mark.gen_test
async def test_handlers_with_another_manager() -> None:
    """The manager can be named where the handlers do not take it from the settings."""
    sessions, clock = make_manager(), Clock(1_900_000_000)
    app = Application([], **session_settings(make_manager()))
    other = make_manager(clock=clock, lifetime=Lifetime(idle_s=60))

    client = Client(app, "http://127.0.0.1:1", sessions=other)

    assert Client(make_app(sessions), "http://127.0.0.1:1").sessions is sessions
    assert (client.sessions, client.clock) == (other, clock)

"""`SessionManager.open`: a background job, or support, changes a user's session without the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar import Lifetime, SessionChanged, SessionEnded, SessionTooLarge
from stormcellar.events import Event, Kind
from stormcellar.stores import StoreUnavailable, open_store
from stormcellar.stores.memory import MemoryStore
from tests.support.core import SAFE, AccountTimes, Core, Visitor


@pytest.fixture(params=["memory", "sqlite", "redis8", "mongo_rs"])
def core(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[Core]:
    """A manager on an empty store of each kind."""
    store: Any = MemoryStore()
    if request.param != "memory":
        url = request.getfixturevalue(request.param).url
        store = open_store(url, prefix=f"opened-{token_hex(6)}", timeout_s=10, connect_timeout_s=10)
    yield Core(store)
    io_loop.run_sync(store.aclose)


async def signed_in(core: Core, **data: Any) -> tuple[Visitor, str]:
    """Return a signed-in visitor and the handle of the session."""
    visitor = Visitor(core)
    session = await visitor.request()
    session.update(data)
    await session.login("ada", keep=data)
    await visitor.answer(session)
    assert visitor.sid is not None
    return visitor, visitor.sid.handle


@pytest.mark.gen_test
async def test_a_job_leaves_a_message_and_data(core: Core) -> None:
    """The next page of the user shows them; the session keeps its ID and its times."""
    visitor, handle = await signed_in(core, cart=[1], old=1)
    before = await core.stored(visitor.sid)
    core.clock.advance(100)

    async with core.manager.open(handle) as session:
        seen = (session.user, session.handle, list(session))
        session["cart"].append(2)
        del session["old"]
        session.flash("Your report is ready.")

    page = await visitor.request(SAFE)
    after = await core.stored(visitor.sid)
    assert (seen[:2], set(seen[2])) == (("ada", handle), {"cart", "old"})
    assert (dict(page), page.flashes()) == ({"cart": [1, 2]}, ["Your report is ready."])
    assert (after.seen_ms, after.expires_ms) == (before.seen_ms, before.expires_ms)


@pytest.mark.gen_test
async def test_each_session_of_a_user_gets_a_message(core: Core) -> None:
    """Support finds the sessions by the user."""
    visitors = [(await signed_in(core))[0] for _ in range(3)]

    for record in await core.manager.of_user("ada"):
        async with core.manager.open(record.handle) as session:
            session.flash("Please call us.")

    for visitor in visitors:
        assert (await visitor.request(SAFE)).flashes() == ["Please call us."]


@pytest.mark.gen_test
async def test_jobs_and_requests_lose_nothing(core: Core) -> None:  # D3
    """Different keys commute; `modify` counts every one."""
    visitor, handle = await signed_in(core, n=0)

    async def job(number: int) -> None:
        async with core.manager.open(handle) as session:
            session[f"job{number}"] = 1
            await session.modify("n", lambda n: n + 1)

    async def request(number: int) -> None:
        session = await visitor.request()
        session[f"request{number}"] = 1
        await session.modify("n", lambda n: n + 1)

    await asyncio.gather(*map(job, range(5)), *map(request, range(5)))

    data = await visitor.reads()
    assert data.pop("n") == 10
    assert len(data) == 10


@pytest.mark.parametrize("verb", ["renew", "login"])
@pytest.mark.gen_test
async def test_a_rotation_meanwhile_loses_nothing(verb: str, core: Core) -> None:
    """The ID changes while the block runs: the same user's session is written under the new one."""
    visitor, handle = await signed_in(core, a=1)

    async with core.manager.open(handle) as session:
        session["job"] = 1
        request = await visitor.request()
        await (request.renew() if verb == "renew" else request.login("ada"))
        visitor.take(request)
        await session.modify("n", lambda n: (n or 0) + 1)
        request = await visitor.request()
        await request.renew()
        visitor.take(request)
        session["late"] = 1

    assert await visitor.reads() == {"a": 1, "job": 1, "n": 1, "late": 1}


@pytest.mark.parametrize("how", ["sign-out", "another user"])
@pytest.mark.gen_test
async def test_a_session_that_ended_meanwhile_is_not_written(how: str, core: Core) -> None:  # D1 C3
    """Neither revived nor given to the next user."""
    visitor, handle = await signed_in(core)

    async def job() -> None:
        async with core.manager.open(handle) as session:
            session["job"] = 1
            request = await visitor.request()
            await (request.logout() if how == "sign-out" else request.login("bob"))
            visitor.take(request)

    with pytest.raises(SessionChanged):
        await job()

    assert await visitor.reads() == {}


@pytest.mark.parametrize("case", ["ended", "expired", "unknown", "no handle", "account removed"])
@pytest.mark.gen_test
async def test_only_a_live_session_can_be_opened(case: str) -> None:  # G2
    """Anything else is SessionEnded, and what is no handle makes no store call."""
    accounts = AccountTimes({"ada": 0})
    core = Core(accounts=accounts)
    visitor, handle = await signed_in(core)
    if case == "ended":
        await (await visitor.request()).logout()
    elif case == "expired":
        core.clock.advance(1800)
    elif case == "account removed":
        del accounts.users["ada"]
    core.store.calls.clear()
    asked = {"unknown": "A" * 22, "no handle": "../" + handle}.get(case, handle)

    with pytest.raises(SessionEnded):
        async with core.manager.open(asked):
            pytest.fail("the block ran")

    assert core.store.calls == ({} if case == "no handle" else {"find": 1})


@pytest.mark.gen_test
async def test_an_exception_in_the_block_saves_nothing(core: Core) -> None:
    """As a response with an error does not."""
    visitor, handle = await signed_in(core)

    with pytest.raises(ZeroDivisionError):
        async with core.manager.open(handle) as session:
            session["job"] = 1 / 0
    with pytest.raises(RuntimeError, match="its block has ended"):
        await session.commit()

    assert await visitor.reads() == {}


@pytest.mark.gen_test
async def test_what_needs_a_browser_is_refused(core: Core) -> None:
    """A new ID would reach nobody; and after the block the session cannot change."""
    _, handle = await signed_in(core)

    async with core.manager.open(handle) as session:
        for verb in (session.renew(), session.login("ada"), session.expire_in(60)):
            with pytest.raises(RuntimeError, match="opened by its handle keeps its ID"):
                await verb
    with pytest.raises(RuntimeError, match="its block has ended"):
        session["late"] = 1


@pytest.mark.gen_test
async def test_support_can_sign_a_user_out(core: Core) -> None:
    """`logout` ends the session, and says so in one event without an address."""
    visitor, handle = await signed_in(core)
    events: list[Event] = []
    core.manager.events.subscribe(events.append)

    async with core.manager.open(handle) as session:
        session["job"] = 1
        await session.logout()

    assert [(e.kind, e.handle, e.user, e.address, e.reason) for e in events] == [
        (Kind.DESTROYED, handle, "ada", None, "logout")
    ]
    assert (await visitor.request(SAFE)).user is None


@pytest.mark.gen_test
async def test_a_message_after_the_sign_out_is_refused(core: Core) -> None:
    """No browser would get it: a session of its own would have nobody to belong to."""
    _, handle = await signed_in(core)

    async def job() -> None:
        async with core.manager.open(handle) as session:
            await session.logout()
            session.flash("You were signed out.")

    with pytest.raises(SessionEnded):
        await job()

    assert await core.everything() == []


@pytest.mark.gen_test
async def test_limits_and_outages_are_reported(core: Core) -> None:  # G13 G15
    """The same errors as in a request; nothing is saved."""
    visitor, handle = await signed_in(core)

    with pytest.raises(SessionTooLarge):
        async with core.manager.open(handle) as session:
            session["big"] = "x" * 70_000
    core.store.fail["apply"] = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        async with core.manager.open(handle) as session:
            session["a"] = 1

    assert await visitor.reads() == {}


@pytest.mark.gen_test
async def test_a_visitor_has_a_session_to_open_as_well() -> None:
    """A cart can be changed by a job, in a session with periodic renewal too."""
    core = Core(lifetime=Lifetime(renew_s=900))
    visitor = Visitor(core)
    await visitor.writes(cart=1)
    assert visitor.sid is not None

    async with core.manager.open(visitor.sid.handle) as session:
        session["cart"] = 2

    assert await visitor.reads() == {"cart": 2}


@pytest.mark.filterwarnings("ignore:coroutine.*never awaited")
@pytest.mark.gen_test
async def test_a_verb_without_await_is_an_error(core: Core) -> None:
    """Nothing is saved, and the error names the verb."""
    visitor, handle = await signed_in(core, n=1)

    async def forget() -> None:
        async with core.manager.open(handle) as session:
            session["n"] = 2
            session.logout()

    with pytest.raises(RuntimeError, match=r"session\.logout\(\) did nothing"):
        await forget()

    assert await visitor.reads() == {"n": 1}

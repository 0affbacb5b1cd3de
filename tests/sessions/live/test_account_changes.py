"""Changed accounts: who holds a session of one is told at once, if somebody says that accounts changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from tornado.ioloop import IOLoop

from stormcellar.sessions.live.check_queue import SLICE, WORKERS
from stormcellar.sessions.live.watched import End, Watched
from stormcellar.stores import StoreUnavailable
from tests.support.core import AccountTimes, Core, Visitor

LATE_S = 15.0


class Directory(AccountTimes):
    """A directory that counts who is asked for; `broken` is a user whose account cannot be read."""

    def __init__(self) -> None:
        super().__init__({"ada": 0, "bob": 0})
        self.asked: Counter[str] = Counter()
        self.broken = ""

    async def valid_after(self, user: str) -> int | None:  # type: ignore[override]
        """Return the time."""
        self.asked[user] += 1
        if user == self.broken:
            raise OSError("no answer")
        return self.users.get(user)


class Held:
    """A process that holds sessions, and has confirmed them."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.core = Core(accounts=self.directory)
        self.watch = self.core.manager.watch

    async def hold(self, user: str) -> tuple[Visitor, Watched]:
        """Sign *user* in and hold the session."""
        visitor = Visitor(self.core)
        session = await visitor.signs_in(user)
        assert session.record is not None
        watched = self.watch.hold(session.record)
        await self.confirmed()
        return visitor, watched

    async def confirmed(self) -> None:
        """Wait until the store has answered what it is asked next."""
        async with asyncio.timeout(LATE_S):
            while not self.core.store.calls["states"]:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        self.core.store.calls.clear()
        self.directory.asked.clear()

    def change_password(self, user: str) -> None:
        """Change the account, so that sign-ins so far do not count."""
        self.core.clock.advance(1)
        self.directory.users[user] = self.core.manager.now_ms()


@pytest.fixture
def it(io_loop: IOLoop) -> Iterator[Held]:
    """A process that is closed after the test."""
    made = Held()
    yield made
    io_loop.run_sync(made.core.manager.aclose)


async def end_of(watched: Watched) -> End | None:
    """Return why *watched* is over, once it is."""
    await asyncio.wait_for(watched.ended.wait(), LATE_S)
    return watched.end


@pytest.mark.gen_test
async def test_disabled_account_ends_without_the_store(it: Held) -> None:  # C10 C11 J3
    """Every holder of its sessions is told before the call returns; nobody else, and no store is asked."""
    (_, first), (_, second), (_, other) = [await it.hold(user) for user in ("ada", "ada", "bob")]
    it.core.store.fail["states"] = StoreUnavailable("states")
    del it.directory.users["ada"]

    await it.watch.check_accounts()

    assert [first.end, second.end, other.end] == [End.ACCOUNT, End.ACCOUNT, None]
    assert (len(it.watch), it.core.store.calls["states"]) == (1, 0)


@pytest.mark.gen_test
async def test_one_account_is_asked_for_alone(it: Held) -> None:
    """With a user, the directory is asked for that user only."""
    (_, held), (_, other) = await it.hold("ada"), await it.hold("bob")
    it.directory.users.clear()

    await it.watch.check_accounts("ada")

    assert (held.end, other.end) == (End.ACCOUNT, None)
    assert set(it.directory.asked) == {"ada"}


@pytest.mark.gen_test
async def test_visitor_is_not_checked(it: Held) -> None:
    """A session without a user has no account."""
    visitor = Visitor(it.core)
    session = await visitor.writes(a=1)
    assert session.record is not None
    held = it.watch.hold(session.record)

    await it.watch.check_accounts()

    assert (held.end, it.directory.asked) == (None, Counter())


@pytest.mark.gen_test
async def test_own_change_of_the_password_replaces(it: Held) -> None:
    """Between the change and the new session ID the session is not over; then it is `REPLACED`."""
    visitor, held = await it.hold("ada")
    session = await visitor.request()
    it.change_password("ada")

    await it.watch.check_accounts("ada")
    it.watch.check(held)
    await it.confirmed()
    between = held.end
    it.core.clock.advance(0.1)
    await session.login("ada", afresh=False)

    assert (between, await end_of(held)) == (None, End.REPLACED)


@pytest.mark.gen_test
async def test_new_password_by_command_ends_it_after_a_moment(
    it: Held, monkeypatch: pytest.MonkeyPatch
) -> None:  # C10 J3
    """When nobody has signed in again by then; no further call is needed, and no store."""
    monkeypatch.setattr("stormcellar.sessions.account_check.SETTLE_S", 0.05)
    _, held = await it.hold("ada")
    it.core.store.fail["states"] = StoreUnavailable("states")
    it.change_password("ada")

    await it.watch.check_accounts()
    at_once = held.end
    it.core.clock.advance(0.05)

    assert (at_once, await end_of(held)) == (None, End.ACCOUNT)


@pytest.mark.gen_test
async def test_directory_that_fails_ends_nobody(it: Held, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the others are checked all the same."""
    (_, broken), (_, held) = await it.hold("ada"), await it.hold("bob")
    it.directory.broken = "ada"
    del it.directory.users["bob"]

    await it.watch.check_accounts()

    assert (broken.end, held.end) == (None, End.ACCOUNT)
    assert [each.getMessage() for each in caplog.records] == [
        f"could not check the account of session {broken.record.handle}"
    ]


@pytest.mark.gen_test
async def test_holder_that_lets_go_meanwhile_is_told_nothing(it: Held) -> None:
    """While the directory was asked."""
    _, held = await it.hold("ada")
    answered = asyncio.Event()

    async def slow(user: str) -> int | None:
        await answered.wait()
        return None

    it.directory.valid_after = slow  # type: ignore[method-assign]
    checking = asyncio.ensure_future(it.watch.check_accounts())
    await asyncio.sleep(0)
    it.watch.release(held)
    answered.set()
    await checking

    assert held.end is None


@pytest.mark.gen_test
async def test_ten_thousand_do_not_block_the_loop(it: Held) -> None:
    """Other work has its turn after each slice: of the checks by the store in memory, and of the accounts."""
    record = (await it.hold("ada"))[1].record
    held = [it.watch.hold(record) for _ in range(10_000)]
    confirmed = await turns_until(lambda: it.core.store.calls["states"] >= len(held) / SLICE)
    del it.directory.users["ada"]
    checking = asyncio.ensure_future(it.watch.check_accounts())
    checked = await turns_until(checking.done)

    assert {each.end for each in held} == {End.ACCOUNT}
    assert min(confirmed, checked) >= len(held) / SLICE / WORKERS


async def turns_until(condition: Callable[[], bool]) -> int:
    """Return how many turns the loop takes until *condition* holds."""
    turns = 0
    while not condition():
        await asyncio.sleep(0)
        turns += 1
    return turns

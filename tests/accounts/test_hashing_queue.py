"""Who waits for a password hash: known addresses first, and no network can keep the others out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from stormcellar.accounts.authenticator import Authenticator
from stormcellar.accounts.hashing_queue import ORIGIN, HashingQueue, Origin
from stormcellar.accounts.throttle import Throttle
from stormcellar.errors import Busy
from stormcellar.events import Events
from stormcellar.stores.memory import MemoryStore
from tests.support.fakes import Clock


class Gated:
    """One worker that is held, and a queue of four places; `order` is who ran."""

    def __init__(self, *, places: int = 4, longest_wait_s: float = 20.0) -> None:
        self.queue = HashingQueue(workers=1, places=places, longest_wait_s=longest_wait_s)
        self.gate = threading.Event()
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def _work(self, name: str) -> None:
        assert self.gate.wait(20)
        self.order.append(name)

    async def _ask(self, name: str, origin: Origin) -> None:
        ORIGIN.set(origin)
        await self.queue.run(self._work, name)

    async def ask(self, name: str, *, is_known: bool = False, network: str = "") -> None:
        """Ask for a hash in a task of its own, until it waits or is refused."""
        origin = Origin(is_known, network or name)
        self.tasks[name] = asyncio.create_task(self._ask(name, origin))
        await asyncio.sleep(0)

    async def results(self) -> dict[str, str]:
        """Let the worker go on, and return for each how it ended."""
        self.gate.set()
        ended = await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        kinds = ("done" if each is None else type(each).__name__ for each in ended)
        return dict(zip(self.tasks, kinds, strict=True))


@pytest.fixture
def gated() -> Iterator[Gated]:
    """A queue whose worker waits; it ends with the test."""
    it = Gated()
    yield it
    it.gate.set()
    it.queue.close()


@pytest.mark.gen_test
async def test_known_addresses_are_served_first(gated: Gated) -> None:  # E10 H6
    """A flood from new addresses fills its own queue only, and whoever is known overtakes it."""
    for number in range(20):
        await gated.ask(f"new {number}")
    await gated.ask("owner", is_known=True)
    results = await gated.results()

    assert results["owner"] == "done"
    assert gated.order == ["new 0", "owner", "new 1", "new 2", "new 3", "new 4"]
    assert [results[f"new {number}"] for number in range(5, 20)] == ["Busy"] * 15


@pytest.mark.gen_test
async def test_new_addresses_have_their_turn() -> None:
    """However many known addresses ask, one at a new address runs after seven of them."""
    gated = Gated(places=20)
    await gated.ask("first", is_known=True)
    await gated.ask("new")
    for number in range(12):
        await gated.ask(f"known {number}", is_known=True)
    await gated.results()
    gated.queue.close()

    assert gated.order.index("new") == 8


@pytest.mark.gen_test
@pytest.mark.parametrize("is_known", [False, True])
async def test_wait_is_bounded(is_known: bool) -> None:
    """Who waits too long is told so, leaves the place free, and its password is not hashed later."""
    gated = Gated(longest_wait_s=0.05)
    await gated.ask("first", is_known=True)
    await gated.ask("late", is_known=is_known)
    with pytest.raises(Busy, match="too long"):
        await gated.tasks["late"]
    await gated.ask("next", is_known=is_known)
    results = await gated.results()
    gated.queue.close()

    assert results == {"first": "done", "late": "Busy", "next": "done"}
    assert gated.order == ["first", "next"]


@pytest.mark.gen_test
@pytest.mark.parametrize("is_known", [False, True])
async def test_one_network_cannot_keep_others_out(gated: Gated, is_known: bool) -> None:  # H6
    """Whoever comes to a full queue takes the latest place of the network that has most."""
    for number in range(6):
        await gated.ask(f"flood {number}", network="flood", is_known=is_known)
    for name in ("a", "b", "c", "d"):
        await gated.ask(name, is_known=is_known)
    results = await gated.results()

    assert gated.order == ["flood 0", "flood 1", "a", "b", "c"]
    assert [name for name, result in results.items() if result == "Busy"] == [
        *("flood 2", "flood 3", "flood 4", "flood 5"),
        "d",
    ]


@pytest.mark.gen_test
async def test_cancelled_waiter_leaves_its_place(gated: Gated) -> None:
    """Its hash is not computed, its place is free, and the worker is not lost."""
    for name in ("runs", "a", "b", "c", "d"):
        await gated.ask(name)
    gated.tasks["a"].cancel()
    await asyncio.sleep(0)
    await gated.ask("e")
    results = await gated.results()

    assert gated.order == ["runs", "b", "c", "d", "e"]
    assert results["a"] == "CancelledError"
    await gated.ask("after")
    await gated.tasks["after"]


@pytest.mark.gen_test
async def test_waiter_that_is_cancelled_as_its_turn_comes(gated: Gated) -> None:
    """The worker that it was given goes to the next one."""
    for name in ("runs", "a", "b"):
        await gated.ask(name)
    waiter = gated.queue._others[0]
    gated.queue._give_back_worker()
    assert waiter.granted.done()
    gated.tasks["a"].cancel()
    results = await gated.results()

    assert (results["a"], results["b"], gated.order) == ("CancelledError", "done", ["runs", "b"])


@pytest.mark.gen_test
async def test_waiter_that_is_refused_and_cancelled_at_once(gated: Gated) -> None:
    """It had no worker, so none is given back: there are never more than there are threads."""
    await gated.ask("first")
    for number in range(4):
        await gated.ask(f"flood {number}", network="flood")
    gated.tasks["other"] = asyncio.create_task(gated._ask("other", Origin(False, "other")))
    # After the refusal, and before the task learns of it.
    asyncio.get_running_loop().call_soon(gated.tasks["flood 3"].cancel)
    await asyncio.sleep(0)
    results = await gated.results()
    await asyncio.sleep(0.01)

    assert (results["flood 3"], results["other"]) == ("CancelledError", "done")
    assert gated.queue._free == 1


@pytest.mark.gen_test
async def test_closing_ends_who_waits(gated: Gated) -> None:
    """What runs finishes; nobody waits for ever."""
    await gated.ask("runs")
    await gated.ask("waits")
    gated.queue.close()

    assert await gated.results() == {"runs": "done", "waits": "CancelledError"}


class Origins:
    """An account directory that notes for whom a password was checked."""

    def __init__(self) -> None:
        self.seen: list[Origin] = []

    async def verify(self, name: str, password: str) -> str | None:
        """Accept everything."""
        self.seen.append(ORIGIN.get())
        return name

    def valid_after(self, user: str) -> int | None:
        """Return the same for every user."""
        return 0


@pytest.mark.gen_test
async def test_address_is_known_after_a_sign_in() -> None:  # E10
    """The second sign-in from there has priority; from elsewhere it has none, and IPv6 counts by its /48."""
    directory, counters = Origins(), MemoryStore().counters()
    throttle = Throttle(counters, key=b"k" * 32, clock=Clock())
    authenticator = Authenticator(directory, throttle, Events(throttle.now_ms))  # type: ignore[arg-type]
    for address in ("192.0.2.1", "192.0.2.1", "2001:db8:1:2::3"):
        assert await authenticator.check("alice", "right", address=address) == "alice"

    assert directory.seen == [
        *(Origin(False, "192.0.2.1"), Origin(True, "192.0.2.1")),
        Origin(False, "2001:db8:1::/48"),
    ]
    assert ORIGIN.get() == Origin()

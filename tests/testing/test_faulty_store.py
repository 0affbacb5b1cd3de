"""`FaultyStore` and `Clock`: what a test controls."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from stormcellar.stores import Record, Rule, StoreUnavailable, open_store
from stormcellar.stores.conformance import CountersContract, StoreContract
from stormcellar.stores.conformance.cases import NOW, new_record, new_rotation, new_verifier
from stormcellar.testing import Clock, FaultyStore
from tests.stores.test_minimal_store import MinimalStore

URL = "stormcellar.testing:FaultyStore"


class TestFaultyStore(StoreContract):
    """A store in which nothing fails is like the one behind it."""

    url = URL


class TestCounters(CountersContract):
    """So are its counters."""

    url = URL


@pytest.mark.gen_test
async def test_store_without_the_optional_parts() -> None:
    """States are found all the same; nothing is announced, and listing is an error."""
    memory = open_store("memory")
    store, whole = FaultyStore(MinimalStore(memory)), FaultyStore(memory)
    records = [new_record() for _ in range(4)]
    for record in records[:3]:
        await store.create(record)
    await store.rotate(records[1].credential, new_rotation(new_verifier()), now_ms=NOW)
    await store.destroy(records[2].handle, now_ms=NOW)

    asked = [record.credential for record in records]
    found = await store.states(asked, now_ms=NOW)

    for credential, state in (await whole.states(asked, now_ms=NOW)).items():
        other = found[credential]
        assert (replace(other, data={}) if isinstance(other, Record) else other) == state
    assert [handle async for handle in store.gone()] == []
    assert store.counters() is None
    with pytest.raises(TypeError, match="a MinimalStore cannot list its sessions"):
        store.scan(now_ms=NOW)


@pytest.mark.gen_test
async def test_every_operation_fails() -> None:
    """Nothing reaches the store while it fails, and everything does after the block."""
    store, record = FaultyStore(), new_record()

    with store.failing():
        for name in ("create", "ping"):
            with pytest.raises(StoreUnavailable):
                await (store.create(record) if name == "create" else store.ping())
        counters = store.counters()
        assert counters is not None
        with pytest.raises(StoreUnavailable):
            await counters.take("key", Rule(1, 0, 0, 0), now_ms=NOW)
    absent = await store.find(record.handle, now_ms=NOW)
    await store.create(record)

    assert absent is None
    assert await store.find(record.handle, now_ms=NOW) == record
    assert store.calls == {"create": 2, "ping": 1, "take": 1, "find": 2}


def test_wrong_faults() -> None:
    """An operation that there is not, and what is no store, are errors."""
    with pytest.raises(ValueError, match="no operation of a store: 'save'; there are create, load"):
        FaultyStore().failing("save").__enter__()
    with pytest.raises(TypeError, match=r"inner must be a Store, not str: write open_store\(url\)"):
        FaultyStore("redis://localhost")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a FaultyStore has no parameters"):
        open_store(f"{URL}?x=1")


def test_clock_goes_on() -> None:
    """A clock without a time is that of the system, and ahead by what it was moved."""
    before, clock = time.time(), Clock()
    clock.advance(3600)
    clock.advance(-600)

    assert before + 3000 <= clock() <= time.time() + 3000


def test_clock_stands_still() -> None:
    """A clock with a time moves only when it is told to."""
    clock = Clock(1_900_000_000)
    first = clock()
    clock.advance(0.5)

    assert (first, clock()) == (1_900_000_000, 1_900_000_000.5)


def test_clock_tells_its_subscribers() -> None:
    """Each once per move, also if it subscribed twice; a move that makes no sense is none."""
    clock = Clock(5)
    calls: list[float] = []

    def tell() -> None:
        calls.append(clock())

    clock.subscribe(tell)
    clock.subscribe(tell)
    clock.advance(1)
    with pytest.raises(ValueError, match="not nan"):
        clock.advance(float("nan"))

    assert calls == [6]

"""Calls of one turn of the loop on `MongoStore` share a command, and each has its own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stores import Absent, Credential, Record, StoreUnavailable
from stores.conformance.cases import (
    MINUTE,
    NOW,
    created,
    loaded,
    new_handle,
    new_verifier,
    rotated,
)
from tests.backends import Backend
from tests.mongo_samples import is_command, sent, through_proxy

pytest_plugins = ["tests.mongo_fixtures"]


async def answers(*calls: Any) -> list[Any]:
    """Make the calls at once; return what each answers or raises."""
    return await asyncio.gather(*calls, return_exceptions=True)


def of_handle(credential: Credential) -> Credential:
    """Return a credential for the same session, with a verifier never issued."""
    return Credential(credential.handle, new_verifier())


@pytest.mark.gen_test
async def test_loads_of_one_turn_are_one_find(backend: Backend) -> None:
    """Each has its own answer, by its own verifier, also several loads of one session."""
    async with through_proxy(backend) as (store, proxy):
        one, two = await created(store, data={"n": b"1"}), await created(store, data={"n": b"2"})
        renewed = await created(store)
        current = Credential(renewed.handle, new_verifier())
        await rotated(store, renewed.credential, current.verifier, now_ms=NOW, grace_ms=MINUTE)
        dead = await created(store, expires_ms=NOW)
        never = Credential(new_handle(), new_verifier())
        asked = [
            *(one.credential, two.credential, one.credential, of_handle(one.credential)),
            *(renewed.credential, current, of_handle(current), dead.credential, never),
        ]
        proxy.requests.clear()

        found = await asyncio.gather(*(store.load(credential, now_ms=NOW) for credential in asked))

        assert len(sent(proxy, b"find")) == 1
        assert found[:4] == [one, two, one, Absent.SUPERSEDED]
        assert [record.verifier for record in found[4:6] if isinstance(record, Record)] == [
            renewed.verifier,
            current.verifier,
        ]
        assert found[6:] == [Absent.SUPERSEDED, Absent.ENDED, Absent.ENDED]
        assert isinstance(found[0], Record) and isinstance(found[2], Record)
        assert found[0].data is not found[2].data


@pytest.mark.gen_test
async def test_a_turn_of_large_sessions_is_one_reply(mongo: Backend) -> None:
    """As many sessions of the greatest size as a batch holds need no second request."""
    async with through_proxy(mongo) as (store, proxy):
        records = [await created(store, data={"pad": b"x" * (64 << 10)}) for _ in range(64)]
        proxy.requests.clear()

        found = await asyncio.gather(*(loaded(store, record.credential) for record in records))

        assert found == records
        assert [len(sent(proxy, name)) for name in (b"find", b"getMore", b"killCursors")] == [1, 0, 0]


@pytest.mark.gen_test
async def test_a_lost_reply_to_a_batch_of_loads(mongo: Backend) -> None:
    """The batch is sent again, once; if that is lost too, each caller is told by an error of its own."""
    async with through_proxy(mongo) as (store, proxy):
        records = [await created(store, data={}) for _ in range(5)]
        proxy.requests.clear()
        proxy.drop_replies(is_command(b"find"))
        found = await asyncio.gather(*(loaded(store, record.credential) for record in records))
        sent_first = len(sent(proxy, b"find"))
        proxy.drop_replies(is_command(b"find"), times=2)

        told = await answers(*(store.load(record.credential, now_ms=NOW) for record in records))

        assert found == records
        assert (sent_first, len(sent(proxy, b"find"))) == (2, 4)
        assert {type(error) for error in told} == {StoreUnavailable}
        assert len({id(error) for error in told}) == len(records)

"""What is too large for a batch goes alone: it fails alone, and it delays no other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from stormcellar.stores import Delta, Outcome, Rotation
from stormcellar.stores.conformance.cases import HOUR, NOW, created, loaded, new_record, new_verifier
from stormcellar.stores.mongo import MongoStore
from stormcellar.stores.mongo.updates import MAX_SIZE, ORDINARY_BYTES, is_ordinary
from tests.stores.mongo.samples import Stored, sent, through_proxy
from tests.support.backends import Backend

TOO_LARGE = 17 << 20
PUT = Delta(put={"n": b"1"})
SIGN_IN = Rotation(
    new_verifier=new_verifier(),
    rotated_ms=NOW,
    user="alice",
    auth_ms=NOW,
    client=b"",
    expires_ms=NOW + HOUR,
    deadline_ms=NOW + HOUR,
    keep=None,
)
LARGE_ROTATIONS = {
    "user": replace(SIGN_IN, user="x" * TOO_LARGE),
    "wide user": replace(SIGN_IN, user="\U0001f600" * (TOO_LARGE // 4)),
    "client": replace(SIGN_IN, client=b"x" * TOO_LARGE),
    "put": replace(SIGN_IN, delta=Delta(put={"n": b"x" * TOO_LARGE})),
    "expect": replace(SIGN_IN, delta=Delta(expect={"n": b"x" * TOO_LARGE})),
    "drop": replace(SIGN_IN, delta=Delta(drop=frozenset(f"k{n:060}" for n in range(TOO_LARGE // 60)))),
    "keep": replace(SIGN_IN, keep=frozenset(f"{n:060}" for n in range(TOO_LARGE // 60))),
}


async def answers(*calls: Any) -> list[Any]:
    """Make the calls at once; return what each answers or raises."""
    return await asyncio.gather(*calls, return_exceptions=True)


def open_cursors(stored: Stored) -> int:
    """Return the number of cursors that the server keeps open."""
    status = stored.database.client.admin.command("serverStatus")
    return int(status["metrics"]["cursor"]["open"]["total"])


@pytest.mark.parametrize("part", LARGE_ROTATIONS)
@pytest.mark.gen_test
async def test_a_rotation_that_no_command_can_hold_fails_alone(store: MongoStore, part: str) -> None:
    """Whichever of its parts is too large, the writes of the same iteration are applied."""
    one, two, large = [await created(store, data={}) for _ in range(3)]

    told = await answers(
        store.apply(one.credential, PUT, now_ms=NOW, expires_ms=None),
        store.rotate(large.credential, LARGE_ROTATIONS[part], now_ms=NOW),
        store.rotate(two.credential, SIGN_IN, now_ms=NOW),
    )

    assert [type(answer) for answer in told] == [Outcome, ValueError, Outcome]
    assert (told[0], told[2]) == (Outcome.APPLIED, Outcome.APPLIED)
    assert await loaded(store, large.credential) == large


@pytest.mark.parametrize("part", LARGE_ROTATIONS)
def test_a_full_batch_fits_one_message(part: str) -> None:
    """What counts as ordinary is so small that the largest batch is a sixth of a message, 48 MB."""
    assert MAX_SIZE * ORDINARY_BYTES * 6 <= 50 << 20
    large = LARGE_ROTATIONS[part]
    credential = new_record().credential
    assert not is_ordinary(credential, large.delta, large)
    assert is_ordinary(credential, SIGN_IN.delta, SIGN_IN)


@pytest.mark.parametrize("operation", ["create", "of_user", "load"])
@pytest.mark.gen_test
async def test_a_call_that_no_command_can_hold_harms_nobody(store: MongoStore, operation: str) -> None:
    """It raises ValueError, and a load of the same iteration is answered."""
    record = await created(store)
    user = "x" * TOO_LARGE
    calls = {
        "create": lambda: store.create(new_record(user=user)),
        "of_user": lambda: store.of_user(user, now_ms=NOW),
        "load": lambda: store.load(record.credential._replace(handle=user), now_ms=NOW),
    }

    told = await answers(store.load(record.credential, now_ms=NOW), calls[operation]())

    assert told[0] == record
    assert isinstance(told[1], ValueError)


@pytest.mark.gen_test
async def test_sessions_that_exceed_a_reply_are_loaded_alone(backend: Backend, stored: Stored) -> None:
    """A batch of loads has one reply, 16 MB at most. What is not in it is asked for again, each alone."""
    async with through_proxy(backend) as (store, proxy):
        sizes = [5_000_000] * 5 + [10]
        records = [await created(store, data={"pad": b"x" * size}) for size in sizes]
        never = new_record()
        before = open_cursors(stored)
        proxy.requests.clear()

        found = await answers(
            *(store.load(record.credential, now_ms=NOW) for record in (*records, never, records[0]))
        )

        assert found[:6] == records and found[7] == records[0]
        assert not hasattr(found[6], "data")
        finds = sent(proxy, b"find")
        assert len(finds) > 2
        assert ["$in" in find["filter"]["_id"] for find in finds] == [True] + [False] * (len(finds) - 1)
        assert [len(sent(proxy, name)) for name in (b"getMore", b"killCursors")] == [0, 1]
        assert open_cursors(stored) <= before

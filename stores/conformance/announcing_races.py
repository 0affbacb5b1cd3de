"""Tests of `gone` and `states` while sessions end and change, with races that are provoked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from stormcellar.stores.base import Announcing
from stormcellar.stores.conformance.announcing import HEARD_S, AnnouncingContract
from stormcellar.stores.conformance.cases import (
    ENDED,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    UNKNOWN,
    created,
    living,
    new_user,
    new_verifier,
    rotated,
)
from stormcellar.stores.records import Absent, Credential, Handle, Record, Verifier

READERS = 4


class AnnouncingRaceContract(AnnouncingContract):
    """Tests of parallel operations on a store that is `Announcing`."""

    async def test_states_follow_every_rotation(self, announcing: Announcing) -> None:
        """During forty rotations no session is absent, none goes back, and no answer mixes two of them."""
        record = await created(announcing)
        verifiers, users = [record.verifier], [record.user]
        for step in range(1, 41):
            verifiers.append(new_verifier())
            users.append(users[-1] if step % 2 else new_user())

        async def rotate() -> None:
            for step in range(1, len(verifiers)):
                current = Credential(record.handle, verifiers[step - 1])
                # A renewal with a grace, then a sign-in without one.
                grace_ms = MINUTE if step % 2 else 0
                await rotated(announcing, current, verifiers[step], user=users[step], grace_ms=grace_ms)
                await asyncio.sleep(0)

        read = await _read_during(announcing, [record.credential], rotate())

        steps = [[_step(answer, verifiers, users) for answer in answers] for answers in read]
        assert steps == [sorted(each) for each in steps]
        assert {each[-1] for each in steps} == {40}
        assert len({step for each in steps for step in each}) > 2, "nothing was read meanwhile"

    async def test_states_see_an_end_or_what_was_before(self, announcing: Announcing) -> None:
        """During a destroy a session is live, then ended; nothing else, not even for a moment."""
        for _ in range(10):
            record = await created(announcing, user=new_user())
            renewed = Credential(record.handle, new_verifier())
            await rotated(announcing, record.credential, renewed.verifier, grace_ms=MINUTE)

            async def end(handle: Handle = record.handle) -> None:
                await announcing.destroy(handle, now_ms=NOW)

            read = await _read_during(announcing, [renewed], end())

            for answers in read:
                ends = [answer == ENDED for answer in answers]
                assert all(
                    is_end or isinstance(each, Record) for each, is_end in zip(answers, ends, strict=True)
                )
                assert ends == sorted(ends)
                assert ends[-1]

    async def test_states_see_an_extension_or_the_expiry(self, announcing: Announcing) -> None:
        """At the moment of its expiry a session that is extended is over or extended."""
        late = NOW + HOUR
        for place in range(12):
            record = await created(announcing)
            write = announcing.apply(record.credential, NOTHING, now_ms=NOW, expires_ms=late + HOUR)
            calls: list[Coroutine[Any, Any, Any]] = [
                announcing.states([record.credential], now_ms=late) for _ in range(READERS)
            ]
            calls.insert(place % (READERS + 1), write)

            answers = await asyncio.gather(*calls)
            del answers[place % (READERS + 1)]
            [after] = (await announcing.states([record.credential], now_ms=late)).values()

            assert isinstance(after, Record) and after.expires_ms == late + HOUR
            assert all(
                found in ({record.credential: UNKNOWN}, {record.credential: after}) for found in answers
            )

    async def test_end_while_listening_begins_is_not_missed(self, announcing: Announcing) -> None:
        """What ends at that moment is announced, or `states` shows it when None has come."""
        self._needs_push()
        for turns in range(12):
            before, during, after = [await created(announcing) for _ in range(3)]

            async def end(handle: Handle = during.handle, turns: int = turns) -> None:
                await asyncio.sleep(turns * 0.0005)
                await announcing.destroy(handle, now_ms=NOW)

            await announcing.destroy(before.handle, now_ms=NOW)
            ending = asyncio.ensure_future(end())
            async with aclosing(announcing.gone()) as handles, asyncio.timeout(HEARD_S):
                assert await anext(handles) is None
                live = await living(announcing, [before.credential, during.credential])
                await ending
                await announcing.destroy(after.handle, now_ms=NOW)
                heard = {await anext(handles)}
                wanted = {after.handle} | {each.handle for each in live}
                while not wanted <= heard:
                    heard.add(await anext(handles))

            assert before.credential not in live


def _step(answer: Record | Absent, verifiers: list[Verifier], users: list[str | None]) -> int:
    """Return after how many rotations the session is as *answer* says."""
    assert isinstance(answer, Record)
    step = verifiers.index(answer.verifier)
    assert answer.user == users[step]
    return step


async def _read_during(
    store: Announcing, credentials: list[Credential], work: Coroutine[Any, Any, None]
) -> list[list[Record | Absent]]:
    """Return what readers, started at different moments, are told by `states` while *work* runs.

    The last answer of each was asked for after it.
    """
    is_done = asyncio.Event()

    async def read(turns: int) -> list[Record | Absent]:
        for _ in range(turns):
            await asyncio.sleep(0)
        answers: list[Record | Absent] = []
        is_last = False
        while not is_last:
            is_last = is_done.is_set()
            answers += (await store.states(credentials, now_ms=NOW)).values()
            await asyncio.sleep(0)
        return answers

    readers = [asyncio.create_task(read(turns)) for turns in range(READERS)]
    try:
        await work
    finally:
        is_done.set()
    return await asyncio.gather(*readers)

"""Tests with several instances of a store, as other processes open them, and with other prefixes."""

from __future__ import annotations

import asyncio

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    ENDED,
    HOUR,
    NOW,
    UNKNOWN,
    created,
    handles,
    living,
    loaded,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.conformance.opening import Loop, OpenAgain, OpenedContract
from stormcellar.stores.records import Credential, Delta, Outcome


class InstancesContract(OpenedContract):
    """What `Store.shared` and the prefix of `StoreOptions` promise."""

    @pytest.fixture
    def second(self, store: Store, open_again: OpenAgain, contract_prefix: str) -> Store:
        """Return another instance on the same sessions; without any, skip the test."""
        if not store.shared:
            pytest.skip("this store is not shared between processes")
        return open_again(contract_prefix)

    @pytest.fixture
    def stranger(self, store: Store, open_again: OpenAgain, contract_prefix: str) -> Store:
        """Return an instance with another prefix, of which the first one is a part."""
        return open_again(f"{contract_prefix}x")

    async def test_a_second_instance_sees_every_change(self, store: Store, second: Store) -> None:
        """What one instance did is what the other one reads, at once."""
        user = new_user()
        record = await created(store, user=user)

        assert await loaded(second, record.credential) == record
        assert handles(await second.of_user(user, now_ms=NOW)) == [record.handle]
        put = Delta(put={"a": b"2"})
        assert await second.apply(record.credential, put, now_ms=NOW, expires_ms=None) is Outcome.APPLIED
        assert (await loaded(store, record.credential)).data["a"] == b"2"
        new = Credential(record.handle, new_verifier())
        assert await rotated(second, record.credential, new.verifier, user=user) is Outcome.APPLIED
        assert await living(store, [record.credential, new]) == {new}
        assert await second.destroy(record.handle, now_ms=NOW)
        assert await store.load(new, now_ms=NOW) == ENDED
        assert await store.of_user(user, now_ms=NOW) == []

    async def test_writers_on_two_instances_lose_nothing(self, store: Store, second: Store) -> None:
        """Parallel writes to different keys of one session all survive."""
        record = await created(store, data={})
        writes = {f"key{number}": b"%d" % number for number in range(40)}

        outcomes = await asyncio.gather(
            *(
                each.apply(record.credential, Delta(put={key: value}), now_ms=NOW, expires_ms=NOW + HOUR)
                for each, (key, value) in zip([store, second] * 20, writes.items(), strict=True)
            )
        )

        assert set(outcomes) == {Outcome.APPLIED}
        assert (await loaded(store, record.credential)).data == writes

    async def test_one_rotation_wins_among_instances(self, store: Store, second: Store) -> None:
        """Of parallel rotations of one session exactly one is done, and its verifier is the live one."""
        for _ in range(10):
            record = await created(store)
            new = [Credential(record.handle, new_verifier()) for _ in range(8)]
            outcomes = await asyncio.gather(
                *(
                    rotated(each, record.credential, credential.verifier)
                    for each, credential in zip([store, second] * 4, new, strict=True)
                )
            )

            won = [each for each, outcome in zip(new, outcomes, strict=True) if outcome is Outcome.APPLIED]
            assert len(won) == 1
            assert await living(second, [record.credential, *new]) == set(won)

    async def test_an_end_on_one_instance_wins_over_writes_on_another(
        self, store: Store, second: Store
    ) -> None:
        """A session that one instance destroys is never written again by the other."""
        for number in range(20):
            record = await created(store)
            put = Delta(put={"late": b"1"})
            _, outcome = await asyncio.gather(
                store.destroy(record.handle, now_ms=NOW),
                second.apply(record.credential, put, now_ms=NOW, expires_ms=NOW + HOUR),
            )

            assert outcome in (Outcome.APPLIED, Outcome.GONE), number
            assert await second.load(record.credential, now_ms=NOW) == ENDED
            again = await store.apply(record.credential, put, now_ms=NOW, expires_ms=NOW + HOUR)
            assert again is Outcome.GONE

    def test_sessions_outlive_the_instance(
        self, store: Store, io_loop: Loop, open_again: OpenAgain, contract_prefix: str
    ) -> None:
        """An instance that is opened after the first one was closed has its sessions."""
        if not store.shared:
            pytest.skip("this store is not shared between processes")
        record = io_loop.run_sync(lambda: created(store))
        io_loop.run_sync(store.aclose)

        later = open_again(contract_prefix)

        assert io_loop.run_sync(lambda: loaded(later, record.credential)) == record

    async def test_another_prefix_is_another_store(self, store: Store, stranger: Store) -> None:
        """No operation under another prefix finds, lists, changes or ends a session, or a user's sessions."""
        user = new_user()
        record = await created(store, user=user)
        put = Delta(put={"a": b"2"})

        assert await stranger.load(record.credential, now_ms=NOW) == UNKNOWN
        assert await stranger.find(record.handle, now_ms=NOW) is None
        assert await stranger.of_user(user, now_ms=NOW) == []
        assert record.handle not in await scanned(stranger)
        assert await stranger.apply(record.credential, put, now_ms=NOW, expires_ms=None) is Outcome.GONE
        assert await rotated(stranger, record.credential, new_verifier()) is Outcome.GONE
        assert not await stranger.destroy(record.handle, now_ms=NOW)
        await stranger.create(record)
        assert await store.destroy(record.handle, now_ms=NOW)

        assert await loaded(stranger, record.credential) == record
        assert await store.load(record.credential, now_ms=NOW) == ENDED
        assert record.handle not in await scanned(store)

"""Tests of `scan`: every live session, and no other."""

from __future__ import annotations

import asyncio

import pytest

from stormcellar.stores.base import Scannable, Store
from stormcellar.stores.conformance.cases import (
    MINUTE,
    NOW,
    created,
    created_many,
    handles,
    loaded,
    new_record,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.records import Credential, Handle, Record


class ScannableContract:
    """Tests for a store that is `Scannable`."""

    @pytest.fixture
    def scannable(self, store: Store) -> Scannable:
        """Return the store, or skip the test if it is not `Scannable`."""
        if not isinstance(store, Scannable):
            pytest.skip("this store is not Scannable")
        return store

    async def test_scan_yields_every_live_record_whole(self, scannable: Scannable) -> None:
        """It yields five hundred live records with data and current verifier, and no ended or expired one."""
        records = [new_record(user=f"scanned {number % 7}") for number in range(500)]
        await created_many(scannable, records)
        turned = Credential(records[0].handle, new_verifier())
        await rotated(scannable, records[0].credential, turned.verifier, grace_ms=MINUTE)
        expected = {turned.handle: await loaded(scannable, turned)}
        expected |= {record.handle: record for record in records[1:450]}
        await asyncio.gather(*(scannable.destroy(record.handle, now_ms=NOW) for record in records[450:]))
        expired = await created(scannable, expires_ms=NOW - 10 * MINUTE)

        found = await scanned(scannable)

        mine = {expired.handle, *handles(records)}
        assert {handle: record for handle, record in found.items() if handle in mine} == expected
        await asyncio.gather(*(scannable.destroy(record.handle, now_ms=NOW) for record in records[:450]))

    async def test_scan_survives_changes_under_way(self, scannable: Scannable) -> None:
        """A scan yields every session that exists throughout, while others are created and destroyed."""
        staying = [new_record() for _ in range(150)]
        leaving = [new_record() for _ in range(150)]
        await created_many(scannable, [each for pair in zip(staying, leaving, strict=True) for each in pair])
        found: set[Handle] = set()

        async for record in scannable.scan(now_ms=NOW):
            found.add(record.handle)
            if leaving:
                await scannable.destroy(leaving.pop().handle, now_ms=NOW)
                await scannable.destroy((await created(scannable)).handle, now_ms=NOW)

        assert set(handles(staying)) <= found
        await asyncio.gather(
            *(scannable.destroy(record.handle, now_ms=NOW) for record in (*staying, *leaving))
        )

    async def test_scan_may_be_left_early(self, scannable: Scannable) -> None:
        """After a caller stops at the first record, the store still works."""
        records: list[Record] = [await created(scannable) for _ in range(3)]
        scan = scannable.scan(now_ms=NOW)

        async for _ in scan:
            break
        if aclose := getattr(scan, "aclose", None):
            await aclose()

        assert [await loaded(scannable, record.credential) for record in records] == records

"""How long after the election of a new primary a store is served again.

python -m tests.stores.mongo.failover --runs 5 --election-timeout 10
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from contextlib import suppress
from typing import NamedTuple

from stormcellar.stores import Credential, Record, StoreOptions, StoreUnavailable
from stormcellar.stores.conformance.cases import NOW, created
from stormcellar.stores.mongo import MongoStore
from tests.support.replica_set import ReplicaSet

ELECTION_S = 60.0
# How often a caller comes.
EVERY_S = 0.05


class Failover(NamedTuple):
    """What a primary that hangs costs, in seconds after it stopped."""

    elected: float
    served: float

    @property
    def late(self) -> float:
        """How long after the election a call was answered."""
        return self.served - self.elected


async def fail_over(replicas: ReplicaSet) -> Failover:
    """Stop the primary while callers of a store come; continue it at the end."""
    store = MongoStore.from_url(replicas.url, StoreOptions(secrets.token_hex(6)))
    try:
        record = await _created(store)
        primary = await asyncio.to_thread(replicas.primary)
        begun = time.monotonic()
        primary.pause()
        served = asyncio.ensure_future(_served(store, record.credential))
        await asyncio.to_thread(lambda: replicas.primary(but=primary))
        elected = time.monotonic() - begun
        return Failover(elected, await served - begun)
    finally:
        for member in replicas.members:
            member.resume()
        await store.aclose()


async def _created(store: MongoStore) -> Record:
    """Insert a record as soon as the set takes one: a new one has its majority after a while."""
    async with asyncio.timeout(ELECTION_S):
        while True:
            with suppress(StoreUnavailable):
                return await created(store)


async def _served(store: MongoStore, credential: Credential) -> float:
    """Return when a call was answered first; a caller comes every `EVERY_S`."""
    calls: set[asyncio.Task[float]] = set()

    async def call() -> float:
        await store.load(credential, now_ms=NOW)
        return time.monotonic()

    while True:
        calls.add(asyncio.ensure_future(call()))
        done, calls = await asyncio.wait(calls, timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                await asyncio.gather(*calls, return_exceptions=True)
                return task.result()
            assert isinstance(task.exception(), StoreUnavailable)


def main() -> int:
    """Measure some failovers, each with a new store."""
    parser = argparse.ArgumentParser(prog="python -m tests.stores.mongo.failover", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--election-timeout", type=float, default=10.0, metavar="SECONDS")
    arguments = parser.parse_args()
    with ReplicaSet(election_timeout_s=arguments.election_timeout) as replicas:
        for _ in range(arguments.runs):
            found = asyncio.run(fail_over(replicas))
            print(f"elected after {found.elected:.2f} s, served {found.late:.2f} s after that", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

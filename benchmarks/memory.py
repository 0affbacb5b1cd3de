"""Measure memory and time of the memory store with a million sessions: `python -m benchmarks.memory`.

Fills a store as half an hour of traffic would, loads sessions in random order, and lets all of them expire at
once. Times are CPU time including the `await`; the longest time is that of a single call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import multiprocessing
import random
import resource
import statistics
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from stormcellar.stores import Credential, Delta, Handle, Record, Rotation, Verifier
from stormcellar.stores.memory import MemoryStore

NOW, IDLE, DEADLINE = 1_800_000_000_000, 1_800_000, 43_200_000
END = NOW + IDLE
DATA = {"name": b'"somebody"', "pad": b'"%s"' % (b"x" * 281)}
"""300 bytes of keys and values."""
FEW, CALLS, ROUNDS = 1000, 20_000, 5

Figures = dict[str, float]
"""Measured values by name, which contains the unit."""


def main() -> None:
    """Measure a store of anonymous sessions, and a store in which each session has a different user."""
    sessions = _options().sessions
    kinds = {"anonymous": figures(sessions), "one user each": figures(sessions, signed_in=True)}
    print(f"{sessions} sessions with 300 bytes of data\n{'':34}" + "".join(f"{kind:>14}" for kind in kinds))
    for name in kinds["anonymous"]:
        print(f"{name:34}" + "".join(f"{measured[name]:14.2f}" for measured in kinds.values()))


def figures(sessions: int = 1_000_000, *, signed_in: bool = False) -> Figures:
    """Return the figures of a store with *sessions* sessions, measured in a separate process."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(_figures, (sessions, signed_in))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="default: 1000000")
    return parser.parse_args()


def _figures(sessions: int, signed_in: bool) -> Figures:
    return asyncio.run(_measure(sessions, signed_in))


async def _measure(sessions: int, signed_in: bool) -> Figures:
    few = MemoryStore(max_sessions=FEW)
    await _fill(few, FEW, signed_in)
    gc.collect()
    store, before = MemoryStore(max_sessions=sessions), _rss_bytes()
    create_us, create_ms = await _fill(store, sessions, signed_in)
    rss = (_rss_bytes() - before) / sessions
    # Alternately, so that other work on the machine affects both.
    loads = [(await _load_us(few, FEW), await _load_us(store, sessions)) for _ in range(ROUNDS)]
    few_us, load_us = (statistics.median(each) for each in zip(*loads, strict=True))
    return {
        "RSS a session, bytes": rss,
        "full garbage collection, ms": _collection_ms(),
        "create, us": create_us,
        "longest create, ms": create_ms,
        "load, us": load_us,
        f"rate of load against {FEW} sessions": few_us / load_us,
        **await _writes_us(store, sessions),
        **await _expiry(store),
    }


async def _fill(store: MemoryStore, sessions: int, signed_in: bool) -> tuple[float, float]:
    """Create the sessions over one idle time; return the mean in µs and the longest in ms."""
    spent, longest = 0, 0
    for number in range(sessions):
        record = _record(number, NOW + IDLE * number // sessions, signed_in)
        began = time.thread_time_ns()
        await store.create(record)
        took = time.thread_time_ns() - began
        spent, longest = spent + took, max(longest, took)
    return spent / sessions / 1e3, longest / 1e6


def _record(number: int, now_ms: int, signed_in: bool) -> Record:
    return Record(
        *_credential(number),
        user=f"user{number}" if signed_in else None,
        created_ms=now_ms,
        rotated_ms=now_ms,
        auth_ms=now_ms if signed_in else None,
        seen_ms=now_ms,
        expires_ms=now_ms + IDLE,
        deadline_ms=now_ms + DEADLINE,
        data=dict(DATA),
    )


def _credential(number: int) -> Credential:
    """Return the credential of a session; a new object each time, so that only the store keeps one."""
    digest = hashlib.sha512(b"%d" % number).digest()
    return Credential(Handle(_text(digest[:16])), Verifier(_text(digest[32:])))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _collection_ms() -> float:
    """Return the time of a full garbage collection, the shortest of a few."""
    return min(_timed_ms(gc.collect) for _ in range(ROUNDS))


def _timed_ms(call: Callable[[], object]) -> float:
    began = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began) / 1e6


async def _load_us(store: MemoryStore, sessions: int) -> float:
    credentials = [_credential(random.randrange(sessions)) for _ in range(CALLS)]
    return await _mean_us(store.load(each, now_ms=END - 1) for each in credentials)


async def _writes_us(store: MemoryStore, sessions: int) -> Figures:
    """Return the time of each kind of write; no session is written twice."""
    count = min(CALLS, sessions // 4)
    chosen = iter(random.sample(range(sessions), 4 * count))
    touched, written, rotated, destroyed = (
        [_credential(next(chosen)) for _ in range(count)] for _ in range(4)
    )
    times = {"now_ms": END - 1, "expires_ms": END + IDLE - 1}
    nothing, write = Delta(), Delta(put={"name": b'"somebody else"'})
    sign_in = Rotation(
        new_verifier=_credential(0).verifier,
        rotated_ms=END - 1,
        user="somebody",
        auth_ms=END,
        client=b"",
        expires_ms=END + IDLE - 1,
        deadline_ms=END + DEADLINE,
        keep=None,
    )
    return {
        "touch, us": await _mean_us(store.apply(each, nothing, **times) for each in touched),
        "apply, us": await _mean_us(store.apply(each, write, **times) for each in written),
        "rotate, us": await _mean_us(store.rotate(each, sign_in, now_ms=END - 1) for each in rotated),
        "destroy, us": await _mean_us(store.destroy(each.handle, now_ms=END - 1) for each in destroyed),
    }


async def _expiry(store: MemoryStore) -> Figures:
    """Return the two longest calls while the store removes its expired sessions, until it is empty.

    The longest is usually the last, in which glibc returns the heap in one step. The second is the store's
    own.
    """
    unknown, longest = _credential(-1), [0, 0]
    gc.disable()  # its pauses are measured above
    while len(store):
        began = time.thread_time_ns()
        await store.load(unknown, now_ms=END + DEADLINE)
        longest = sorted([*longest, time.thread_time_ns() - began])[1:]
    gc.enable()
    return {
        "longest pause by expiry, ms": longest[1] / 1e6,
        "second longest, ms": longest[0] / 1e6,
    }


async def _mean_us(calls: Iterable[Coroutine[Any, Any, object]]) -> float:
    """Return the mean CPU time per call in µs, including the creation of the coroutine."""
    count, began = 0, time.process_time()
    for call in calls:
        await call
        count += 1
    return (time.process_time() - began) / count * 1e6


if __name__ == "__main__":
    main()

"""What one call of a store costs: `python -m benchmarks.store_calls --store redis`.

Microseconds of CPU time in this process a call, and of the clock to half of the calls, for one task and for
many in step. The database is another process; what it takes is in the second figure only.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from benchmarks.harness.databases import STORES, backend
from stormcellar.stores import Absent, Credential, Delta, Outcome, Rotation, Store, open_store
from stormcellar.stores.conformance.cases import NOW, new_record, new_verifier

DATA = {"name": b'"somebody"', "pad": b'"' + b"x" * 270 + b'"'}
ROUNDS = 5

Call = Callable[["Session"], Awaitable[None]]


class Figures(NamedTuple):
    """Microseconds a call."""

    cpu_us: float
    p50_us: float


class Session:
    """One that exists, with the credential it has by now."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.record = new_record(data=DATA)
        self.credential = self.record.credential
        self._expires_ms = self.record.expires_ms

    async def load(self) -> None:
        """Read it."""
        _require(not isinstance(await self.store.load(self.credential, now_ms=NOW), Absent))

    async def apply(self) -> None:
        """Put one key, and move the expiry."""
        self._expires_ms += 1
        delta = Delta(put={"name": b'"another"'})
        outcome = await self.store.apply(self.credential, delta, now_ms=NOW, expires_ms=self._expires_ms)
        _require(outcome is Outcome.APPLIED)

    async def rotate(self, user: str | None = None) -> None:
        """Replace its verifier, and bind it to *user*."""
        verifier = new_verifier()
        outcome = await self.store.rotate(
            self.credential,
            Rotation(
                new_verifier=verifier,
                user=user,
                auth_ms=NOW if user else None,
                client=b"{}",
                expires_ms=self.record.expires_ms,
                deadline_ms=self.record.deadline_ms,
                keep=frozenset(DATA),
            ),
            now_ms=NOW,
        )
        _require(outcome is Outcome.APPLIED)
        self.credential = Credential(self.record.handle, verifier)

    async def sign_in(self) -> None:
        """Begin anew, anonymous, and bind that."""
        self.record = new_record(data=DATA)
        await self.store.create(self.record)
        self.credential = self.record.credential
        await self.rotate("somebody")


CALLS: dict[str, Call] = {
    "load": Session.load,
    "apply": Session.apply,
    "rotate": Session.rotate,
    "create and sign in": Session.sign_in,
}


def main() -> None:
    """Measure each store, and print a table."""
    options = _options()
    print(f"{'store':10}{'call':20}{'tasks':>8}{'CPU us':>10}{'p50 us':>10}")
    for store in options.store:
        with backend(store) as url:
            for (name, tasks), figures in _run(_measure(url, options)).items():
                print(f"{store:10}{name:20}{tasks:8}{figures.cpu_us:10.1f}{figures.p50_us:10.1f}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.store_calls", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=STORES, default=["memory"], help="default: memory")
    parser.add_argument("--tasks", nargs="+", type=int, default=[1, 32], help="at once (default: 1 and 32)")
    parser.add_argument("--calls", type=int, default=500, help="of each kind in a round (default: 500)")
    return parser.parse_args()


def _run(work: Coroutine[Any, Any, dict[tuple[str, int], Figures]]) -> dict[tuple[str, int], Figures]:
    """Run *work* on the loop that the server uses."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def _measure(url: str, options: argparse.Namespace) -> dict[tuple[str, int], Figures]:
    store = open_store(url, prefix="clients", timeout_s=10)
    rounds: dict[tuple[str, int], list[Figures]] = {}
    try:
        await store.ping()
        sessions = [Session(store) for _ in range(max(options.tasks))]
        await asyncio.gather(*(store.create(session.record) for session in sessions))
        # In turns, so that what else the machine does falls on all of them; the first round warms up.
        for number in range(ROUNDS + 1):
            for name, call in CALLS.items():
                for tasks in options.tasks:
                    figures = await _round(call, sessions[:tasks], options.calls)
                    rounds.setdefault((name, tasks), []).extend([figures] if number else [])
    finally:
        await store.aclose()
    return {kind: Figures(*map(statistics.median, zip(*each, strict=True))) for kind, each in rounds.items()}


async def _round(call: Call, sessions: list[Session], calls: int) -> Figures:
    took_s: list[float] = []

    async def work(session: Session) -> None:
        while len(took_s) < calls:
            began = time.perf_counter()
            await call(session)
            took_s.append(time.perf_counter() - began)

    began = time.process_time()
    await asyncio.gather(*map(work, sessions))
    return Figures(1e6 * (time.process_time() - began) / len(took_s), 1e6 * statistics.median(took_s))


def _require(is_right: bool) -> None:
    if not is_right:
        raise SystemExit("the store gave a wrong answer, so no figure counts")


if __name__ == "__main__":
    main()

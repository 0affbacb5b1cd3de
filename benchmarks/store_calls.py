"""Measure the cost of one store call: `python -m benchmarks.store_calls --store redis`.

Prints the CPU time of this process per call and the median duration of a call, in microseconds, for one task
and for many concurrent tasks. The database is another process: only the duration includes its time.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks.harness.databases import AND_SQLITE, backend
from benchmarks.harness.loop import run
from stormcellar.stores import Absent, Credential, Delta, Outcome, Rotation, Store, open_store
from stormcellar.stores.conformance.cases import NOW, new_record, new_verifier

DATA = {"name": b'"somebody"', "pad": b'"' + b"x" * 270 + b'"'}
ROUNDS = 5

Call = Callable[["Session"], Awaitable[None]]


class Figures(NamedTuple):
    """Microseconds per call."""

    cpu_us: float
    p50_us: float


class Session:
    """An existing session with its current credential."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.record = new_record(data=DATA)
        self.credential = self.record.credential
        self._expires_ms = self.record.expires_ms

    async def load(self) -> None:
        """Load the record."""
        _require(not isinstance(await self.store.load(self.credential, now_ms=NOW), Absent))

    async def apply(self) -> None:
        """Put one key and move the expiry."""
        self._expires_ms += 1
        delta = Delta(put={"name": b'"another"'})
        outcome = await self.store.apply(self.credential, delta, now_ms=NOW, expires_ms=self._expires_ms)
        _require(outcome is Outcome.APPLIED)

    async def rotate(self, user: str | None = None) -> None:
        """Replace the verifier and bind the session to *user*."""
        verifier = new_verifier()
        outcome = await self.store.rotate(
            self.credential,
            Rotation(
                new_verifier=verifier,
                rotated_ms=NOW,
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
        """Create an anonymous session and bind it to a user."""
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
    """Measure each store and print a table."""
    options = _options()
    print(f"{'store':10}{'call':20}{'tasks':>8}{'CPU us':>10}{'p50 us':>10}")
    for store in options.store:
        with backend(store) as url:
            for (name, tasks), figures in run(_measure(url, options)).items():
                print(f"{store:10}{name:20}{tasks:8}{figures.cpu_us:10.1f}{figures.p50_us:10.1f}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.store_calls", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=AND_SQLITE, default=["memory"], help="default: memory")
    parser.add_argument(
        "--tasks", nargs="+", type=int, default=[1, 32], help="concurrent (default: 1 and 32)"
    )
    parser.add_argument("--calls", type=int, default=500, help="per kind and round (default: 500)")
    return parser.parse_args()


async def _measure(url: str, options: argparse.Namespace) -> dict[tuple[str, int], Figures]:
    store = open_store(url, prefix="clients", timeout_s=10)
    rounds: dict[tuple[str, int], list[Figures]] = {}
    try:
        await store.ping()
        sessions = [Session(store) for _ in range(max(options.tasks))]
        await asyncio.gather(*(store.create(session.record) for session in sessions))
        # Alternately, so that other work on the machine affects all of them; the first round is a warm-up.
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
        raise SystemExit("a store call returned a wrong result, so the figures are not valid")


if __name__ == "__main__":
    main()

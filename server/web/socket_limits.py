"""How many sockets and streams a session and an address may have, and how many messages a socket may send."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tornado.web import HTTPError

from stormcellar.networks import networks_of
from stormcellar.web.session_handler import SessionHandler


class TooMany(Exception):
    """A limit is reached; the message names it."""


class OpenCounts:
    """How many sockets and streams of this process each session and each address has."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def add(self, limits: dict[str, int]) -> None:
        """Count one more for each key of *limits*.

        Raises:
            TooMany: A key has as many as its limit; nothing was counted.
        """
        for key, limit in limits.items():
            if self._open[key] >= limit:
                raise TooMany(f"{limit} are open for this {key.partition(' ')[0]}")
        self._open.update(limits.keys())

    def remove(self, keys: Iterable[str]) -> None:
        """Count one less for each of *keys*."""
        for key in keys:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]


COUNTS = "stormcellar_open_counts"
"""The application setting that holds the `OpenCounts`."""


@contextmanager
def counted(handler: SessionHandler, *, per_session: int, per_address: int) -> Iterator[None]:
    """Count one more socket or stream of the session and the address of *handler* while the block runs.

    Raises:
        HTTPError: 429: one of them has too many; 503: the server stops.
    """
    if handler.sessions.watch.is_closed:
        raise HTTPError(503, "a socket or a stream was refused: the server stops")
    counts: OpenCounts = handler.settings.setdefault(COUNTS, OpenCounts())
    limits = _limits(
        handler.session.handle, handler.client_address(), per_session=per_session, per_address=per_address
    )
    try:
        counts.add(limits)
    except TooMany as exc:
        raise HTTPError(429, "a socket or a stream was refused: %s", exc) from None
    try:
        yield
    finally:
        counts.remove(limits)


def _limits(handle: str | None, address: str, *, per_session: int, per_address: int) -> dict[str, int]:
    """Return the limits for a socket of this session at this address; an IPv6 address counts by its /64."""
    limits = {} if handle is None else {f"session {handle}": per_session}
    networks = networks_of(address)[:1] if address else ()
    return {**limits, **{f"address {each.name}": per_address for each in networks}}


class Bucket:
    """Allows *per_s* messages a second, and twice as many at once after a pause, at least one.

    Args:
        clock: Seconds that only go forward.
    """

    __slots__ = ("_at_s", "_clock", "_left", "_most", "_per_s")

    def __init__(self, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._most = max(1.0, 2 * per_s)
        self._left = self._most
        self._at_s = clock()

    def take(self) -> bool:
        """Take one; return False if none is left."""
        now_s = self._clock()
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

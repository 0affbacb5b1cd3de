"""The server processes as their client sees them: sessions, their sockets, and what became of those."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count, islice, zip_longest
from typing import Any, Self

from benchmarks.sockets.client import Requests, WebSocket, open_sockets


@dataclass(frozen=True, slots=True)
class Open:
    """A session and its socket."""

    user: str
    handle: str
    over_ms: int
    """When it expires, in Unix time."""
    cookie: str
    socket: WebSocket


@dataclass(frozen=True, slots=True)
class Pace:
    """How many sockets are open, and how many sessions end how fast."""

    sockets: int
    ends: int
    per_s: float
    patience_s: float
    """How long after the last end a socket may be open before it counts as lost."""


@dataclass(slots=True)
class Outcome:
    """What was measured of one way to end a session. Times in seconds."""

    from_answer_s: list[float] = field(default_factory=list)
    from_request_s: list[float] = field(default_factory=list)
    """Empty if no request ends the session."""
    bare_s: list[float] = field(default_factory=list)
    """Requests without a session, one before each end."""
    ended: int = 0
    lost: int = 0
    """Sockets that stayed open, or were closed with another code."""
    wrong: int = 0
    """Sockets of live sessions that were closed."""
    after_all_s: float | None = None
    """From the last answer to the last close frame."""

    def add(self, other: Self) -> None:
        """Count another round."""
        self.from_answer_s += other.from_answer_s
        self.from_request_s += other.from_request_s
        self.bare_s += other.bare_s
        self.ended += other.ended
        self.lost += other.lost
        self.wrong += other.wrong
        times_s = [each for each in (self.after_all_s, other.after_all_s) if each is not None]
        self.after_all_s = max(times_s, default=None)


class Site:
    """The server processes as their client sees them.

    Args:
        users: Who signs in, in turn.
    """

    def __init__(self, requests: Sequence[Requests], users: Callable[[int], str]) -> None:
        self.requests = requests
        self._users = users
        self._numbers = count()
        self.open: list[Open] = []

    @classmethod
    async def connect(
        cls, stack: AsyncExitStack, ports: Sequence[int], users: Callable[[int], str] = "user{}".format
    ) -> Self:
        """Connect to each of *ports*; *stack* closes the connections and the sockets."""
        site = cls([await Requests.connect(port) for port in ports], users)
        stack.callback(site.close)
        return site

    def close(self) -> None:
        """Close every connection."""
        for each in self.open:
            each.socket.abort()
        for requests in self.requests:
            requests.close()

    async def start(self, requests: Requests, user: str, query: str = "") -> tuple[dict[str, Any], str]:
        """Sign *user* in; return the times of the session, and its cookie."""
        answer = await requests.get(f"/start?user={user}{query}")
        return json.loads(answer.body), answer.cookie

    async def fill(self, wanted: int, *, user: str | None = None, query: str = "") -> list[Open]:
        """Open sockets until there are *wanted*, in turn on each process; return the new ones."""
        missing = max(0, wanted - len(self.open))
        shares = [len(range(number, missing, len(self.requests))) for number in range(len(self.requests))]
        opened = await asyncio.gather(
            *(self._open(*each, user, query) for each in zip(self.requests, shares, strict=True))
        )
        new = [each for turn in zip_longest(*opened) for each in turn if each is not None]
        self.open += new
        return new

    async def _open(self, requests: Requests, missing: int, user: str | None, query: str) -> list[Open]:
        started = []
        for number in islice(self._numbers, missing):
            name = user or self._users(number)
            started.append((name, *await self.start(requests, name, query)))
        sockets = await open_sockets(requests.port, "/socket", [cookie for *_, cookie in started])
        return [
            Open(name, times["handle"], times["over_ms"], cookie, socket)
            for (name, times, cookie), socket in zip(started, sockets, strict=True)
        ]

    def take(self, wanted: int) -> list[Open]:
        """Remove the oldest ones, whose sessions are about to end."""
        taken, self.open = self.open[:wanted], self.open[wanted:]
        return taken

    async def judge(self, ended: Sequence[Open], outcome: Outcome, *, code: int, patience_s: float) -> None:
        """Wait for the close frames of *ended*, and count what is wrong."""
        await asyncio.wait([each.socket.ended for each in ended], timeout=patience_s)
        outcome.ended += len(ended)
        outcome.lost += sum(each.socket.closed_s is None or each.socket.code != code for each in ended)
        outcome.wrong += sum(each.socket.closed_s is not None for each in self.open)
        for each in ended:
            each.socket.abort()
        self.open = [each for each in self.open if each.socket.closed_s is None]

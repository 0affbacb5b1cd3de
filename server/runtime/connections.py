"""`Connections`: the open ones of a process, what each does since when, and which is closed for a new one."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

log = logging.getLogger("stormcellar.connections")

RESERVED_DESCRIPTORS = 128
"""For the connections of the store, for files, logs, and the loop itself. Drivers open 100 at most."""

MOST_BY_DEFAULT = 10_000
"""An idle connection takes some 10 KiB, so these take 100 MiB."""


def descriptor_limit() -> int:
    """Return how many file descriptors this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def possible_connections() -> int:
    """Return how many connections the limit of descriptors leaves room for."""
    limit = descriptor_limit()
    return max(limit - RESERVED_DESCRIPTORS, limit // 2)


class Phase(IntEnum):
    """What a connection does. If there are too many, one that waits is closed first."""

    WAITING = 0
    """For the head of a request."""
    RECEIVING = 1
    """The body of a request."""
    ANSWERING = 2
    """From the end of the body until the response is sent."""


MIN_AGE_S = {Phase.WAITING: 1.0, Phase.RECEIVING: 1.0, Phase.ANSWERING: 10.0}
"""A connection in a phase for less than this time is not closed for another one: it may be about to go on."""

LONGEST_ANSWER_S = 60.0
"""A connection that is ANSWERING for longer is closed if its client has not read all that was sent so far.
Otherwise it is a stream of events, and has this time again."""

RELIEF_AFTER_S = 5.0
"""A shortage is over when no connection was closed or refused for this time, so a flood writes few lines."""


@dataclass(frozen=True)
class ConnectionLimits:
    """The limits of one process."""

    most: int = MOST_BY_DEFAULT
    """Connections at once."""
    per_address: int = MOST_BY_DEFAULT
    """Connections of one address; of an IPv6 address by its /64."""
    body_bytes: int = 32 * 1024 * 1024
    """Bytes of request bodies in memory."""


class Connection:
    """One open connection.

    Args:
        close: Closes it at once. Its `Connections` no longer has it by then.
        is_writing: Whether something waits until the client reads.
        network: The address as it is counted; None: it is not counted.
    """

    __slots__ = ("body_bytes", "close", "is_writing", "network", "phase", "since_s")

    def __init__(
        self,
        close: Callable[[], object],
        is_writing: Callable[[], bool],
        network: str | None,
        since_s: float,
    ) -> None:
        self.close = close
        self.is_writing = is_writing
        self.network = network
        self.phase = Phase.WAITING
        self.since_s = since_s
        self.body_bytes = 0


class Connections:
    """The open connections of one process.

    At a limit, the connection that has waited longest is closed for a new one. So a flood of connections that
    do nothing displaces itself, and a client that sends its request at once is served.

    Args:
        clock: Seconds of a clock that never goes back.
    """

    def __init__(
        self, limits: ConnectionLimits = ConnectionLimits(), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self._clock = clock
        # In the order in which they entered the phase.
        self._phases: tuple[OrderedDict[Connection, None], ...] = tuple(OrderedDict() for _ in Phase)
        self._networks: dict[str, OrderedDict[Connection, None]] = {}
        self._body_bytes = 0
        self._is_short = False
        self._short_s = 0.0
        self._closed = 0
        self._idle: asyncio.Event | None = None

    def __len__(self) -> int:
        return sum(map(len, self._phases))

    # --- room for new connections ---

    def has_room(self) -> bool:
        """Whether one more may be accepted: below the limit, or in place of one that may be closed."""
        if len(self) < self.limits.most:
            return True
        self._report_shortage(f"{len(self)} connections are open, the limit of --max-connections")
        return self._longest_waiting() is not None

    def run_out(self, reason: str) -> bool:
        """Whether one was closed because the system refuses another connection, for *reason*."""
        self._report_shortage(f"cannot accept a connection: {reason}")
        return self._close_one()

    def add(
        self, close: Callable[[], object], is_writing: Callable[[], bool], network: str | None
    ) -> Connection | None:
        """Add a connection, in place of another one at a limit. See `Connection` for the arguments.

        Returns:
            None if its network has too many that may not be closed: then the caller closes this one.
        """
        if network is not None:
            siblings = self._networks.get(network, OrderedDict())
            if len(siblings) >= self.limits.per_address:
                self._report_shortage(
                    f"{network} has {len(siblings)} connections, the limit of --max-connections-per-address"
                )
                if not self._close_one_of(siblings):
                    return None
        if len(self) >= self.limits.most:
            self._close_one()
        connection = Connection(close, is_writing, network, self._clock())
        self._phases[Phase.WAITING][connection] = None
        if network is not None:
            self._networks.setdefault(network, OrderedDict())[connection] = None
        return connection

    def discard(self, connection: Connection) -> None:
        """Remove *connection*, if it is there: it was closed."""
        if connection not in self._phases[connection.phase]:
            return
        del self._phases[connection.phase][connection]
        self._body_bytes -= connection.body_bytes
        if connection.network is not None:
            siblings = self._networks[connection.network]
            del siblings[connection]
            if not siblings:
                del self._networks[connection.network]
        self._set_if_idle()

    def _longest_waiting(self) -> Connection | None:
        for phase, connections in zip(Phase, self._phases, strict=True):
            oldest = next(iter(connections), None)
            if oldest is not None and self._age_s(oldest) >= MIN_AGE_S[phase]:
                return oldest
        return None

    def _close_one(self) -> bool:
        oldest = self._longest_waiting()
        if oldest is not None:
            self._close(oldest)
        return oldest is not None

    def _close_one_of(self, siblings: OrderedDict[Connection, None]) -> bool:
        for phase in Phase:
            for each in siblings:
                if each.phase is phase and self._age_s(each) >= MIN_AGE_S[phase]:
                    self._close(each)
                    return True
        return False

    def _close(self, connection: Connection) -> None:
        self._closed += 1
        self.discard(connection)
        connection.close()

    def _age_s(self, connection: Connection) -> float:
        return self._clock() - connection.since_s

    # --- requests ---

    def enter(self, connection: Connection, phase: Phase) -> None:
        """Note that *connection* has entered *phase*. No effect if it was closed."""
        if connection not in self._phases[connection.phase]:
            return
        del self._phases[connection.phase][connection]
        connection.phase, connection.since_s = phase, self._clock()
        self._phases[phase][connection] = None
        if phase is Phase.WAITING:
            self._body_bytes -= connection.body_bytes
            connection.body_bytes = 0
            self._set_if_idle()

    def receive(self, connection: Connection, size: int) -> None:
        """Count *size* bytes of a body. Above the limit, close those that have been RECEIVING longest."""
        if connection not in self._phases[connection.phase]:
            return
        connection.body_bytes += size
        self._body_bytes += size
        receiving = self._phases[Phase.RECEIVING]
        while self._body_bytes > self.limits.body_bytes and receiving:
            self._report_shortage(f"request bodies take more than {self.limits.body_bytes >> 20} MiB")
            self._close(next(iter(receiving)))

    def sweep(self) -> None:
        """Close those whose client does not read, and report the end of a shortage. Call it every second."""
        answering = self._phases[Phase.ANSWERING]
        while (oldest := next(iter(answering), None)) and self._age_s(oldest) >= LONGEST_ANSWER_S:
            if oldest.is_writing():
                self._close(oldest)
            else:
                self.enter(oldest, Phase.ANSWERING)
        self._report_relief()

    async def wait_until_idle(self) -> None:
        """Wait until no connection has a request: all are WAITING."""
        self._idle = asyncio.Event()
        self._set_if_idle()
        await self._idle.wait()

    def _set_if_idle(self) -> None:
        if self._idle is not None and not any(self._phases[Phase.RECEIVING :]):
            self._idle.set()

    # --- one line when connections are short, one when they no longer are ---

    def _report_shortage(self, reason: str) -> None:
        self._short_s = self._clock()
        if not self._is_short:
            self._is_short, self._closed = True, 0
            log.warning("%s; the longest idle ones are closed, else new ones wait until one ends", reason)

    def _report_relief(self) -> None:
        if self._is_short and self._clock() - self._short_s >= RELIEF_AFTER_S:
            self._is_short = False
            log.warning("accepting all connections again; %d open, %d were closed", len(self), self._closed)

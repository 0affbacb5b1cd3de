"""Which connection is closed for another: counted, with a clock that is moved."""

from __future__ import annotations

import asyncio
import logging

import pytest

from stormcellar.runtime.connections import (
    LONGEST_ANSWER_S,
    RELIEF_AFTER_S,
    Connection,
    ConnectionLimits,
    Connections,
    Phase,
)
from tests.support.fakes import Clock

MIB = 1024 * 1024


class Opened:
    """The connections of a process, each with a name; `closed` has the names in order."""

    def __init__(self, most: int = 3, per_address: int = 100, body_bytes: int = MIB) -> None:
        self.clock = Clock()
        self.all = Connections(ConnectionLimits(most, per_address, body_bytes), clock=self.clock)
        self.closed: list[str] = []
        self.writing: set[str] = set()
        """The names of those whose client has not read everything."""

    def add(self, name: str, network: str | None = None) -> Connection | None:
        """Open a connection if there is room."""
        return self.all.add(lambda: self.closed.append(name), lambda: name in self.writing, network)

    def open(self, name: str, phase: Phase = Phase.WAITING, network: str | None = None) -> Connection:
        """Open a connection, which enters *phase*."""
        connection = self.add(name, network)
        assert connection is not None
        self.all.enter(connection, phase)
        return connection


def test_longest_idle_is_closed_for_a_new_one() -> None:  # H2
    """Not the one opened first: that one has had a request since."""
    it = Opened()
    first = it.open("first")
    it.clock.advance(1)
    it.open("second")
    it.open("third")
    it.clock.advance(1)
    it.all.enter(first, Phase.ANSWERING)
    it.all.enter(first, Phase.WAITING)

    assert it.all.has_room()
    it.open("new")
    assert (it.closed, len(it.all)) == (["second"], 3)


def test_those_with_a_request_go_last() -> None:  # H2
    """First who is idle, then who sends a body, then who does not read its response, each after a time."""
    it = Opened()
    it.open("answering", Phase.ANSWERING)
    it.open("receiving", Phase.RECEIVING)
    it.open("idle")

    rooms = []
    for seconds in (0.5, 0.5, 0.0, 8.5, 0.5):
        it.clock.advance(seconds)
        rooms.append(it.all.has_room())
        if rooms[-1]:
            it.open("new", Phase.ANSWERING)

    assert it.closed == ["idle", "receiving", "answering"]
    assert rooms == [False, True, True, False, True]


def test_one_address_displaces_its_own() -> None:  # H2
    """A limit of one address costs no other address anything, and what it cannot displace is refused."""
    it = Opened(most=100, per_address=2)
    it.open("other", network="b")
    it.clock.advance(5)
    it.open("busy", Phase.ANSWERING, "a")
    it.open("idle", network="a")

    too_early = it.add("early", "a")
    it.clock.advance(1)
    it.open("late", network="a")

    assert (too_early, it.closed) == (None, ["idle"])


def test_peers_that_are_proxies_have_no_limit_of_their_own() -> None:
    """A connection without a network is only counted in the total."""
    it = Opened(most=100, per_address=1)
    for number in range(50):
        it.open(str(number))

    assert (len(it.all), it.closed) == (50, [])


def test_bodies_in_memory_are_limited() -> None:  # H2
    """Who has been sending for the longest is closed; a body counts until its response is sent."""
    it = Opened(most=100)
    slow, done, quick = (it.open(name, Phase.RECEIVING) for name in ("slow", "done", "quick"))
    it.all.receive(slow, MIB // 2)
    it.all.receive(done, MIB // 2)
    it.all.enter(done, Phase.ANSWERING)

    it.all.receive(quick, 100)
    it.all.receive(slow, MIB)
    it.all.enter(done, Phase.WAITING)
    it.all.enter(done, Phase.RECEIVING)
    it.all.receive(done, MIB - 100)

    assert it.closed == ["slow"]


def test_client_that_does_not_read_is_closed() -> None:
    """A response that is not taken for a minute ends the connection, whatever room there is."""
    it = Opened()
    it.writing.add("stuck")
    it.open("stuck", Phase.ANSWERING)
    it.open("idle")
    it.clock.advance(LONGEST_ANSWER_S - 1)
    it.all.sweep()
    before = list(it.closed)
    it.clock.advance(1)
    it.all.sweep()

    assert (before, it.closed) == ([], ["stuck"])


def test_stream_whose_client_reads_stays_open() -> None:
    """It is answered for hours. Once its client no longer reads, it is closed within a minute."""
    it = Opened()
    it.open("stream", Phase.ANSWERING)
    for _ in range(3):
        it.clock.advance(LONGEST_ANSWER_S)
        it.all.sweep()
    before = list(it.closed)
    it.writing.add("stream")
    it.clock.advance(LONGEST_ANSWER_S)
    it.all.sweep()

    assert (before, it.closed) == ([], ["stream"])


def test_a_closed_connection_counts_no_longer() -> None:
    """What Tornado still says of it is ignored, so nothing is counted twice."""
    it = Opened(most=1, per_address=1)
    connection = it.open("old", Phase.RECEIVING, "a")
    it.clock.advance(5)
    it.open("new", network="b")

    it.all.receive(connection, MIB)
    it.all.enter(connection, Phase.ANSWERING)
    it.all.discard(connection)

    assert (it.closed, len(it.all)) == (["old"], 1)


def test_a_flood_writes_two_lines(caplog: pytest.LogCaptureFixture) -> None:  # H8
    """One when a limit is reached, one when it was not reached for a while."""
    it = Opened(most=1)
    it.open("0")
    with caplog.at_level(logging.WARNING, "stormcellar.connections"):
        for number in range(1000):
            it.clock.advance(1)
            assert it.all.has_room()
            it.all.sweep()
            it.open(str(number))
        it.clock.advance(RELIEF_AFTER_S)
        it.all.sweep()
        it.all.sweep()

    assert [record.getMessage() for record in caplog.records] == [
        "1 connections are open, the limit of --max-connections; the longest idle ones are closed, else new "
        "ones wait until one ends",
        "accepting all connections again; 1 open, 1000 were closed",
    ]


@pytest.mark.gen_test
async def test_waiting_for_requests_to_end() -> None:
    """Idle connections are not waited for, bodies that are still coming are."""
    it = Opened()
    it.open("idle")
    busy = it.open("busy", Phase.RECEIVING)
    waiting = asyncio.ensure_future(it.all.wait_until_idle())
    await asyncio.sleep(0)
    was_done = waiting.done()
    it.all.enter(busy, Phase.ANSWERING)
    it.all.discard(busy)

    await asyncio.wait_for(waiting, 1)
    assert not was_done

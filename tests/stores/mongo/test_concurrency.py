"""Few batches run at a time; later requests are collected meanwhile, and no batch blocks the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stormcellar.stores.mongo.concurrency import LimitedBatches

# A request waits half a percent of it for a running batch: 10 ms, or a minute.
SHORT_S, LONG_S = 2.0, 12_000.0


class Server:
    """Returns each request as its own result, each batch once its gate is open."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.ended: list[list[int]] = []
        self.gates: list[asyncio.Event] = []

    async def __call__(self, requests: Sequence[int]) -> Sequence[int]:
        """Return the requests once the gate of this batch is open."""
        self.sent.append(list(requests))
        self.gates.append(gate := asyncio.Event())
        try:
            await gate.wait()
        finally:
            self.ended.append(list(requests))
        return requests

    async def has_been_sent(self, count: int) -> None:
        """Return once there were *count* batches."""
        while len(self.sent) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def iterations() -> None:
    """Let whatever can happen by itself happen."""
    for _ in range(10):
        await asyncio.sleep(0)


async def result(batches: LimitedBatches[int, int], request: int) -> int:
    """Submit *request* and await the result, as a task of its own does."""
    return await batches.submit(request)


def test_requests_are_collected_while_enough_batches_run() -> None:
    """They are sent together as soon as one batch ends, up to the limit, each with its own result."""

    async def run() -> tuple[list[list[int]], list[int]]:
        server = Server()
        batches = LimitedBatches(server, max_size=3, max_running=2, timeout_s=LONG_S)
        asked = []
        for request in range(7):
            asked.append(asyncio.ensure_future(result(batches, request)))
            await iterations()
        before = list(server.sent)
        server.gates[1].set()
        await server.has_been_sent(3)
        await iterations()
        assert before == [[0], [1]]
        for number in (0, 2, 3):
            await server.has_been_sent(number + 1)
            server.gates[number].set()
        return server.sent, await asyncio.gather(*asked)

    sent, answers = asyncio.run(run())

    assert sent == [[0], [1], [2, 3, 4], [5, 6]]
    assert answers == list(range(7))


def test_a_batch_that_hangs_is_waited_for_once() -> None:
    """Other requests are sent after the longest wait, and later ones do not wait for the same batch again."""

    async def run() -> list[list[int]]:
        server = Server()
        batches = LimitedBatches(server, max_size=64, max_running=1, timeout_s=SHORT_S)
        hung = asyncio.ensure_future(result(batches, 0))
        await server.has_been_sent(1)
        second = asyncio.ensure_future(result(batches, 1))
        await server.has_been_sent(2)
        server.gates[1].set()
        await second
        third = asyncio.ensure_future(result(batches, 2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sent = list(server.sent)
        for gate in server.gates:
            gate.set()
        await asyncio.gather(hung, third)
        await batches.drain()
        return sent

    assert asyncio.run(run()) == [[0], [1], [2]]


def test_a_batch_goes_on_when_its_callers_are_cancelled() -> None:
    """Also when the last one is: the batch ends by itself, and the next requests are sent."""

    async def run() -> tuple[list[list[int]], list[list[int]], int]:
        server = Server()
        batches = LimitedBatches(server, max_size=64, max_running=1, timeout_s=LONG_S)
        callers = [asyncio.ensure_future(result(batches, request)) for request in range(2)]
        await server.has_been_sent(1)
        for caller in callers:
            caller.cancel()
        await iterations()
        before = list(server.ended)
        last = asyncio.ensure_future(result(batches, 2))
        await iterations()
        server.gates[0].set()
        await server.has_been_sent(2)
        server.gates[1].set()
        return before, server.sent, await last

    assert asyncio.run(run()) == ([], [[0, 1], [2]], 2)


def test_a_request_waits_until_its_time_is_over() -> None:
    """Its result is then a TimeoutError of its own, while the batch goes on to its end."""

    async def run() -> tuple[list[object], list[list[int]], list[list[int]]]:
        server = Server()
        batches = LimitedBatches(server, max_size=64, max_running=1, timeout_s=0.05)
        answers = await asyncio.gather(*(result(batches, request) for request in range(2)))
        before = list(server.ended)
        server.gates[0].set()
        await batches.drain()
        return answers, before, server.ended

    (one, two), before, ended = asyncio.run(run())

    assert isinstance(one, TimeoutError) and isinstance(two, TimeoutError) and one is not two
    assert (before, ended) == ([], [[0, 1]])


def test_no_request_waits_longer_for_the_many_before_it() -> None:
    """The longest wait is that of each request, not of each batch: then all of them are sent."""

    async def run() -> int:
        server = Server()
        batches = LimitedBatches(server, max_size=1, max_running=1, timeout_s=SHORT_S)
        asked = [asyncio.ensure_future(result(batches, request)) for request in range(1000)]
        await asyncio.wait_for(server.has_been_sent(1000), 5)
        for gate in server.gates:
            gate.set()
        return len(set(await asyncio.gather(*asked)))

    assert asyncio.run(run()) == 1000

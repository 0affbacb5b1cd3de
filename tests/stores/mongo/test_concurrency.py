"""Few batches are under way at a time; what is asked meanwhile gathers, and none holds the rest up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stormcellar.stores.mongo.concurrency import LimitedBatches


class Server:
    """Answers each question with itself, each batch once it is let."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.ended: list[list[int]] = []
        self.gates: list[asyncio.Event] = []

    async def __call__(self, questions: Sequence[int]) -> Sequence[int]:
        """Answer once the gate of this batch is open."""
        self.sent.append(list(questions))
        self.gates.append(gate := asyncio.Event())
        try:
            await gate.wait()
        finally:
            self.ended.append(list(questions))
        return questions

    async def has_been_sent(self, count: int) -> None:
        """Return once there were *count* batches."""
        while len(self.sent) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def turns_of_the_loop() -> None:
    """Let whatever can happen by itself happen."""
    for _ in range(10):
        await asyncio.sleep(0)


async def ask(batches: LimitedBatches[int, int], question: int) -> int:
    """Ask, as a task of its own does."""
    return await batches.submit(question)


def test_questions_gather_while_enough_is_under_way() -> None:
    """They leave together as soon as one batch is back, up to the bound, and are answered by no other."""

    async def run() -> tuple[list[list[int]], list[int]]:
        server = Server()
        batches = LimitedBatches(server, max_size=3, max_running=2, max_wait_s=60)
        asked = []
        for question in range(7):
            asked.append(asyncio.ensure_future(ask(batches, question)))
            await turns_of_the_loop()
        before = list(server.sent)
        server.gates[1].set()
        await server.has_been_sent(3)
        await turns_of_the_loop()
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
        batches = LimitedBatches(server, max_size=64, max_running=1, max_wait_s=0.01)
        hung = asyncio.ensure_future(ask(batches, 0))
        await server.has_been_sent(1)
        second = asyncio.ensure_future(ask(batches, 1))
        await server.has_been_sent(2)
        server.gates[1].set()
        await second
        third = asyncio.ensure_future(ask(batches, 2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sent = list(server.sent)
        hung.cancel()
        third.cancel()
        await asyncio.gather(hung, third, return_exceptions=True)
        await batches.drain()
        return sent

    assert asyncio.run(run()) == [[0], [1], [2]]


def test_a_batch_ends_when_its_last_asker_leaves() -> None:
    """While somebody waits it goes on; nobody's batch is cancelled, and gives up what it holds."""

    async def run() -> list[list[list[int]]]:
        server, ended = Server(), []
        batches = LimitedBatches(server, max_size=64, max_running=1, max_wait_s=60)
        askers = [asyncio.ensure_future(ask(batches, question)) for question in range(2)]
        await server.has_been_sent(1)
        for asker in askers:
            asker.cancel()
            await turns_of_the_loop()
            ended.append(list(server.ended))
        await batches.drain()
        return ended

    assert asyncio.run(run()) == [[], [[0, 1]]]


def test_nobody_waits_longer_for_the_many_before_them() -> None:
    """The longest wait is that of each request, not of each batch: then all of them are sent."""

    async def run() -> int:
        server = Server()
        batches = LimitedBatches(server, max_size=1, max_running=1, max_wait_s=0.01)
        asked = [asyncio.ensure_future(ask(batches, question)) for question in range(1000)]
        await asyncio.wait_for(server.has_been_sent(1000), 5)
        for gate in server.gates:
            gate.set()
        return len(set(await asyncio.gather(*asked)))

    assert asyncio.run(run()) == 1000

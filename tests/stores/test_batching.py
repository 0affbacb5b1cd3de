"""Requests of one iteration of the loop are sent together, and each caller gets its own result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

from stormcellar.stores.batching import Batches


class Echo:
    """Returns each request as its own result, once the gate is open."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, requests: Sequence[int]) -> list[int]:
        """Return the requests when the gate is open."""
        self.sent.append(list(requests))
        await self.gate.wait()
        return list(requests)


async def result(batches: Batches[int, int], request: int) -> int:
    """Submit *request* and await the result, as a task of its own does."""
    return await batches.submit(request)


def test_requests_of_one_iteration_are_sent_together() -> None:
    """Requests of another iteration make another batch."""

    async def run() -> tuple[list[int], list[list[int]]]:
        echo = Echo()
        batches = Batches(echo, max_size=64)
        answers = await asyncio.gather(*(result(batches, n) for n in range(5)))
        return [*answers, await result(batches, 5)], echo.sent

    answers, sent = asyncio.run(run())

    assert answers == [0, 1, 2, 3, 4, 5]
    assert sent == [[0, 1, 2, 3, 4], [5]]


def test_a_batch_is_bounded() -> None:
    """More requests than a batch holds make several batches, in their order."""

    async def run() -> list[list[int]]:
        echo = Echo()
        batches = Batches(echo, max_size=2)
        await asyncio.gather(*(result(batches, n) for n in range(5)))
        return echo.sent

    assert asyncio.run(run()) == [[0, 1], [2, 3], [4]]


def test_a_cancelled_caller_affects_no_other() -> None:
    """Before its batch is sent its request is left out; afterwards the others still get their own results."""

    async def run() -> tuple[list[int | str], list[list[int]]]:
        echo = Echo()
        batches = Batches(echo, max_size=64)
        echo.gate.clear()
        callers = [asyncio.ensure_future(result(batches, n)) for n in range(4)]
        await asyncio.sleep(0)  # the callers have submitted, and the batch is sent next
        callers[0].cancel()
        while not echo.sent:  # noqa: ASYNC110
            await asyncio.sleep(0)
        callers[2].cancel()
        await asyncio.sleep(0)
        echo.gate.set()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        return [answer if isinstance(answer, int) else type(answer).__name__ for answer in answers], echo.sent

    answers, sent = asyncio.run(run())

    assert answers == ["CancelledError", 1, "CancelledError", 3]
    assert sent == [[1, 2, 3]]


def test_what_sending_raises_every_caller_raises() -> None:
    """An error in the send function leaves no caller waiting."""

    async def fail(requests: Sequence[int]) -> list[int]:
        raise ZeroDivisionError

    async def run() -> list[int | BaseException]:
        batches = Batches(fail, max_size=64)
        return await asyncio.gather(*(result(batches, n) for n in range(2)), return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(run())] == [ZeroDivisionError] * 2


def test_a_batch_that_is_cancelled_leaves_no_caller_waiting() -> None:
    """If the loop's tasks are cancelled one by one, callers end with their batch."""

    async def run() -> tuple[list[int | BaseException], bool]:
        echo = Echo()
        batches = Batches(echo, max_size=64)
        echo.gate.clear()
        callers = [asyncio.ensure_future(result(batches, n)) for n in range(2)]
        while not echo.sent:  # noqa: ASYNC110
            await asyncio.sleep(0)
        [sender] = asyncio.all_tasks() - {*callers, asyncio.current_task()}
        sender.cancel()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        return answers, sender.cancelled()

    answers, was_cancelled = asyncio.run(run())

    assert ([type(answer) for answer in answers], was_cancelled) == ([asyncio.CancelledError] * 2, True)


def test_drain_waits_for_running_batches() -> None:
    """It also waits for batches whose callers are all cancelled."""

    async def run() -> list[bool]:
        echo = Echo()
        batches = Batches(echo, max_size=2)
        echo.gate.clear()
        callers = [asyncio.ensure_future(result(batches, n)) for n in range(3)]
        while len(echo.sent) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        callers[0].cancel()
        drained = asyncio.ensure_future(batches.drain())
        await asyncio.sleep(0)
        seen = [drained.done()]
        echo.gate.set()
        await drained
        return [*seen, *(caller.done() or caller.cancelled() for caller in callers[1:])]

    assert asyncio.run(run()) == [False, True, True]


def test_a_loop_that_ends_blocks_no_later_request() -> None:
    """Requests of its last iteration are cancelled; those made as it ends, or later, get results."""
    batches = Batches(Echo(), max_size=64)
    answers: list[int] = []

    async def late() -> None:
        await asyncio.sleep(0)
        try:
            await batches.submit(1)
        finally:
            answers.append(await asyncio.wait_for(batches.submit(2), 1))

    async def run() -> None:
        task = asyncio.ensure_future(late())
        await asyncio.sleep(0)
        assert not task.done()

    async def again() -> None:
        answers.append(await asyncio.wait_for(batches.submit(3), 1))

    asyncio.run(run())
    asyncio.run(again())

    assert answers == [2, 3]


def test_a_batch_has_nothing_of_its_first_caller() -> None:
    """What one caller set in its context affects no other caller."""
    limit: ContextVar[int] = ContextVar("limit", default=0)

    async def tell(requests: Sequence[int]) -> list[int]:
        return [limit.get() for _ in requests]

    async def run() -> list[int]:
        batches = Batches(tell, max_size=64)

        async def limited(by: int) -> int:
            limit.set(by)
            return await batches.submit(by)

        return await asyncio.gather(limited(1), limited(2))

    assert asyncio.run(run()) == [0, 0]

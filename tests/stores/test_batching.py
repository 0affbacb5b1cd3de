"""Questions of one turn of the loop leave together, and each asker gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

from stormcellar.stores.batching import Batches


class Echo:
    """Answers each question with itself, once it is let."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, questions: Sequence[int]) -> list[int]:
        """Answer, unless the gate is closed."""
        self.sent.append(list(questions))
        await self.gate.wait()
        return list(questions)


async def ask(batches: Batches[int, int], question: int) -> int:
    """Ask, as a task of its own does."""
    return await batches.submit(question)


def test_questions_of_one_turn_leave_together() -> None:
    """Those of another turn make another batch."""

    async def run() -> tuple[list[int], list[list[int]]]:
        echo = Echo()
        batches = Batches(echo, max_size=64)
        answers = await asyncio.gather(*(ask(batches, n) for n in range(5)))
        return [*answers, await ask(batches, 5)], echo.sent

    answers, sent = asyncio.run(run())

    assert answers == [0, 1, 2, 3, 4, 5]
    assert sent == [[0, 1, 2, 3, 4], [5]]


def test_a_batch_is_bounded() -> None:
    """More questions than a batch holds make several, in their order."""

    async def run() -> list[list[int]]:
        echo = Echo()
        batches = Batches(echo, max_size=2)
        await asyncio.gather(*(ask(batches, n) for n in range(5)))
        return echo.sent

    assert asyncio.run(run()) == [[0, 1], [2, 3], [4]]


def test_a_cancelled_asker_harms_nobody() -> None:
    """Before its batch leaves its question is not sent; afterwards the others still get their own answers."""

    async def run() -> tuple[list[int | str], list[list[int]]]:
        echo = Echo()
        batches = Batches(echo, max_size=64)
        echo.gate.clear()
        askers = [asyncio.ensure_future(ask(batches, n)) for n in range(4)]
        await asyncio.sleep(0)  # the askers have asked, and the batch leaves next
        askers[0].cancel()
        while not echo.sent:  # noqa: ASYNC110
            await asyncio.sleep(0)
        askers[2].cancel()
        await asyncio.sleep(0)
        echo.gate.set()
        answers = await asyncio.gather(*askers, return_exceptions=True)
        return [answer if isinstance(answer, int) else type(answer).__name__ for answer in answers], echo.sent

    answers, sent = asyncio.run(run())

    assert answers == ["CancelledError", 1, "CancelledError", 3]
    assert sent == [[1, 2, 3]]


def test_what_sending_raises_every_asker_raises() -> None:
    """A defect in what sends leaves nobody waiting."""

    async def fail(questions: Sequence[int]) -> list[int]:
        raise ZeroDivisionError

    async def run() -> list[int | BaseException]:
        batches = Batches(fail, max_size=64)
        return await asyncio.gather(*(ask(batches, n) for n in range(2)), return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(run())] == [ZeroDivisionError] * 2


def test_a_batch_that_is_cancelled_leaves_nobody_waiting() -> None:
    """Where the loop's tasks are cancelled one by one, askers end with their batch."""

    async def run() -> tuple[list[int | BaseException], bool]:
        echo = Echo()
        batches = Batches(echo, max_size=64)
        echo.gate.clear()
        askers = [asyncio.ensure_future(ask(batches, n)) for n in range(2)]
        while not echo.sent:  # noqa: ASYNC110
            await asyncio.sleep(0)
        [carrier] = asyncio.all_tasks() - {*askers, asyncio.current_task()}
        carrier.cancel()
        answers = await asyncio.gather(*askers, return_exceptions=True)
        return answers, carrier.cancelled()

    answers, was_cancelled = asyncio.run(run())

    assert ([type(answer) for answer in answers], was_cancelled) == ([asyncio.CancelledError] * 2, True)


def test_drain_waits_for_running_batches() -> None:
    """Batches whose askers all left are waited for, too."""

    async def run() -> list[bool]:
        echo = Echo()
        batches = Batches(echo, max_size=2)
        echo.gate.clear()
        askers = [asyncio.ensure_future(ask(batches, n)) for n in range(3)]
        while len(echo.sent) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        askers[0].cancel()
        drained = asyncio.ensure_future(batches.drain())
        await asyncio.sleep(0)
        seen = [drained.done()]
        echo.gate.set()
        await drained
        return [*seen, *(asker.done() or asker.cancelled() for asker in askers[1:])]

    assert asyncio.run(run()) == [False, True, True]


def test_a_loop_that_ends_blocks_no_later_question() -> None:
    """What was asked in its last turn is cancelled; what is asked as it ends, or on another, is answered."""
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


def test_a_batch_has_nothing_of_its_first_asker() -> None:
    """What one asker has set in its context holds for no other."""
    limit: ContextVar[int] = ContextVar("limit", default=0)

    async def tell(questions: Sequence[int]) -> list[int]:
        return [limit.get() for _ in questions]

    async def run() -> list[int]:
        batches = Batches(tell, max_size=64)

        async def limited(by: int) -> int:
            limit.set(by)
            return await batches.submit(by)

        return await asyncio.gather(limited(1), limited(2))

    assert asyncio.run(run()) == [0, 0]

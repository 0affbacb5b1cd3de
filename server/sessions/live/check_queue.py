"""`CheckQueue`: the watched sessions that wait until the store is asked for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain, islice

from stormcellar.sessions.live.watched import Watched
from stormcellar.stores import StoreError

log = logging.getLogger("stormcellar.sessions")

SLICE = 200
"""How many sessions one call of the store asks for."""
WORKERS = 4
"""How many such calls run at once: one that waits for a silent node does not hold up the others."""
AGAIN_S = 0.5
"""The pause before sessions without an answer are asked for again."""
UNTIL_YIELD = 20
"""Other tasks have their turn after so many sessions: the end of one takes 0.1 ms."""
STOPPED_S = 1.0
"""A pause that ends so late means that this process was stopped and asked nothing: patience begins anew."""


class CheckQueue:
    """Checks sessions, as many together as wait; those that are urgent first.

    Sessions without an answer are tried again apart from the others, which never wait for them.

    Args:
        confirm: Asks the store for some sessions, and notifies those that are over.
        give_up: Called for a session that has had no answer for too long.
        longest_s: How long that is, from when the first check without an answer was due.
    """

    def __init__(
        self,
        confirm: Callable[[Sequence[Watched]], Awaitable[None]],
        give_up: Callable[[Watched], None],
        *,
        longest_s: float,
    ) -> None:
        self._confirm = confirm
        self._give_up = give_up
        self._longest_s = longest_s
        self._urgent: dict[Watched, None] = {}
        self._waiting: dict[Watched, None] = {}
        self._failed: dict[Watched, None] = {}
        # Those that wait for an answer, those in a queue included: since when, on the loop's clock.
        self._asked_s: dict[Watched, float] = {}
        self._has_work = asyncio.Event()
        self._has_failed = asyncio.Event()

    def add(self, held: Iterable[Watched], *, is_urgent: bool) -> None:
        """Check *held* as soon as possible."""
        now_s, added = asyncio.get_running_loop().time(), dict.fromkeys(held)
        (self._urgent if is_urgent else self._waiting).update(added)
        for watched in added:
            self._asked_s.setdefault(watched, now_s)
        if self._urgent or self._waiting:
            self._has_work.set()

    def discard(self, watched: Watched) -> None:
        """Forget *watched*."""
        for waiting in (self._urgent, self._waiting, self._failed):
            waiting.pop(watched, None)
        self._asked_s.pop(watched, None)

    def is_asking(self, watched: Watched) -> bool:
        """Whether *watched* waits for an answer, in a queue or after a call that had none."""
        return watched in self._asked_s

    async def work(self) -> None:
        """Check what waits, for ever. `WORKERS` of these run at once."""
        while True:
            await self._has_work.wait()
            asked = list(islice(chain(self._urgent, self._waiting), SLICE))
            for watched in asked:
                self._urgent.pop(watched, None)
                self._waiting.pop(watched, None)
            if not (self._urgent or self._waiting):
                self._has_work.clear()
            if asked:  # else another worker was faster
                await self._check(asked)
            await asyncio.sleep(0)  # a store in memory answers without letting other tasks run

    async def retry(self) -> None:
        """Try sessions without an answer again, for ever; without a pause while some of them get one."""
        is_answering = False
        while True:
            await self._has_failed.wait()
            if not is_answering:
                await asyncio.sleep(AGAIN_S)
            again = list(islice(self._failed, SLICE))
            for watched in again:
                del self._failed[watched]
            is_answering = await self._check(again)
            if not self._failed:
                self._has_failed.clear()

    async def give_up(self) -> None:
        """Give up on sessions that had no answer for too long, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            begun_s = loop.time()
            await asyncio.sleep(AGAIN_S)
            now_s = loop.time()
            if now_s - begun_s > AGAIN_S + STOPPED_S:
                self._asked_s = dict.fromkeys(self._asked_s, now_s)
            oldest_s = now_s - self._longest_s
            late = [watched for watched, asked_s in self._asked_s.items() if asked_s <= oldest_s]
            for number, watched in enumerate(late, start=1):
                if number % UNTIL_YIELD == 0:
                    await asyncio.sleep(0)
                if self._asked_s.get(watched, now_s) <= oldest_s:  # no answer came meanwhile
                    self.discard(watched)
                    self._give_up(watched)

    async def _check(self, asked: Sequence[Watched]) -> bool:
        """Return whether any of *asked* had an answer."""
        begun_s = asyncio.get_running_loop().time()
        for watched in asked:
            self._asked_s.setdefault(watched, begun_s)
        failed: list[Watched] = []
        if asked and not await self._is_confirmed(asked):
            # One node of a cluster may be down: those on the others have an answer if asked for alone.
            alone = [each for each in asked if each.is_held]
            confirmed = await asyncio.gather(*(self._is_confirmed([each]) for each in alone))
            failed = [
                each for each, is_done in zip(alone, confirmed, strict=True) if each.is_held and not is_done
            ]
        since_s = {each: self._asked_s.pop(each, begun_s) for each in asked}
        for watched in asked:
            self._failed.pop(watched, None)
        self._asked_s.update((each, since_s[each]) for each in failed)
        self._failed.update(dict.fromkeys(failed))
        if self._failed:
            self._has_failed.set()
        return len(failed) < len(asked)

    async def _is_confirmed(self, asked: Sequence[Watched]) -> bool:
        try:
            await self._confirm(asked)
        except StoreError:
            return False
        except Exception:  # of a store of the application's own
            log.exception("could not check whether %d sessions are live", len(asked))
            return False
        return True

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
UNTIL_YIELD = 20
"""Other work of the event loop has its turn after so many sessions: the end of one takes 0.1 ms."""
AGAIN_S = 0.5
"""The pause before sessions without an answer are asked for again."""


class CheckQueue:
    """Checks sessions, as many together as wait; those that are urgent first.

    Sessions without an answer are tried again by themselves, so they are never before the others.

    Args:
        confirm: Asks the store for some sessions, and tells those that are over.
        give_up: Called for a session that has had no answer for too long.
        longest_s: How long that is.
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
        self._unconfirmed: dict[Watched, None] = {}
        self._has_work = asyncio.Event()
        self._has_unconfirmed = asyncio.Event()

    def add(self, held: Iterable[Watched], *, is_urgent: bool) -> None:
        """Check *held* as soon as possible."""
        (self._urgent if is_urgent else self._waiting).update(dict.fromkeys(held))
        if self._urgent or self._waiting:
            self._has_work.set()

    def discard(self, watched: Watched) -> None:
        """Forget *watched*."""
        for waiting in (self._urgent, self._waiting, self._unconfirmed):
            waiting.pop(watched, None)

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
        """Try sessions without an answer again, for ever, and give up on those that had none for too long."""
        while True:
            await self._has_unconfirmed.wait()
            await asyncio.sleep(AGAIN_S)
            oldest_s = asyncio.get_running_loop().time() - self._longest_s
            for number, watched in enumerate(list(self._unconfirmed), start=1):
                if number % UNTIL_YIELD == 0:
                    await asyncio.sleep(0)
                if watched.unconfirmed_s is not None and watched.unconfirmed_s <= oldest_s:
                    self.discard(watched)
                    self._give_up(watched)
            # Without a pause while some get an answer: very many may have waited for the same store.
            while again := list(islice(self._unconfirmed, SLICE)):
                for watched in again:
                    del self._unconfirmed[watched]
                await self._check(again)
                if all(watched in self._unconfirmed for watched in again):
                    break
            if not self._unconfirmed:
                self._has_unconfirmed.clear()

    async def _check(self, asked: Sequence[Watched]) -> None:
        if asked and not await self._is_confirmed(asked):
            # One node of a cluster may be down: those on the others have an answer if asked for alone.
            alone = [each for each in asked if each.end is None]
            confirmed = await asyncio.gather(*(self._is_confirmed([each]) for each in alone))
            self._keep([each for each, is_done in zip(alone, confirmed, strict=True) if not is_done])

    def _keep(self, unconfirmed: Iterable[Watched]) -> None:
        now_s = asyncio.get_running_loop().time()
        for watched in unconfirmed:
            if watched.is_held:
                watched.unconfirmed_s = watched.unconfirmed_s or now_s
                self._unconfirmed[watched] = None
        if self._unconfirmed:
            self._has_unconfirmed.set()

    async def _is_confirmed(self, asked: Sequence[Watched]) -> bool:
        try:
            await self._confirm(asked)
        except StoreError:
            return False
        except Exception:  # of a store or an account directory of the application's own
            log.exception("could not check whether %d sessions are live", len(asked))
            return False
        return True

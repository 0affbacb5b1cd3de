"""`SessionWatch`: finds out when sessions end that sockets, streams and long handlers hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import cycle

from stormcellar.events import Events, Kind
from stormcellar.sessions.account_check import AccountCheck
from stormcellar.sessions.background import BackgroundWork
from stormcellar.sessions.live.check_queue import UNTIL_YIELD, WORKERS, CheckQueue
from stormcellar.sessions.live.held import TURNS, Held
from stormcellar.sessions.live.watched import End, Watched, is_same_sign_in
from stormcellar.stores import (
    Absent,
    Announcing,
    Credential,
    Record,
    Store,
    Why,
)

log = logging.getLogger("stormcellar.sessions")

TIMER_OFF_S = 0.02
"""How far the timer of an expiry may be off before it is set anew."""
LISTEN_AGAIN_S = 1.0
"""The pause after the announcements of a store have failed."""


@dataclass(frozen=True, slots=True)
class Rechecks:
    """How often the store is asked although nothing was announced.

    Raises:
        ValueError: A time is not positive.
    """

    every_s: float = 15.0
    """A session whose end was not announced is found to be over within this time, if the store answers."""
    patience_s: float | None = None
    """How long the store may leave checks of a session without an answer before its holders get
    `STORE_DOWN`. None: twice `every_s`. `math.inf`: never."""

    def __post_init__(self) -> None:
        for name, value in (("every_s", self.every_s), ("patience_s", self.longest_s)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, not {value!r}")

    @property
    def longest_s(self) -> float:
        """`patience_s`, or its default."""
        return 2 * self.every_s if self.patience_s is None else self.patience_s


class SessionWatch:
    """Watches the sessions that this process holds, and notifies each holder when its session is over.

    A session is checked when the store announces its end, when its time is over, when an announcement may
    be lost, and every `Rechecks.every_s`. A renewed ID is followed.

    Args:
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        accounts: AccountCheck,
        events: Events,
        now_ms: Callable[[], int],
        rechecks: Rechecks = Rechecks(),
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._events = events
        self._now_ms = now_ms
        self._rechecks = rechecks
        self._held = Held()
        self._queue = CheckQueue(
            self._confirm, lambda watched: self._finish(watched, End.STORE_DOWN), longest_s=rechecks.longest_s
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._background = BackgroundWork()
        self.is_closed = False
        """Whether `aclose` was called."""
        self.at_stop: set[Callable[[], None]] = set()
        """Called by `aclose`, for holders that have no session. They must not raise."""

    def __len__(self) -> int:
        """Return how many holders there are."""
        return len(self._held)

    def hold(self, record: Record) -> Watched:
        """Watch the session of *record*, as loaded. It is checked at once: it may have ended since then.

        Raises:
            RuntimeError: There is no running event loop.
        """
        watched = Watched(record)
        if self.is_closed:
            watched.finish(End.STOPPED)
            return watched
        self._start()
        self._held.add(watched)
        self._set_timer(watched)
        self._queue.add([watched], is_urgent=False)
        return watched

    def release(self, watched: Watched) -> None:
        """Stop watching for this holder. Idempotent."""
        watched.is_held = False
        self._queue.discard(watched)
        if watched.timer is not None:
            watched.timer.cancel()
            watched.timer = None
        self._held.discard(watched)

    def check(self, watched: Watched | None = None) -> None:
        """Check the session of *watched* now. None: every session, for instance after the clock was set."""
        if watched is None or watched.is_held:
            self._queue.add(self._held if watched is None else [watched], is_urgent=True)

    async def check_accounts(self, user: str | None = None) -> None:
        """Notify those whose account no longer allows their sign-in. The store is not asked.

        Call it after a change of an account, in each process: no store announces that.

        Args:
            user: Whose account has changed; None: it may be any.
        """
        held = [each for each in self._held if user in (None, each.record.user)]
        for number, watched in enumerate(held, start=1):
            if number % UNTIL_YIELD == 0:
                await asyncio.sleep(0)
            await self._check_account(watched)

    async def aclose(self) -> None:
        """Give every holder `STOPPED`, and stop. Idempotent."""
        self.is_closed = True
        callbacks: list[Callable[[], None]] = [
            partial(self._finish, each, End.STOPPED) for each in self._held
        ]
        for number, callback in enumerate([*callbacks, *self.at_stop]):
            if number % UNTIL_YIELD == 0:
                await asyncio.sleep(0)
            callback()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what asks for a check ---

    def _start(self) -> None:
        if not self._tasks:
            work = [self._queue.retry(), self._queue.give_up(), self._check_regularly()]
            work += [self._queue.work() for _ in range(WORKERS)]
            if isinstance(self._store, Announcing):
                work.append(self._listen(self._store))
            self._tasks = [asyncio.get_running_loop().create_task(each) for each in work]

    async def _listen(self, store: Announcing) -> None:
        """Have each session checked whose end is announced, and all of them when some may be missing."""
        while True:
            try:
                async with aclosing(store.gone()) as announced:
                    async for handle in announced:
                        held = self._held if handle is None else self._held.of(handle)
                        self._queue.add(held, is_urgent=handle is not None)
                return  # the store is closed
            except Exception:  # of a store of the application's own; it is asked regularly meanwhile
                log.exception("the store failed to announce ended sessions")
                await asyncio.sleep(LISTEN_AGAIN_S)

    async def _check_regularly(self) -> None:
        """Have every session checked in its turn, so within `every_s`."""
        loop, every_s = asyncio.get_running_loop(), self._rechecks.every_s
        next_s = loop.time()
        for turn in cycle(self._held.turns):
            # A tenth of the interval is left for the check. No turn is left out if the process paused.
            next_s = max(next_s + 0.9 * every_s / TURNS, loop.time() - every_s)
            await asyncio.sleep(next_s - loop.time())
            due = [each for holders in turn.values() for each in holders if not self._queue.is_asking(each)]
            self._queue.add(due, is_urgent=False)

    def _set_timer(self, watched: Watched) -> None:
        """Have the session checked when its time is over: another request may have extended it."""
        loop = asyncio.get_running_loop()
        over_s = loop.time() + max(0, _over_ms(watched.record) - self._now_ms()) / 1000
        if watched.timer is not None:
            # A new timer would take more time than the rest of a check.
            if abs(watched.timer.when() - over_s) < TIMER_OFF_S:
                return
            watched.timer.cancel()
        watched.timer = loop.call_at(over_s, self._expect, watched)

    def _expect(self, watched: Watched) -> None:
        watched.timer = None
        self.check(watched)

    # --- the check ---

    async def _confirm(self, asked: Sequence[Watched]) -> None:
        """Ask the store for the sessions of *asked*, and notify those that are over.

        Raises:
            StoreError: No answer.
        """
        # The credentials as they are now: another check may follow a renewal meanwhile.
        credentials = [watched.credential for watched in asked]
        found = await self._states(set(credentials))
        for number, (watched, credential) in enumerate(zip(asked, credentials, strict=True), start=1):
            if number % UNTIL_YIELD == 0:
                await asyncio.sleep(0)
            state = found[credential]
            try:
                end = await self._end_of(watched.record, state)
                is_settling = end is End.ACCOUNT and await self._is_settling(watched)
            except Exception:  # of the account directory, which is the application's
                log.exception("could not check the account of session %s", watched.record.handle)
                continue
            if not watched.is_held:
                continue  # its holder let go meanwhile
            if isinstance(state, Absent):
                self._finish_all(watched.record, end)
            elif end is not None and not is_settling:
                self._finish(watched, end)
            else:
                watched.confirm(state)
                # The clock may have been set, so the time of the timer is compared, not that of the record.
                self._set_timer(watched)

    async def _check_account(self, watched: Watched) -> None:
        """Notify *watched* if its account no longer allows its sign-in."""
        if not watched.is_held:
            return
        try:
            if await self._accounts.counts(watched.record) or await self._is_settling(watched):
                return
        except Exception:  # of the account directory, which is the application's
            log.exception("could not check the account of session %s", watched.record.handle)
            return
        self._finish(watched, End.ACCOUNT)

    async def _is_settling(self, watched: Watched) -> bool:
        """Whether its own request may have changed the account a moment ago; then check that again later."""
        wait_s = await self._accounts.unsettled_s(watched.record)
        if wait_s and watched.is_held:
            loop = asyncio.get_running_loop()
            loop.call_later(wait_s, lambda: self._background.spawn(self._check_account(watched)))
        return wait_s > 0

    async def _states(self, asked: set[Credential]) -> dict[Credential, Record | Absent]:
        now_ms = self._now_ms()
        if isinstance(self._store, Announcing):
            return await self._store.states(asked, now_ms=now_ms)
        return {each: await self._state(each, now_ms) for each in asked}

    async def _state(self, credential: Credential, now_ms: int) -> Record | Absent:
        """Return what `Announcing.states` does for one, from a store that is not `Announcing`."""
        found = await self._store.load(credential, now_ms=now_ms)
        if isinstance(found, Absent) and found.why is Why.SUPERSEDED:
            return await self._store.find(credential.handle, now_ms=now_ms) or Absent(Why.UNKNOWN)
        return found

    async def _end_of(self, known: Record, found: Record | Absent) -> End | None:
        """Return why the session *known* is over, according to *found*; None if it is live."""
        if isinstance(found, Absent):
            is_expired = found.why is not Why.ENDED and _over_ms(known) <= self._now_ms()
            return End.EXPIRED if is_expired else End.SIGNED_OUT
        if not is_same_sign_in(found, known):
            return End.REPLACED
        return None if await self._accounts.counts(found) else End.ACCOUNT

    def _finish_all(self, record: Record, end: End | None) -> None:
        """Notify all holders of the session of *record*: there is no such session any more."""
        assert end is not None
        for watched in list(self._held.of(record.handle)):
            self._finish(watched, end)
        if end is End.EXPIRED:
            self._events.emit(Kind.EXPIRED, handle=record.handle, user=record.user)

    def _finish(self, watched: Watched, end: End) -> None:
        if watched.is_held:  # else its holder let go meanwhile
            self.release(watched)
            watched.finish(end)


def _over_ms(record: Record) -> int:
    return min(record.expires_ms, record.deadline_ms)

"""The counting contract: tallies that say no to what comes too often, with a delay that grows.

They live in the same backend as the sessions, so that every process counts the same and a restart forgets
nothing. `conformance.CountersContract` holds each promise below as a test. Like stores, counters read
no clock; like a session's, a tally's end is exact whatever the backend has reaped by then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

MOST_DOUBLINGS = 40
"""Beyond any longest wait, and still a number that every backend can calculate with."""

_LONGEST_MS = 366 * 86_400_000


@dataclass(frozen=True, slots=True)
class Rule:
    """How often something may happen. Times in milliseconds.

    Raises:
        ValueError: The limit is below 1, or the times are not in the order first, longest, kept, a year.
    """

    limit: int
    """So many are free; the last of them, and each one more, is followed by a wait."""
    first_wait_ms: int
    """The wait after the last free one; it doubles with each one more. 0: there is only counting."""
    longest_wait_ms: int
    keep_ms: int
    """The tally is forgotten this long after the last one taken."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"a limit must be at least 1, not {self.limit}")
        if not 0 <= self.first_wait_ms <= self.longest_wait_ms <= self.keep_ms <= _LONGEST_MS:
            raise ValueError("a rule needs 0 <= first_wait_ms <= longest_wait_ms <= keep_ms <= a year")

    def wait_ms(self, count: int) -> int:
        """Return the wait that follows the take which made the count *count*, at least the limit."""
        doublings = min(count - self.limit, MOST_DOUBLINGS)
        return min(self.first_wait_ms << doublings, self.longest_wait_ms)


@dataclass(frozen=True, slots=True)
class Tally:
    """What a tally says after it was asked."""

    taken: bool
    """Whether this call took one; a call that did not changed nothing."""
    count: int
    next_ms: int
    """When the next one may be taken once the limit is reached; 0: there is no wait."""


NO_TALLY = Tally(taken=False, count=0, next_ms=0)


def check_key(key: str) -> None:
    """Raise ValueError for a key that no backend can keep: empty, or with a lone surrogate."""
    try:
        is_kept = bool(key.encode())
    except UnicodeEncodeError:
        is_kept = False
    if not is_kept:
        raise ValueError("the key of a tally is non-empty text without lone surrogates")


class Counters(ABC):
    """Keeps a tally for each key, any non-empty text. `Store.counters` returns those of a store.

    Each call is one atomic step on one key. A change is sent at most once; a cancelled call happened whole or
    not at all, and its reply reaches nobody else. What is stored there and is no tally counts as none.
    *now_ms* is Unix time in milliseconds.

    Raises:
        StoreUnavailable: From any call: no usable answer; a change may or may not have happened.
        StoreFull: From `take` and `give_back`: nothing was written.
        StoreRefused: From any call: the backend refuses our credentials.
        ValueError: From any call: the key is empty or has a lone surrogate.
    """

    @abstractmethod
    async def take(self, key: str, rule: Rule, *, now_ms: int) -> Tally:
        """Take one, unless the limit is reached and the wait is not over.

        If one is taken: the count goes up by one; where it then is at the limit or above, the next may be
        taken after `rule.wait_ms(count)`; and the tally is kept for `rule.keep_ms` from now. Of any number of
        parallel calls exactly as many take one as there are left. A key may be asked under several rules.
        """

    @abstractmethod
    async def peek(self, key: str, *, now_ms: int) -> Tally:
        """Return the tally without taking one (`taken` is False). Writes nothing."""

    @abstractmethod
    async def give_back(self, key: str, tally: Tally, *, now_ms: int) -> None:
        """Undo the take that returned *tally*: as if it had never been, unless others were taken since.

        The count goes down by one; at 0 the tally is forgotten. A wait ends if this very take began it, and
        stays if another one did. When the tally is forgotten does not move. Nothing happens if it is by now.
        """

    @abstractmethod
    async def forget(self, key: str) -> None:
        """Forget the tally. Idempotent."""

"""The counting contract: tallies that refuse what happens too often, with a growing delay.

They are in the same backend as the sessions, so all processes share them and a restart loses none.
`conformance.CountersContract` tests each guarantee below. Like stores, counters read no clock. Like a
session, a tally ends to the millisecond, whether or not the backend has removed it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

MOST_DOUBLINGS = 40
"""More than any longest wait needs, and still within the numbers of every backend."""

_LONGEST_MS = 366 * 86_400_000


@dataclass(frozen=True, slots=True)
class Rule:
    """How often something may happen. Times in milliseconds.

    Raises:
        ValueError: The limit is below 1, or the times are not in the order first, longest, kept, a year.
    """

    limit: int
    """How many are free. A wait follows the last free one, and each later one."""
    first_wait_ms: int
    """The wait after the last free one; it doubles with each later one. 0: count without waits."""
    longest_wait_ms: int
    keep_ms: int
    """The tally ends this long after the last one taken."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"a limit must be at least 1, not {self.limit}")
        if not 0 <= self.first_wait_ms <= self.longest_wait_ms <= self.keep_ms <= _LONGEST_MS:
            raise ValueError("a rule needs 0 <= first_wait_ms <= longest_wait_ms <= keep_ms <= a year")

    def wait_ms(self, count: int) -> int:
        """Return the wait after the take that raised the count to *count*, which is at least the limit."""
        doublings = min(count - self.limit, MOST_DOUBLINGS)
        return min(self.first_wait_ms << doublings, self.longest_wait_ms)


@dataclass(frozen=True, slots=True)
class Tally:
    """The state of a tally after a call."""

    taken: bool
    """Whether this call took one; if not, it changed nothing."""
    count: int
    next_ms: int
    """When the next one may be taken, once the limit is reached; 0 without a wait."""


NO_TALLY = Tally(taken=False, count=0, next_ms=0)


def check_key(key: str) -> None:
    """Raise ValueError for a key that a backend cannot keep: empty, or with a lone surrogate."""
    try:
        is_kept = bool(key.encode())
    except UnicodeEncodeError:
        is_kept = False
    if not is_kept:
        raise ValueError("the key of a tally must be non-empty text without lone surrogates")


class Counters(ABC):
    """Keeps a tally for each key, any non-empty text. `Store.counters` returns those of a store.

    Each call is one atomic step on one key. A change is sent at most once. A cancelled call takes effect
    completely or not at all, and no other call receives its reply. A stored value that is not a tally counts
    as no tally. *now_ms* is Unix time in milliseconds.

    Raises:
        StoreUnavailable: From any call: no usable reply; a change may or may not have happened.
        StoreFull: From `take` and `give_back`: nothing was written.
        StoreRefused: From any call: the backend refuses the credentials or the operation.
        ValueError: From any call: the key is empty or has a lone surrogate.
    """

    @abstractmethod
    async def take(self, key: str, rule: Rule, *, now_ms: int) -> Tally:
        """Take one, unless the limit is reached and the wait is not over.

        If one is taken, the count rises by one; if it is then at the limit or above, the next may be taken
        after `rule.wait_ms(count)`; and the tally is kept for `rule.keep_ms` from now. Of parallel calls
        exactly as many take one as are left. A key may be used under several rules.
        """

    @abstractmethod
    async def peek(self, key: str, *, now_ms: int) -> Tally:
        """Return the tally without taking one (`taken` is False). Writes nothing."""

    @abstractmethod
    async def give_back(self, key: str, tally: Tally, *, now_ms: int) -> None:
        """Undo the take that returned *tally*.

        The count falls by one; at 0 the tally is removed. The current wait ends if this take started it, and
        stays if another one did. The end of the tally does not move. If the tally has ended, nothing happens.
        """

    @abstractmethod
    async def forget(self, key: str) -> None:
        """Remove the tally. Idempotent."""

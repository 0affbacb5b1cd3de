"""The throttle on sign-in: attempts are counted before the password is hashed, in the sessions' backend.

====================  =====  ==========================================================================
account and address   hard   `attempts` free, then a wait of 10 s that doubles up to 15 min; a sign-in
                             resets the count
address               hard   `attempts_per_address` free, then a wait of 10 s that doubles up to 5 min;
                             IPv6 by /64
account               soft   above `soft_per_account` an hour, each pair of account and address has 1
                             free attempt
all                   soft   above `soft_overall` an hour, the same for every account, and each address
                             has 10 free attempts
====================  =====  ==========================================================================

A hard limit refuses the right password too. A soft limit only lowers the hard ones: the first attempt from a
new address is always accepted, so attacks from elsewhere lock no user out. Only failed attempts stay counted;
a refused one is not counted. Sources: OWASP ASVS 5.0 V6.1.1 and V6.3.1, NIST SP 800-63B-4.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from stormcellar.accounts.account_names import canonical_name
from stormcellar.errors import Throttled
from stormcellar.stores import Counters, Rule, Store, StoreError, Tally, open_store

log = logging.getLogger("stormcellar.throttle")

_SECOND_MS, _MINUTE_MS, _HOUR_MS = 1_000, 60_000, 3_600_000

# A limit that is never reached: soft limits only count.
_COUNTED = Rule(limit=2**31, first_wait_ms=0, longest_wait_ms=0, keep_ms=_HOUR_MS)


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits, in attempts that have not succeeded.

    Raises:
        ValueError: One is below 1.
    """

    attempts: int = 5
    """Free attempts on one account from one address."""
    attempts_per_address: int = 50
    """Free attempts from one address, on any account."""
    soft_per_account: int = 30
    """Attempts per hour on one account, from any address, above which each pair has one free attempt."""
    soft_overall: int = 1000
    """Attempts per hour on all accounts, above which every pair has one free attempt."""

    def __post_init__(self) -> None:
        for name in ("attempts", "attempts_per_address", "soft_per_account", "soft_overall"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def for_pair(self, *, is_reduced: bool) -> Rule:
        """Return the rule for one account from one address."""
        return Rule(1 if is_reduced else self.attempts, 10 * _SECOND_MS, 15 * _MINUTE_MS, _HOUR_MS)

    def for_address(self, *, is_reduced: bool) -> Rule:
        """Return the rule for one address."""
        free = self.attempts_per_address
        return Rule(min(10, free) if is_reduced else free, 10 * _SECOND_MS, 5 * _MINUTE_MS, _HOUR_MS)


@dataclass(frozen=True, slots=True)
class _TallyKeys:
    """The keys of the four tallies that count one attempt."""

    pair: str
    address: str
    account: str
    overall: str


@dataclass(frozen=True, slots=True)
class Admission:
    """An attempt that was accepted, and the tallies that counted it."""

    pair: str
    charged: Mapping[str, Tally]


class Throttle:
    """Decides whether a password may be tried now.

    The store holds HMAC-SHA256 of account and address, not the names: users mistype passwords into the name
    field. All names that are not valid share one tally.

    Args:
        key: 32 bytes, used for nothing else; the same in every process that shares the counters.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        key: bytes,
        rules: Rules = Rules(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._counters = counters
        self._key = key
        self._rules = rules
        self._clock = clock

    def use_key(self, key: bytes) -> None:
        """Count under another key from now on; all counts start again at zero."""
        self._key = key

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return int(self._clock() * 1000)

    def fingerprint(self, name: str) -> str:
        """Return 12 hexadecimal digits that identify *name* without revealing it."""
        return self._mac("name", canonical_name(name) or name).hex()[:12]

    async def admit(self, name: str, address: str) -> Admission:
        """Count one attempt for *name* from *address*.

        After it, call `record_success` if the password was right, `give_back` if it was not verified, and
        neither if it was wrong.

        Args:
            address: The client's address, as far as trusted proxies confirm it.

        Raises:
            Throttled: The attempt is refused and was not counted.
            StoreUnavailable: The store gave no answer; some of the tallies may have counted the attempt.
        """
        now_ms = self.now_ms()
        keys = self._keys(name, address, now_ms)
        account, overall = await asyncio.gather(
            *(self._counters.peek(key, now_ms=now_ms) for key in (keys.account, keys.overall))
        )
        is_reduced = overall.count >= self._rules.soft_overall
        at_address = self._rules.for_address(is_reduced=is_reduced)
        of_pair = self._rules.for_pair(is_reduced=is_reduced or account.count >= self._rules.soft_per_account)
        pair = await self._counters.take(keys.pair, of_pair, now_ms=now_ms)
        if not pair.taken:
            there = await self._counters.peek(keys.address, now_ms=now_ms)
            raise _throttled(
                pair.next_ms, there.next_ms if there.count >= at_address.limit else 0, now_ms=now_ms
            )
        there = await self._counters.take(keys.address, at_address, now_ms=now_ms)
        if not there.taken:
            await self.give_back(Admission(keys.pair, {keys.pair: pair}))
            raise _throttled(there.next_ms, now_ms=now_ms)
        # Last, so that refused attempts do not lower the limits of others.
        account, overall = await asyncio.gather(
            *(self._counters.take(key, _COUNTED, now_ms=now_ms) for key in (keys.account, keys.overall))
        )
        charged = {keys.pair: pair, keys.address: there, keys.account: account, keys.overall: overall}
        return Admission(keys.pair, charged)

    async def record_success(self, admission: Admission) -> None:
        """Reset the tally of this pair, and take the attempt off the other tallies.

        Best effort: if the store does not answer, the attempt expires with its tally.
        """
        others = {key: tally for key, tally in admission.charged.items() if key != admission.pair}
        await self._undo(self._counters.forget(admission.pair), *self._returns(others))

    async def give_back(self, admission: Admission) -> None:
        """Take the attempt off every tally. Best effort."""
        await self._undo(*self._returns(admission.charged))

    def _returns(self, charged: Mapping[str, Tally]) -> list[Awaitable[None]]:
        now_ms = self.now_ms()
        return [self._counters.give_back(key, tally, now_ms=now_ms) for key, tally in charged.items()]

    async def _undo(self, *steps: Awaitable[None]) -> None:
        for result in await asyncio.gather(*steps, return_exceptions=True):
            if isinstance(result, StoreError):
                log.warning("a sign-in attempt stays counted for an hour: %s", result)
            elif isinstance(result, BaseException):
                raise result

    def _keys(self, name: str, address: str, now_ms: int) -> _TallyKeys:
        account, origin = canonical_name(name) or "", origin_of(address)
        # Soft limits count by the clock hour: a window that each failure extends would never end.
        hour = str(now_ms // _HOUR_MS)
        return _TallyKeys(
            pair=self._tally_key("pair", account, origin),
            address=self._tally_key("address", origin),
            account=self._tally_key("account", account, hour),
            overall=self._tally_key("overall", hour),
        )

    def _tally_key(self, kind: str, *parts: str) -> str:
        return urlsafe_b64encode(self._mac(kind, *parts)).rstrip(b"=").decode()

    def _mac(self, *parts: str) -> bytes:
        # A length before each part makes the message unambiguous.
        message = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.digest(self._key, message.encode(errors="surrogatepass"), "sha256")


def _throttled(*next_ms: int, now_ms: int) -> Throttled:
    """Return the error with the whole seconds until the last of these waits is over."""
    return Throttled(max(1, -((now_ms - max(next_ms)) // 1000)))


def origin_of(address: str) -> str:
    """Return what *address* is counted as: IPv4 as it is, IPv6 by its /64, which one customer has.

    Anything else, such as the peer of a Unix socket, is counted as written.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    # From the number, without the scope (`%eth0`), which the client chooses.
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64)) + "/64"


def counters_of(store: Store) -> Counters:
    """Return the counters of *store*. If it has none, return counters in memory, and log a warning."""
    counters = store.counters()
    if counters is not None:
        return counters
    log.warning(
        "%s has no counters: each process counts failed sign-ins alone, until it ends",
        type(store).__name__,
    )
    own = open_store("memory:").counters()
    assert own is not None, "the memory store has counters"
    return own

"""How often passwords may be tried: counted before they are hashed, on four axes, in the sessions' backend.

==================  =====  ==============================================================================
account + address   hard   5 free, then a wait of 10 s that doubles up to 15 min; forgotten after a sign-in
address             hard   50 free, then a wait of 10 s that doubles up to 5 min; IPv6 by /64
account             soft   beyond 30 an hour each pair of account and address has 1 free try, not 5
all together        soft   beyond 1000 an hour the same for every account, and 10 free ones for an address
==================  =====  ==============================================================================

A hard axis refuses the right password too. A soft one only slows: the first try from a fresh address is never
refused, so nobody is locked out of their account by what others do elsewhere. Only tries that fail count in
the end; a refused one counts nowhere. Sources: OWASP ASVS 5.0 V6.1.1 and V6.3.1, NIST SP 800-63B-4.
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

# A limit that is never reached: these are only counted.
_COUNTED = Rule(limit=2**31, first_wait_ms=0, longest_wait_ms=0, keep_ms=_HOUR_MS)


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits; all count tries that are not known to have succeeded.

    Raises:
        ValueError: One is below 1.
    """

    attempts: int = 5
    """Free ones for each account from one address."""
    attempts_per_address: int = 50
    """Free ones from one address, whatever the account."""
    wary_per_account: int = 30
    """So many in an hour on one account, from anywhere, and new pairs have one free try."""
    wary_overall: int = 1000
    """So many in an hour on all accounts, and every pair has one free try."""

    def __post_init__(self) -> None:
        for name in ("attempts", "attempts_per_address", "wary_per_account", "wary_overall"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def for_pair(self, *, is_wary: bool) -> Rule:
        """Return the rule for one account from one address."""
        return Rule(1 if is_wary else self.attempts, 10 * _SECOND_MS, 15 * _MINUTE_MS, _HOUR_MS)

    def for_address(self, *, is_wary: bool) -> Rule:
        """Return the rule for one address."""
        free = self.attempts_per_address
        return Rule(min(10, free) if is_wary else free, 10 * _SECOND_MS, 5 * _MINUTE_MS, _HOUR_MS)


@dataclass(frozen=True, slots=True)
class _Axes:
    """The keys of the tallies that one try is charged to."""

    pair: str
    address: str
    account: str
    overall: str


@dataclass(frozen=True, slots=True)
class Admission:
    """One try that may go on, and what it was charged to."""

    pair: str
    charged: Mapping[str, Tally]


class Throttle:
    """Decides whether a password may be tried now.

    What is stored is HMAC-SHA256 of account and address, never either of them: people type passwords where
    their name belongs. Names that no account can have share a tally.

    Args:
        key: 32 bytes for this purpose alone; the same in every process that shares the counters.
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
        """Count under another key from now on; what was counted is forgotten with the old one."""
        self._key = key

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return int(self._clock() * 1000)

    def fingerprint(self, name: str) -> str:
        """Return 12 hexadecimal digits that are the same for each try of *name*, and do not tell it."""
        return self._mac("name", canonical_name(name) or name).hex()[:12]

    async def admit(self, name: str, address: str) -> Admission:
        """Charge one try for *name* from *address*, the client's own as far as it is vouched for.

        Call `settle` when it succeeded, `give_back` when nothing was tried, and nothing when it failed.

        Raises:
            Throttled: Not now. Nothing was charged.
            StoreUnavailable: It cannot be told; what was charged until then stays.
        """
        now_ms = self.now_ms()
        axes = self._axes(name, address, now_ms)
        account, overall = await asyncio.gather(
            *(self._counters.peek(key, now_ms=now_ms) for key in (axes.account, axes.overall))
        )
        is_wary = overall.count >= self._rules.wary_overall
        at_address = self._rules.for_address(is_wary=is_wary)
        of_pair = self._rules.for_pair(is_wary=is_wary or account.count >= self._rules.wary_per_account)
        pair = await self._counters.take(axes.pair, of_pair, now_ms=now_ms)
        if not pair.taken:
            there = await self._counters.peek(axes.address, now_ms=now_ms)
            raise _throttled(
                pair.next_ms, there.next_ms if there.count >= at_address.limit else 0, now_ms=now_ms
            )
        there = await self._counters.take(axes.address, at_address, now_ms=now_ms)
        if not there.taken:
            await self.give_back(Admission(axes.pair, {axes.pair: pair}))
            raise _throttled(there.next_ms, now_ms=now_ms)
        # Last, so that whoever is refused cannot make us wary of others.
        account, overall = await asyncio.gather(
            *(self._counters.take(key, _COUNTED, now_ms=now_ms) for key in (axes.account, axes.overall))
        )
        charged = {axes.pair: pair, axes.address: there, axes.account: account, axes.overall: overall}
        return Admission(axes.pair, charged)

    async def settle(self, admission: Admission) -> None:
        """Forget what came before a success of this pair, and take its charge off the other axes.

        Best effort: what the backend does not take back, it forgets by itself.
        """
        others = {key: tally for key, tally in admission.charged.items() if key != admission.pair}
        await self._undo(self._counters.forget(admission.pair), *self._returns(others))

    async def give_back(self, admission: Admission) -> None:
        """Take the charge off every axis, as if the try had never been. Best effort."""
        await self._undo(*self._returns(admission.charged))

    def _returns(self, charged: Mapping[str, Tally]) -> list[Awaitable[None]]:
        now_ms = self.now_ms()
        return [self._counters.give_back(key, tally, now_ms=now_ms) for key, tally in charged.items()]

    async def _undo(self, *steps: Awaitable[None]) -> None:
        for result in await asyncio.gather(*steps, return_exceptions=True):
            if isinstance(result, StoreError):
                log.warning("a sign-in stays counted for an hour: %s", result)
            elif isinstance(result, BaseException):
                raise result

    def _axes(self, name: str, address: str, now_ms: int) -> _Axes:
        account, origin = canonical_name(name) or "", origin_of(address)
        # The soft ones count by the hour of the clock: kept on by each failure, they would never end.
        hour = str(now_ms // _HOUR_MS)
        return _Axes(
            pair=self._tally_key("pair", account, origin),
            address=self._tally_key("address", origin),
            account=self._tally_key("account", account, hour),
            overall=self._tally_key("overall", hour),
        )

    def _tally_key(self, axis: str, *parts: str) -> str:
        return urlsafe_b64encode(self._mac(axis, *parts)).rstrip(b"=").decode()

    def _mac(self, *parts: str) -> bytes:
        # With its length before each part, no two lists of parts are the same message.
        message = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.digest(self._key, message.encode(errors="surrogatepass"), "sha256")


def _throttled(*next_ms: int, now_ms: int) -> Throttled:
    """Return the refusal that says, in whole seconds, when the last of these waits is over."""
    return Throttled(max(1, -((now_ms - max(next_ms)) // 1000)))


def origin_of(address: str) -> str:
    """Return what *address* is counted as: IPv6 by its /64, which one customer has, IPv4 as it is.

    What is no address, such as the peer of a Unix socket, is counted as written.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    # By its number: a scope (`%eth0`) is whatever its author wrote.
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64)) + "/64"


def counters_of(store: Store) -> Counters:
    """Return the tallies of *store*; for one that keeps none, tallies of this process, with a warning."""
    counters = store.counters()
    if counters is not None:
        return counters
    log.warning(
        "%s keeps no counters: failed sign-ins are counted by each process alone, until it ends",
        type(store).__name__,
    )
    own = open_store("memory:").counters()
    assert own is not None, "the memory store keeps tallies"
    return own

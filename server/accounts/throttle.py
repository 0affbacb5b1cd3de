"""The throttle on sign-in: attempts are counted before the password is hashed, in the sessions' backend.

===================  =====  ===========================================================================
account and address  hard   `attempts` free, then a wait of 10 s that doubles up to 15 min; a sign-in
                            resets the count
account and device   hard   the same, but up to a week; only for a known device
network              hard   `attempts_per_address` free, then a wait of 10 s that doubles up to 5 min;
                            for IPv6 its /64, and 1.5 and 2 times as many for its /56 and /48
account              hard   `attempts_per_account` free since the last sign-in or change of the account,
                            then a wait of 1 min that doubles up to a week; not for known
                            addresses and devices
account              soft   above `soft_per_account` an hour, each pair of account and address has 1
                            free attempt
all                  soft   above `soft_overall` an hour, the same for every account, and each address
                            has 10 free attempts
===================  =====  ===========================================================================

An address, or a device (a browser, by the token in its cookie), is known to an account if somebody signed in
to the account from there in the last 60 to 90 days. It is exempt from the limits of the account and of the
wide networks, so that others cannot lock the owner out. If the count of a known device refuses, the attempt
is judged like one without a device, so a stolen token locks nobody out either.

A hard limit refuses the right password, too; a soft one only lowers the hard ones. Only failed attempts stay
counted; a refused one is not counted. Sources: OWASP ASVS 5.0 V6.1.1 and V6.3.1, and "Slow down online
guessing attacks with device cookies"; NIST SP 800-63B-4.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from itertools import islice

from stormcellar.accounts.account_names import canonical_name
from stormcellar.accounts.charges import charge_one_of, take_each
from stormcellar.accounts.tally_keys import AttemptKeys, DeviceKeys, TallyKeys
from stormcellar.networks import Network
from stormcellar.stores import Counters, Rule, Store, StoreError, Tally, open_store

log = logging.getLogger("stormcellar.throttle")

_SECOND_MS, _MINUTE_MS, _HOUR_MS, _DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
# How long failures in a row count. An attacker who pauses for that long may begin again, so it is longer
# than a hundred guesses take without a pause.
_IN_A_ROW_MS = 365 * _DAY_MS

# A limit that is never reached: soft limits only count.
_NEVER = 2**31
_COUNTED = Rule(limit=_NEVER, first_wait_ms=0, longest_wait_ms=0, keep_ms=_HOUR_MS)
_FAILURES_COUNTED = Rule(limit=_NEVER, first_wait_ms=0, longest_wait_ms=0, keep_ms=_IN_A_ROW_MS)
# The wait keeps a sign-in from writing it again within 30 days.
_KNOWN = Rule(limit=1, first_wait_ms=30 * _DAY_MS, longest_wait_ms=30 * _DAY_MS, keep_ms=90 * _DAY_MS)
KNOWN_S = _KNOWN.keep_ms // 1000
"""How long an account knows an address or a device after it was recorded, in seconds."""
# A client without cookies is a new device at each sign-in, and each of them is a tally for 90 days.
_NEWCOMERS = Rule(limit=20, first_wait_ms=_HOUR_MS, longest_wait_ms=_HOUR_MS, keep_ms=30 * _DAY_MS)


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
    attempts_per_account: int = 50
    """Free attempts in a row on one account, from all addresses and devices that are not known to it."""
    soft_per_account: int = 30
    """Attempts per hour on one account, from any address, above which each pair has one free attempt."""
    soft_overall: int = 1000
    """Attempts per hour on all accounts, above which every pair has one free attempt."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1, not {getattr(self, field.name)}")

    def for_pair(self, *, is_reduced: bool) -> Rule:
        """Return the rule for one account from one address."""
        return Rule(1 if is_reduced else self.attempts, 10 * _SECOND_MS, 15 * _MINUTE_MS, _HOUR_MS)

    def for_device(self, *, is_reduced: bool) -> Rule:
        """Return the rule for one account from one known device, at any address."""
        # Fewer than 100 attempts in the 90 days that a device is known; the rule of a pair allows that a day.
        return Rule(1 if is_reduced else self.attempts, 10 * _SECOND_MS, 7 * _DAY_MS, _KNOWN.keep_ms)

    def for_network(self, network: Network, *, is_reduced: bool) -> Rule:
        """Return the rule for a network of the address."""
        free = min(10, self.attempts_per_address) if is_reduced else self.attempts_per_address
        return Rule(network.limit(free), 10 * _SECOND_MS, 5 * _MINUTE_MS, _HOUR_MS)

    def for_account(self) -> Rule:
        """Return the rule for one account from all addresses and devices that are not known to it."""
        # 50 attempts, 14 more in the first twelve days, then one a week: 100 after about nine months.
        return Rule(self.attempts_per_account, _MINUTE_MS, 7 * _DAY_MS, _IN_A_ROW_MS)


@dataclass(frozen=True, slots=True)
class Admission:
    """An attempt that was accepted, and the tallies that counted it."""

    charged: Mapping[str, Tally]
    forgotten: frozenset[str]
    """Those that a success removes; it takes one off the others."""
    known: str | None
    """The tally that a success takes, so that the address is known; None if it was taken lately."""
    is_known: bool
    """Whether the address or the device is known to the account."""


class Throttle:
    """Decides whether a password may be tried now.

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
        self._keys = TallyKeys(key)
        self._rules = rules
        self._clock = clock

    def use_key(self, key: bytes) -> None:
        """Count under another key from now on; all counts start again at zero."""
        self._keys = TallyKeys(key)

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return int(self._clock() * 1000)

    def fingerprint(self, name: str) -> str:
        """Return 12 hexadecimal digits that identify *name* without revealing it."""
        return self._keys.fingerprint(name)

    async def admit(
        self, name: str, address: str, *, since_ms: int = 0, device: str | None = None
    ) -> Admission:
        """Count one attempt for *name* from *address*.

        After it, call `record_success` if the password was right, `give_back` if it was not verified, and
        neither if it was wrong.

        Args:
            address: The client's address, as far as trusted proxies confirm it.
            since_ms: When the account was changed last. With another number the failures of the account start
                again at zero, and no device is known.
            device: The token of the device, if the client sent one.

        Raises:
            Throttled: The attempt is refused and was not counted.
            StoreUnavailable: The store gave no answer; some of the tallies may have counted the attempt.
        """
        now_ms = self.now_ms()
        keys = self._keys.of_attempt(name, address, since_ms=since_ms, now_ms=now_ms)
        own = self._keys.of_device(name, device, since_ms=since_ms) if device is not None else None
        peeked = (keys.account, keys.overall, keys.failures, keys.known, *((own.known,) if own else ()))
        account, overall, failures, known, *known_own = await asyncio.gather(
            *(self._counters.peek(key, now_ms=now_ms) for key in peeked)
        )
        if own is not None and known_own[0].count == 0:
            own = None
        # No account has a name that is not valid, so there is nothing to guess.
        is_nobody = canonical_name(name) is None
        ways = self._ways(keys, own, account, overall, is_known=known.count > 0, is_nobody=is_nobody)
        charged = await charge_one_of(self._counters, ways, read={keys.failures: failures}, now_ms=now_ms)
        # Last, so that refused attempts do not lower the limits of others.
        soft = dict.fromkeys((keys.account, keys.overall), _COUNTED)
        charged |= await take_each(self._counters, soft, now_ms=now_ms)
        forgotten = frozenset((keys.failures, keys.pair, *((own.pair,) if own else ())))
        taken = keys.known if known.next_ms <= now_ms else None
        return Admission(charged, forgotten, taken, is_known=known.count > 0 or own is not None)

    def _ways(
        self,
        keys: AttemptKeys,
        own: DeviceKeys | None,
        account: Tally,
        overall: Tally,
        *,
        is_known: bool,
        is_nobody: bool,
    ) -> list[dict[str, Rule]]:
        """Return the hard limits of an attempt by the keys of their tallies, that of a pair first.

        With a known device, *own*, there are two sets of them. One of them must admit the attempt.
        """
        rules, is_reduced = self._rules, overall.count >= self._rules.soft_overall
        is_pair_reduced = is_reduced or account.count >= rules.soft_per_account
        networks = {
            key: rules.for_network(each, is_reduced=is_reduced) for key, each in keys.networks.items()
        }
        exempt = {**dict(islice(networks.items(), 1)), keys.failures: _FAILURES_COUNTED}
        others = {**networks, keys.failures: _FAILURES_COUNTED if is_nobody else rules.for_account()}
        pair = {keys.pair: rules.for_pair(is_reduced=is_pair_reduced)}
        ways = [pair | (exempt if is_known else others)]
        if own is not None:
            ways.insert(0, {own.pair: rules.for_device(is_reduced=is_pair_reduced)} | pair | exempt)
        return ways

    async def record_success(self, admission: Admission) -> None:
        """Reset the failures of the account and of each pair, and take the attempt off the other tallies.

        From then on the address is known to the account. Best effort: if the store does not answer, the
        attempt expires with its tally.
        """
        others = {key: tally for key, tally in admission.charged.items() if key not in admission.forgotten}
        steps: list[Awaitable[object]] = [self._counters.forget(key) for key in admission.forgotten]
        if admission.known is not None:
            steps.append(self._counters.take(admission.known, _KNOWN, now_ms=self.now_ms()))
        await self._undo(*steps, *self._returns(others))

    async def remember(self, user: str, device: str, *, since_ms: int) -> bool:
        """Make the device with the token *device* known to the account of *user*.

        Call it after a sign-in. The device stays known for 60 to 90 days after the last one.

        Args:
            since_ms: When the account was changed last.

        Returns:
            False if the device stays unknown: the account has too many new ones, or the store did not answer.
        """
        now_ms, keys = self.now_ms(), self._keys.of_device(user, device, since_ms=since_ms)
        try:
            known = await self._counters.take(keys.known, _KNOWN, now_ms=now_ms)
            if not known.taken or known.count > 1:
                return True
            newcomer = await self._counters.take(keys.newcomers, _NEWCOMERS, now_ms=now_ms)
            if not newcomer.taken:
                await self._counters.forget(keys.known)
        except StoreError as error:
            log.warning("a device stays unknown to the account that signed in there: %s", error)
            return False
        return newcomer.taken

    async def give_back(self, admission: Admission) -> None:
        """Take the attempt off every tally. Best effort."""
        await self._undo(*self._returns(admission.charged))

    def _returns(self, charged: Mapping[str, Tally]) -> list[Awaitable[None]]:
        now_ms = self.now_ms()
        return [self._counters.give_back(key, tally, now_ms=now_ms) for key, tally in charged.items()]

    async def _undo(self, *steps: Awaitable[object]) -> None:
        for result in await asyncio.gather(*steps, return_exceptions=True):
            if isinstance(result, StoreError):
                log.warning("a sign-in attempt stays counted: %s", result)
            elif isinstance(result, BaseException):
                raise result


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

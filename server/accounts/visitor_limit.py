"""The limit on new sessions of visitors, for each client address."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from stormcellar.accounts.charges import take_each
from stormcellar.errors import Throttled
from stormcellar.networks import networks_of
from stormcellar.sessions.request_info import RequestInfo
from stormcellar.stores import Counters, Rule

_HOUR_MS = 3_600_000

DEFAULT_PER_ADDRESS = 1000


class VisitorLimit:
    """Limits how many sessions visitors create in an hour from one address.

    For IPv6 that is its /64; its /56 may create 1.5 times as many, its /48 twice as many: see `networks`.

    Sessions created by a sign-in are not counted: `Throttle` counts the attempts.

    Args:
        key: 32 bytes, used for nothing else; the same in every process that shares the counters.
        per_address: How many in a clock hour, at least 1.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        key: bytes,
        per_address: int = DEFAULT_PER_ADDRESS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._counters = counters
        self._key = key
        self._per_address = per_address
        self._clock = clock

    def use_key(self, key: bytes) -> None:
        """Count under another key from now on; all counts start again at zero."""
        self._key = key

    async def admit(self, request: RequestInfo) -> None:
        """Count a new session for the client address of *request*.

        Raises:
            Throttled: The limit of this hour is reached; the session was not counted.
            StoreUnavailable: The store gave no answer.
        """
        now_ms = int(self._clock() * 1000)
        hour, into_hour_ms = divmod(now_ms, _HOUR_MS)
        rules = {
            self._tally_key(f"{hour}:{network.name}"): _hourly(network.limit(self._per_address))
            for network in networks_of(request.client.address)
        }
        tallies = await take_each(self._counters, rules, now_ms=now_ms)
        if not all(tally.taken for tally in tallies.values()):
            raise Throttled(max(1, -(-(_HOUR_MS - into_hour_ms) // 1000)))

    def _tally_key(self, message: str) -> str:
        return hmac.digest(self._key, message.encode(errors="surrogatepass"), "sha256").hex()


def _hourly(limit: int) -> Rule:
    return Rule(limit, _HOUR_MS, _HOUR_MS, _HOUR_MS)

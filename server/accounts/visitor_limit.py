"""How many sessions visitors may begin from one address: each is a record, for nobody in particular."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from stormcellar.accounts.throttle import origin_of
from stormcellar.errors import Throttled
from stormcellar.sessions.request_info import RequestInfo
from stormcellar.stores import Counters, Rule

_HOUR_MS = 3_600_000

DEFAULT_PER_ADDRESS = 1000


class VisitorLimit:
    """Admits so many anonymous sessions an hour from each address; IPv6 by its /64.

    Sessions that begin with a sign-in are not counted here: `Throttle` counts what may lead to them.

    Args:
        key: 32 bytes for this purpose alone; the same in every process that shares the counters.
        per_address: How many in an hour of the clock, at least 1.
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
        self._rule = Rule(per_address, _HOUR_MS, _HOUR_MS, _HOUR_MS)
        self._clock = clock

    def use_key(self, key: bytes) -> None:
        """Count under another key from now on."""
        self._key = key

    async def admit(self, request: RequestInfo) -> None:
        """Count one more for the address of *request*.

        Raises:
            Throttled: There were too many in this hour; nothing was counted.
            StoreUnavailable: It cannot be told.
        """
        now_ms = int(self._clock() * 1000)
        hour, into_hour_ms = divmod(now_ms, _HOUR_MS)
        message = f"{hour}:{origin_of(request.client.address)}"
        key = hmac.digest(self._key, message.encode(errors="surrogatepass"), "sha256").hex()
        if not (await self._counters.take(key, self._rule, now_ms=now_ms)).taken:
            raise Throttled(max(1, -(-(_HOUR_MS - into_hour_ms) // 1000)))

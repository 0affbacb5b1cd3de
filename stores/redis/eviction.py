"""`Eviction`: whether Redis may remove keys of ours to make room, which it tells nobody."""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import ResponseError

from stormcellar.stores.errors import StoreError
from stormcellar.stores.redis.client import RedisClient
from stormcellar.stores.redis.errors import is_unavailable

LOG = logging.getLogger(__name__)

KNOWN_S = 60.0
"""How long an answer counts: somebody may change the policy of a running server."""

EVICTS = (
    "Redis may evict live sessions: maxmemory-policy is %s; set it to noeviction. When memory is full, "
    "people are signed out, and lists of their sessions are lost, so that listing or ending the sessions of "
    "a user reads every key"
)
UNKNOWN = (
    "cannot read the maxmemory-policy of Redis: this account may not run INFO; give it the right +info. "
    "Until then listing or ending the sessions of a user may read every key, as if Redis evicted sessions"
)


class Eviction:
    """Asks every primary node for its policy. Only `noeviction` removes nothing: each key of ours expires."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._policies: set[str] | None = None
        self._asked_at: float | None = None
        self._warned: set[str] | None = {"noeviction"}

    async def is_possible(self) -> bool:
        """Return whether a node may evict keys; True also if the account may not ask."""
        now = asyncio.get_running_loop().time()
        if self._asked_at is None or now - self._asked_at > KNOWN_S:
            self._policies = await self._ask()
            self._asked_at = now
        return self._policies != {"noeviction"}

    async def warn(self) -> None:
        """Ask now, and log a warning if it is possible, once for each answer."""
        self._asked_at = None
        is_possible = await self.is_possible()
        if is_possible and self._policies != self._warned:
            if self._policies is None:
                LOG.warning(UNKNOWN)
            else:
                LOG.warning(EVICTS, " and ".join(sorted(self._policies)))
        self._warned = self._policies

    async def _ask(self) -> set[str] | None:
        try:
            return {str(info["maxmemory_policy"]) async for info in self._client.info("memory")}
        except StoreError as exc:
            cause = exc.__cause__
            # INFO is forbidden, or removed, as some providers do.
            if not is_unavailable(cause) or type(cause) is ResponseError:
                return None
            raise

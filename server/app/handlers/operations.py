"""Health checks: the process is alive, the store answers."""

from __future__ import annotations

import asyncio
import logging

from stormcellar.app.context import Context
from stormcellar.app.handlers.base import BaseHandler
from stormcellar.stores import ReplicasMissing, Store, StoreError
from stormcellar.stores.errors import problem_of
from stormcellar.web.error_responses import RETRY_AFTER_S

log = logging.getLogger("stormcellar")


class Readiness:
    """Whether the store serves. Logs each change: health checks come every second."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._logged = ""
        self._pinging: asyncio.Task[bool] | None = None

    async def check(self) -> bool:
        """Ping the store, and return whether sessions can be read.

        Requests that come during a ping share it: anybody may ask, and each ping writes to the store.
        """
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.get_running_loop().create_task(self._ping())
        return await asyncio.shield(self._pinging)

    async def _ping(self) -> bool:
        try:
            await self._store.ping()
        except StoreError as exc:
            # All servers have the same store. If they were all taken out, no session could be read.
            passes = isinstance(exc, ReplicasMissing)
            status = "200, but" if passes else "503"
            self._log(f"/readyz is {status}: {problem_of(exc)}")
            return passes
        if self._logged:
            log.info("/readyz: the store is in order again")
            self._logged = ""
        return True

    def _log(self, line: str) -> None:
        if line != self._logged:
            log.warning("%s", line)
            self._logged = line


class Health(BaseHandler):
    """`GET /healthz`: the process is alive, with or without the store."""

    enforces_edge = False

    def get(self) -> None:
        """Answer 200."""
        self.write({"status": "ok"})


class Ready(BaseHandler):
    """`GET /readyz`: the store answers and the server is not about to stop."""

    enforces_edge = False
    readiness: Readiness

    def initialize(self, context: Context, readiness: Readiness) -> None:  # type: ignore[override]
        """Take the readiness of the store, which all requests share."""
        super().initialize(context)
        self.readiness = readiness

    async def get(self) -> None:
        """Ping the store; answer 503 if it does not reply in time, or if the server is about to stop."""
        if self.context.in_flight.is_draining:
            self._refuse("stopping")
            return
        if await self.readiness.check():
            self.write({"status": "ok"})
        else:
            self._refuse("store unavailable")

    def _refuse(self, status: str) -> None:
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY_AFTER_S))
        self.write({"status": status})

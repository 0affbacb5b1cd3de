"""Health checks: the process is alive, the store answers."""

from __future__ import annotations

from stormcellar.app.context import Context
from stormcellar.app.handlers.base import BaseHandler
from stormcellar.stores import Store, StoreError
from stormcellar.web.error_responses import RETRY_AFTER_S


class Health(BaseHandler):
    """`GET /healthz`: the process is alive, with or without the store."""

    enforces_edge = False

    def get(self) -> None:
        """Answer 200."""
        self.write({"status": "ok"})


class Ready(BaseHandler):
    """`GET /readyz`: the store answers and the server is not about to stop."""

    enforces_edge = False
    store: Store

    def initialize(self, context: Context, store: Store) -> None:  # type: ignore[override]
        """Take the store to check."""
        super().initialize(context)
        self.store = store

    async def get(self) -> None:
        """Ping the store; answer 503 if it does not reply in time, or if the server is about to stop."""
        if self.context.in_flight.is_draining:
            self._refuse("stopping")
            return
        try:
            await self.store.ping()
        except StoreError:
            self._refuse("store unavailable")
        else:
            self.write({"status": "ok"})

    def _refuse(self, status: str) -> None:
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY_AFTER_S))
        self.write({"status": status})

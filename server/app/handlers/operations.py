"""What a supervisor asks: does the process live, does the store answer."""

from __future__ import annotations

from stormcellar.app.context import Context
from stormcellar.app.handlers.base import BaseHandler
from stormcellar.errors import RETRY_AFTER_S
from stormcellar.stores import Store, StoreError


class Health(BaseHandler):
    """`GET /healthz`: the process is alive, whatever the store does."""

    enforces_edge = False

    def get(self) -> None:
        """Answer."""
        self.write({"status": "ok"})


class Ready(BaseHandler):
    """`GET /readyz`: the store answers, so requests can be served."""

    enforces_edge = False
    store: Store

    def initialize(self, context: Context, store: Store) -> None:  # type: ignore[override]
        """Take the store to ask."""
        super().initialize(context)
        self.store = store

    async def get(self) -> None:
        """Ask the store; 503 if it does not answer in time."""
        try:
            await self.store.ping()
        except StoreError:
            self.set_status(503)
            self.set_header("Retry-After", str(RETRY_AFTER_S))
            self.write({"status": "store unavailable"})
        else:
            self.write({"status": "ok"})

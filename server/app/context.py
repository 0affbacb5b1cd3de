"""What all handlers share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from stormcellar.accounts.authenticator import Authenticator
from stormcellar.accounts.directory import AccountDirectory
from stormcellar.app.edge import Edge


class InFlight:
    """The number of requests in progress. A shutdown waits until it is zero."""

    def __init__(self) -> None:
        self.count = 0
        self.is_draining = False
        """Whether the server is about to stop, so that new requests should go elsewhere."""
        self._idle = asyncio.Event()

    def enter(self) -> None:
        """Add one."""
        self.count += 1

    def leave(self) -> None:
        """Subtract one."""
        self.count -= 1
        if not self.count:
            self._idle.set()

    async def drain(self) -> None:
        """Wait until no request is in progress."""
        self.is_draining = True
        while self.count:
            self._idle.clear()
            await self._idle.wait()


@dataclass(frozen=True)
class Context:
    """What all handlers share. `stormcellar.runtime.server` makes one per process."""

    accounts: AccountDirectory
    authenticator: Authenticator
    """Checks passwords, subject to the throttle."""
    carry: frozenset[str] = frozenset()
    """Session keys that survive sign-in."""
    edge: Edge = field(default_factory=Edge)
    in_flight: InFlight = field(default_factory=InFlight)

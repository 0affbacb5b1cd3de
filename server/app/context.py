"""What the handlers are given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from stormcellar.accounts.authenticator import Authenticator
from stormcellar.accounts.directory import AccountDirectory
from stormcellar.app.edge import Edge


class InFlight:
    """Counts the requests being answered, for a shutdown that waits for them."""

    def __init__(self) -> None:
        self.count = 0
        self.is_draining = False
        self._idle = asyncio.Event()

    def enter(self) -> None:
        """Count one more."""
        self.count += 1

    def leave(self) -> None:
        """Count one less."""
        self.count -= 1
        if self.is_draining and not self.count:
            self._idle.set()

    async def drain(self) -> None:
        """Wait until there is none."""
        self.is_draining = True
        if self.count:
            await self._idle.wait()


@dataclass(frozen=True)
class Context:
    """What the handlers are given: made once, by `stormcellar.runtime.server`."""

    accounts: AccountDirectory
    authenticator: Authenticator
    """Checks a password against the accounts, no oftener than the throttle allows."""
    carry: frozenset[str] = frozenset()
    """Session keys that survive sign-in."""
    edge: Edge = field(default_factory=Edge)
    in_flight: InFlight = field(default_factory=InFlight)

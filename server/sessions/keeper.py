"""`Keeper`: what a `Session` asks of whoever carries its verbs out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol

from stormcellar.stores import Delta

if TYPE_CHECKING:
    from stormcellar.sessions.session import Session


class Keeper(Protocol):
    """Carries out the verbs of a session, each as one atomic step in the store."""

    async def commit(self, session: Session, frozen: Delta | None = None) -> None:
        """Save what is pending, or *frozen*, which was pending when the handler finished."""

    async def login(
        self,
        session: Session,
        user: str,
        *,
        keep: Collection[str],
        auth_ms: int | None,
        remember: bool | None,
        afresh: bool,
    ) -> None:
        """Sign *user* in with a new ID."""

    async def logout(self, session: Session) -> None:
        """End the session."""

    async def renew(self, session: Session) -> None:
        """Change the ID."""

    async def renew_in_passing(self, session: Session, frozen: Delta) -> None:
        """Save *frozen*, and change the ID if nobody else does."""

    async def limit(self, session: Session, seconds: float) -> None:
        """Move the deadline forward, with a new ID."""

    async def modify(self, session: Session, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace one value atomically."""

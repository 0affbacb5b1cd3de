"""The session layer without HTTP: a manager, and clients that hold its cookie between requests."""

from __future__ import annotations

from typing import Any

from stormcellar import Lifetime, SessionManager
from stormcellar.sessions.account_check import Accounts
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import Client, CookieChange, FixedRequestInfo
from stormcellar.sessions.session import Session, state_of
from stormcellar.stores import Delta, Record, Store
from stormcellar.stores.memory import MemoryStore
from tests.support.fakes import Clock, SteeredStore

KEY = b"a signing key of the tests, 38 bytes .."
CLIENT = Client("192.0.2.7", "Mozilla/5.0 (a test)")

SAFE = FixedRequestInfo(CLIENT, is_safe=True)
UNSAFE = FixedRequestInfo(CLIENT, is_safe=False)
INSECURE = FixedRequestInfo(CLIENT, is_safe=False, may_set_cookie=False)


class AccountTimes:
    """An account directory with only one field per user: `valid_after` in Unix ms."""

    def __init__(self, users: dict[str, int]) -> None:
        self.users = users

    def valid_after(self, user: str) -> int | None:
        """Return the time after which a sign-in must be to be valid."""
        return self.users.get(user)


class Core:
    """One process: a manager on a steered store, with a clock that the test sets."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        clock: Clock | None = None,
        lifetime: Lifetime | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.store = SteeredStore(store if store is not None else MemoryStore())
        self.manager = SessionManager(
            self.store,
            secrets=[KEY],
            lifetime=lifetime or Lifetime(),
            accounts=accounts,
            clock=self.clock,
        )

    async def stored(self, sid: SessionId | None) -> Record:
        """Return the live record of *sid*."""
        assert sid is not None
        found = await self.store.inner.load(sid.credential, now_ms=self.manager.now_ms())
        assert isinstance(found, Record), found
        return found

    async def everything(self) -> list[Record]:
        """Return every live record."""
        return [record async for record in self.store.inner.scan(now_ms=self.manager.now_ms())]


class Visitor:
    """A browser that sends its session ID and updates it as each response requires."""

    def __init__(self, core: Core, sid: SessionId | None = None) -> None:
        self.core = core
        self.sid = sid

    def twin(self, core: Core | None = None) -> Visitor:
        """Return a copy with the current session ID; its requests go to *core*."""
        return Visitor(core or self.core, self.sid)

    async def request(self, request: FixedRequestInfo = UNSAFE) -> Session:
        """Start a request."""
        return await self.core.manager.load(self.sid, request)

    async def answer(self, session: Session) -> CookieChange:
        """End a request: save the session and apply the cookie change."""
        await session.commit()
        return self.take(session)

    def take(self, session: Session) -> CookieChange:
        """Apply the cookie change of the response."""
        state = state_of(session)
        if state.cookie is not CookieChange.KEEP:
            self.sid = state.sid if state.cookie is CookieChange.SET else None
        return state.cookie

    async def writes(self, **data: Any) -> Session:
        """Save *data* in one request."""
        session = await self.request()
        session.update(data)
        await self.answer(session)
        return session

    async def signs_in(self, user: str = "ada", **options: Any) -> Session:
        """Sign in, in one request."""
        session = await self.request()
        await session.login(user, **options)
        await self.answer(session)
        return session

    async def reads(self) -> dict[str, Any]:
        """Return the data of the session, as a page would show it."""
        return dict(await self.request(SAFE))


async def with_stored(core: Core, **raw: bytes) -> Visitor:
    """Return a visitor whose session contains *raw* JSON, written by another program."""
    visitor = Visitor(core)
    await visitor.writes(made=1)
    assert visitor.sid is not None
    await core.store.inner.apply(
        visitor.sid.credential, Delta(raw, frozenset({"made"})), now_ms=core.manager.now_ms(), expires_ms=None
    )
    return visitor

"""The session layer without HTTP: a manager, and visitors who hold its cookie from request to request."""

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
    """An account directory of which only the standing of its users matters: user -> valid_after in ms."""

    def __init__(self, users: dict[str, int]) -> None:
        self.users = users

    def valid_after(self, user: str) -> int | None:
        """Return the time that a sign-in must be later than."""
        return self.users.get(user)


class Core:
    """One process: a manager on a steered store, with a clock that the test moves."""

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
        """Return the live record behind *sid*."""
        assert sid is not None
        found = await self.store.inner.load(sid.credential, now_ms=self.manager.now_ms())
        assert isinstance(found, Record), found
        return found

    async def everything(self) -> list[Record]:
        """Return every live record."""
        return [record async for record in self.store.inner.scan(now_ms=self.manager.now_ms())]


class Visitor:
    """A browser: it sends the session ID it holds, and does with it what a response says."""

    def __init__(self, core: Core, sid: SessionId | None = None) -> None:
        self.core = core
        self.sid = sid

    def twin(self, core: Core | None = None) -> Visitor:
        """Return a second tab of this browser as of now, whose requests *core* answers."""
        return Visitor(core or self.core, self.sid)

    async def request(self, request: FixedRequestInfo = UNSAFE) -> Session:
        """Begin a request."""
        return await self.core.manager.load(self.sid, request)

    async def answer(self, session: Session) -> CookieChange:
        """End a request: save, and take the cookie."""
        await session.commit()
        return self.take(session)

    def take(self, session: Session) -> CookieChange:
        """Do with the cookie what the response of *session* says."""
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
        """Return what the session holds, as a page would show it."""
        return dict(await self.request(SAFE))


async def with_stored(core: Core, **raw: bytes) -> Visitor:
    """Return a visitor whose session holds *raw* JSON that another program wrote."""
    visitor = Visitor(core)
    await visitor.writes(made=1)
    assert visitor.sid is not None
    await core.store.inner.apply(
        visitor.sid.credential, Delta(raw, frozenset({"made"})), now_ms=core.manager.now_ms(), expires_ms=None
    )
    return visitor

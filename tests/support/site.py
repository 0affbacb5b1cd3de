"""The login server on a loopback port, with any store, known accounts and a controllable clock."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import argon2
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.netutil import bind_sockets

from stormcellar.accounts.authenticator import Authenticator
from stormcellar.accounts.directory import Account, AccountDirectory, MemoryAccounts
from stormcellar.accounts.passwords import PasswordChecker
from stormcellar.accounts.throttle import Rules
from stormcellar.addresses import Network
from stormcellar.app.context import Context
from stormcellar.app.edge import Edge
from stormcellar.app.routes import make_app
from stormcellar.events import Event
from stormcellar.lifetime import Lifetime
from stormcellar.runtime.connections import Connections
from stormcellar.runtime.http_server import LimitedServer
from stormcellar.runtime.server import RateLimits
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.sessions.manager import SessionManager
from stormcellar.stores import Record, Store
from tests.support.browser import Browser
from tests.support.fakes import Clock, SteeredStore

KEY = "a signing key of the tests, 32 bytes or more"
PASSWORD = "correct horse battery staple"
JSON = "application/json"
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

_HASH = CHEAP.hash(PASSWORD)
USERS = ("alice", "bob", "carol")
ACCOUNTS = {name: Account(_HASH, valid_after_ms=0) for name in USERS}
ACCOUNTS["dora"] = Account(_HASH, valid_after_ms=0, disabled=True)


class Site:
    """One running server. `store` is steered, so a test can make calls fail or wait, and count them.

    `events` holds all events so far. The server uses plain HTTP unless *tls* is given. With a secure *edge*
    the cookie is `__Host-id`, as behind a proxy.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        accounts: AccountDirectory | None = None,
        checker: PasswordChecker | None = None,
        carry: frozenset[str] = frozenset(),
        lifetime: Lifetime = Lifetime(),  # noqa: B008  frozen
        proxies: tuple[Network, ...] = (),
        edge: Edge | None = None,
        rules: Rules = Rules(),  # noqa: B008  frozen
        visitors: int = 100_000,
        samesite: str = "Lax",
        rechecks: Rechecks = Rechecks(),  # noqa: B008  frozen
        tls: ssl.SSLContext | None = None,
        authority: Path | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.store = SteeredStore(store)
        self.checker = checker or PasswordChecker(argon2_hasher=CHEAP)
        accounts = accounts or MemoryAccounts(ACCOUNTS, checker=self.checker, clock=self.clock)
        edge = edge or Edge(trusted_proxies=proxies, is_secure=bool(proxies))
        limits = RateLimits(self.store, rules, key=KEY, visitors=visitors, clock=self.clock)
        self.sessions = SessionManager(
            self.store,
            secrets=[KEY],
            lifetime=lifetime,
            secure=edge.is_secure,
            samesite=samesite,
            accounts=accounts,
            admit=limits.visitors.admit,
            rechecks=rechecks,
            clock=self.clock,
        )
        self.events: list[Event] = []
        self.sessions.events.subscribe(self.events.append)
        authenticator = Authenticator(accounts, limits.throttle, self.sessions.events)
        self.context = Context(accounts, authenticator, carry, edge)
        app = make_app(self.sessions, self.context)
        self._http = LimitedServer(app, connections=Connections(), tls=tls)
        sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET)
        self._http.add_sockets(sockets)
        self.port: int = sockets[0].getsockname()[1]
        self.base = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        trusted = {"ca_certs": str(authority)} if authority else None
        self.client = AsyncHTTPClient(force_instance=True, max_clients=200, defaults=trusted)

    def browser(self) -> Browser:
        """Return a browser without cookies."""
        return Browser(self.client, self.base)

    async def signed_in(self, user: str = "alice") -> Browser:
        """Return a browser in which *user* has signed in."""
        browser = self.browser()
        response = await sign_in(browser, user)
        assert response.code == 303
        return browser

    async def records(self) -> list[Record]:
        """Return every live record in the store."""
        return [record async for record in self.store.scan(now_ms=self.sessions.now_ms())]

    async def raw(self, sent: bytes) -> bytes:
        """Send bytes over a new connection; return all received bytes until the server closes it."""
        return await raw(self.port, sent)

    async def close(self) -> None:
        """Stop the server and close its resources."""
        self.client.close()
        self._http.stop()
        await self._http.close_all_connections()
        await self.sessions.aclose()
        self.checker.close()


OpenSite = Callable[..., Site]


async def raw(port: int, sent: bytes) -> bytes:
    """Send bytes to *port* of loopback; return all received bytes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def sign_in(
    browser: Browser, user: str = "alice", password: str = PASSWORD, **fields: str
) -> HTTPResponse:
    """Open, fill in and send the sign-in form."""
    return await browser.submit("/login", "/login", username=user, password=password, **fields)


def session_secret(site: Site, browser: Browser) -> str:
    """Return the secret in the browser's session ID."""
    sid = site.sessions.cookies.read([f"id={browser.cookies['id']}"])
    assert sid is not None
    return sid.secret


def session_handle(site: Site, browser: Browser) -> str:
    """Return the handle in the browser's session ID."""
    sid = site.sessions.cookies.read([f"id={browser.cookies['id']}"])
    assert sid is not None
    return sid.handle


_RANDOM = (
    (re.compile(r"(?<=\")[A-Za-z0-9_-]{86}(\.[A-Za-z0-9_-]{86})?(?=\")"), "TOKEN"),
    (re.compile(r"\b(id=)2\|[^;]+"), r"\1SIGNED"),
    (re.compile(r"\b(id-form=)[A-Za-z0-9_-]{43}"), r"\1NONCE"),
    (re.compile(r"\b(id-device=)[A-Za-z0-9_-]{22}"), r"\1DEVICE"),
)


def mask(text: str) -> str:
    """Return *text* with each random part replaced by its name."""
    for pattern, name in _RANDOM:
        text = pattern.sub(name, text)
    return text


def seen(response: HTTPResponse) -> tuple[int, list[tuple[str, str]], str]:
    """Return status, headers and body of a response, with random parts masked."""
    headers = [(name, mask(value)) for name, value in response.headers.get_all()]
    return response.code, sorted(h for h in headers if h[0] not in ("Date",)), mask(response.body.decode())

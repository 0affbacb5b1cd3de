"""`Server`: one process of the standalone server, and the parts that it connects."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence

from tornado.web import Application

from stormcellar.accounts.authenticator import Authenticator
from stormcellar.accounts.directory import AccountDirectory
from stormcellar.accounts.throttle import Rules, Throttle, counters_of
from stormcellar.accounts.visitor_limit import VisitorLimit
from stormcellar.app.context import Context
from stormcellar.app.edge import Edge
from stormcellar.app.handlers.redirect import make_redirect_app
from stormcellar.app.routes import make_app
from stormcellar.events import Kind
from stormcellar.runtime.connections import Connections
from stormcellar.runtime.http_server import LimitedServer
from stormcellar.runtime.reloadable import Reloadable
from stormcellar.runtime.settings import Settings
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.signing import KeyRing
from stormcellar.stores import Store

log = logging.getLogger("stormcellar")

DRAIN_S = 10.0
ACCOUNTS_EVERY_S = 1.0
"""How often a process looks whether the accounts have changed; sessions that are not held are checked at each
request."""
SIGN_AFTER_S = 5.0
"""For this time a new first key only verifies, until every process of the site has read it."""


class RateLimits:
    """The limits that are counted in *store*: sign-in attempts, and new sessions of visitors.

    Args:
        key: A signing key, the same in all processes of a site.
        visitors: How many sessions visitors may create in an hour from one address.
        clock: Unix time in seconds.
    """

    def __init__(
        self, store: Store, rules: Rules, *, key: str, visitors: int, clock: Callable[[], float] = time.time
    ) -> None:
        counters = counters_of(store)
        self.throttle = Throttle(counters, key=b"", rules=rules, clock=clock)
        self.visitors = VisitorLimit(counters, key=b"", per_address=visitors, clock=clock)
        self.use_key(key)

    def use_key(self, key: str) -> None:
        """Count under keys derived from *key*. With another key all counts start again at zero."""
        keys = KeyRing([key])
        self.throttle.use_key(keys.derive("throttle")[0])
        self.visitors.use_key(keys.derive("newcomers")[0])  # the label is part of every stored key


class Server:
    """One process of the standalone server.

    Args:
        accounts: The account directory.
        reloadable: The signing keys, the TLS context and the audit log.
    """

    def __init__(self, settings: Settings, *, accounts: AccountDirectory, reloadable: Reloadable) -> None:
        self._reloadable = reloadable
        self._keys = reloadable.keys
        store = settings.open_store()
        rules = Rules(settings.login_attempts, settings.login_attempts_per_address)
        # With the last key: adding a key leaves it in place, so counts restart only when it is dropped.
        self._rate_limits = RateLimits(
            store, rules, key=reloadable.keys[-1], visitors=settings.visitors_per_address
        )
        self.sessions = SessionManager(
            store,
            secrets=reloadable.keys,
            lifetime=settings.lifetime,
            secure=settings.secure,
            cookie_name=settings.cookie_name,
            samesite=settings.cookie_samesite,
            cookie_domain=settings.cookie_domain,
            accounts=accounts,
            admit=self._rate_limits.visitors.admit,
            on_reuse=settings.on_reuse,
            rechecks=Rechecks(every_s=settings.recheck),
        )
        self.sessions.events.subscribe(reloadable.audit)
        authenticator = Authenticator(accounts, self._rate_limits.throttle, self.sessions.events)
        self.context = Context(accounts, authenticator, settings.carry, settings.edge)
        self._connections = Connections(settings.connection_limits)
        self._drain_s = settings.drain_s
        self._http = self._make_http(make_app(self.sessions, self.context), reloadable.tls)
        self._servers = [self._http]
        self._timer: asyncio.TimerHandle | None = None

    async def run(
        self,
        sockets: list[socket.socket],
        stop: asyncio.Event,
        *,
        redirect_sockets: Sequence[socket.socket] = (),
        may_wait: Callable[[], bool] = lambda: True,
    ) -> None:
        """Serve until *stop* is set; then wait for the balancer, and finish the requests in flight.

        Args:
            redirect_sockets: The sockets that redirect plain HTTP to TLS.
            may_wait: Called after the stop: whether to go on accepting connections for the time of --drain.
        """
        self._http.add_sockets(sockets)
        if redirect_sockets:
            edge = Edge(allowed_hosts=self.context.edge.allowed_hosts)
            redirect = self._make_http(make_redirect_app(edge, sockets[0].getsockname()[1]), None)
            redirect.add_sockets(redirect_sockets)
            self._servers.append(redirect)
        following = asyncio.ensure_future(self._follow_accounts())
        await stop.wait()
        await self.drain(self._drain_s if may_wait() else 0.0)
        following.cancel()

    def _make_http(self, app: Application, tls: ssl.SSLContext | None) -> LimitedServer:
        proxies = self.context.edge.trusted_proxies
        return LimitedServer(app, connections=self._connections, uncounted=proxies, tls=tls)

    def reload(self) -> None:
        """Read signing keys and certificate again, and reopen the audit log. Sessions stay valid."""
        read = self._reloadable.reload()
        # Tornado reads it for each new connection (tcpserver.py, _handle_connection).
        self._http.ssl_options = self._reloadable.tls
        self._use_keys()
        self.sessions.events.emit(Kind.RELOADED, reason=", ".join(read) or "nothing")

    def _use_keys(self) -> None:
        """Verify with new keys now, sign with a new first key after `SIGN_AFTER_S`; drop missing keys now."""
        before, after = self._keys, self._reloadable.keys
        self._rate_limits.use_key(after[-1])
        self.sessions.use_keys(
            [*(key for key in before if key in after), *(key for key in after if key not in before)]
        )
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(SIGN_AFTER_S, self._sign_with, after)

    def _sign_with(self, keys: list[str]) -> None:
        self._keys = keys
        self.sessions.use_keys(keys)

    async def _follow_accounts(self) -> None:
        """Have the accounts of open streams and sockets checked whenever some account has changed."""
        accounts = self.context.accounts
        known = accounts.revision()
        while True:
            await asyncio.sleep(ACCOUNTS_EVERY_S)
            if (revision := accounts.revision()) is not known:
                known = revision
                await self.sessions.watch.check_accounts()

    async def drain(self, wait_s: float = 0.0) -> None:
        """Stop accepting after *wait_s*, finish the requests and commits in flight, close the store.

        Until then `/readyz` answers 503, so that a balancer sends its requests elsewhere, and each connection
        ends with its next response. Streams and sockets end when the port is closed: before, their clients
        could connect to this server again.
        """
        self.context.in_flight.is_draining = True
        for each in self._servers:
            each.close_after_responses()
        if wait_s:
            log.info(
                "stopping in %g s; until then /readyz answers 503; a second signal stops at once", wait_s
            )
            await asyncio.sleep(wait_s)
        for each in self._servers:
            each.stop()
        if self._timer is not None:
            self._timer.cancel()
        await _within_time_limit("end the streams", self.sessions.watch.aclose())
        await _within_time_limit("finish the requests in flight", self._finish_requests())
        for each in self._servers:
            await _within_time_limit("close the connections", each.close_all_connections())
        await _within_time_limit("close the store", self.sessions.aclose())

    async def _finish_requests(self) -> None:
        # Both: a request has no handler before its body, and no connection if its client hangs up.
        await self._connections.wait_until_idle()
        await self.context.in_flight.drain()


async def _within_time_limit(what: str, work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            await work
    except TimeoutError:
        log.warning("could not %s within %.0f s", what, DRAIN_S)


def tune_garbage_collector() -> None:
    """Exempt the objects made at start-up from collection, and collect young objects less often.

    Only for processes of the standalone server: an application that embeds the sessions decides for itself.
    """
    # Imports make 30 000 objects that stay; each full collection took 12 ms to traverse them.
    gc.collect()
    gc.freeze()
    # Collect after 10 000 net allocations, not 700: objects of requests in flight are not garbage. That takes
    # 0-0.7 % of the CPU time instead of 3-8 %; traversing 10 000 objects takes 1.2 ms.
    gc.set_threshold(10_000, 10, 10)

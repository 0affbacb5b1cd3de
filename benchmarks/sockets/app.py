"""The application under test of `make bench-live`: sockets, and each way to end a session.

    python -m benchmarks.sockets.app --store redis://127.0.0.1:6379/0 --port 8000

Prints `ready` when it accepts connections. SIGTERM drains it: every socket is closed with 1001. All are GET:

    /bare           hello, without a session: the baseline
    /start?user=    signs the user in; ?within_s= limits the life of the session. Responds its times as JSON
    /logout         ends the session of the request
    /login          signs the same user in again, which replaces the session ID
    /revoke?handle= ends another session of the same user
    /revoke_others  ends all other sessions of the same user
    /usage          memory, CPU time and the longest block of the event loop, as JSON
    /socket         a socket of the session; /visitor: without a session; /plain: without our mixin
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from benchmarks.harness.app import Bare
from benchmarks.harness.bulk_sessions import DATA, PREFIX, create_sessions
from benchmarks.harness.loop import run
from stormcellar import Lifetime, SessionManager, SessionMixin, SessionSocketMixin, session_settings
from stormcellar.accounts.directory import FileAccounts
from stormcellar.accounts.passwords import PasswordChecker
from stormcellar.runtime.server import tune_garbage_collector
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.stores import Handle, open_store

TICK_S = 0.001
LONGEST_IDLE_S = 1800.0


class Block:
    """How long the event loop runs other callbacks before a timer that is due, in CPU time.

    CPU time, because other processes may use the core meanwhile.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last_s = time.thread_time()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, *, is_on: bool) -> None:
        """Begin anew, or stop: the timer itself takes about one per cent of a core."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if is_on:
            self.longest_s, self._last_s = 0.0, time.thread_time()
            self._tick()

    def _tick(self) -> None:
        now_s = time.thread_time()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s = now_s
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)


class Start(SessionMixin, RequestHandler):
    """Sign `?user=` in."""

    async def get(self) -> None:
        """Respond with the handle and the times of the session."""
        self.session.update(DATA)
        await self.session.login(self.get_query_argument("user"), keep=self.session.keys())
        if (within_s := self.get_query_argument("within_s", "")) != "":
            await self.session.expire_in(float(within_s))
        record = self.session.record
        assert record is not None
        self.write({"handle": record.handle, "over_ms": min(record.expires_ms, record.deadline_ms)})


class SignedIn(SessionMixin, RequestHandler):
    """A handler for signed-in users."""

    login_required = True
    session_activity = False


class Logout(SignedIn):
    """End this session."""

    async def get(self) -> None:
        """Respond when it has ended."""
        await self.session.logout()


class Login(SignedIn):
    """Replace the session ID."""

    async def get(self) -> None:
        """Respond with the new cookie."""
        await self.session.login(self.current_user)


class Revoke(SignedIn):
    """End another session."""

    async def get(self) -> None:
        """Respond when it has ended."""
        if not await self.sessions.revoke(self.current_user, self.get_query_argument("handle")):
            self.set_status(404)


class RevokeOthers(SignedIn):
    """Sign out everywhere else."""

    async def get(self) -> None:
        """Respond with the number of ended sessions."""
        assert self.session.handle is not None
        self.write(str(await self.sessions.revoke_others(self.current_user, than=self.session.handle)))


class Usage(RequestHandler):
    """What this process uses."""

    def initialize(self, block: Block) -> None:
        """Take the measurement of the event loop."""
        self._block = block

    def get(self) -> None:
        """Respond, and begin to measure the longest block if `?block=1`."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.write(
            {
                "rss_bytes": pages * resource.getpagesize(),
                "cpu_s": time.process_time(),
                "block_ms": 1000 * self._block.longest_s,
            }
        )
        self._block.watch(is_on=self.get_query_argument("block", "0") == "1")


class Socket(SessionSocketMixin, WebSocketHandler):
    """A socket that ends with its session."""

    max_sockets_per_session = max_sockets_per_address = 1_000_000

    def on_message(self, message: str | bytes) -> None:
        """Repeat it."""
        self.write_message(message)


class VisitorSocket(Socket):
    """The same for visitors."""

    socket_visitors = True


class PlainSocket(WebSocketHandler):
    """A socket of Tornado alone."""

    def on_message(self, message: str | bytes) -> None:
        """Ignore it."""


ROUTES: list[Any] = [
    *(("/bare", Bare), ("/start", Start), ("/logout", Logout), ("/login", Login)),
    *(("/revoke", Revoke), ("/revoke_others", RevokeOthers)),
    *(("/socket", Socket), ("/visitor", VisitorSocket), ("/plain", PlainSocket)),
]


async def announce_nothing() -> AsyncGenerator[Handle | None, None]:
    """Stand for the announcements of a store that is not heard any more."""
    await asyncio.Event().wait()
    yield None


def make_manager(options: argparse.Namespace) -> SessionManager:
    """Return the sessions for the options of the command line."""
    store: Any = open_store(options.store, prefix=PREFIX, max_sessions=options.sessions + 100_000)
    if options.deaf:
        store.gone = announce_nothing
    accounts = FileAccounts(options.accounts, checker=PasswordChecker()) if options.accounts else None
    return SessionManager(
        store,
        secrets=[bytes.fromhex(options.key)],
        lifetime=Lifetime(
            idle_s=options.idle_s, anonymous_s=options.idle_s, touch_after_s=min(60, 0.9 * options.idle_s)
        ),
        accounts=accounts,
        rechecks=Rechecks(every_s=options.recheck_s),
    )


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM, then close every socket."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sessions = make_manager(options)
    await sessions.store.ping()
    await create_sessions(sessions.store, options.sessions, now_ms=sessions.now_ms())
    app = Application(
        [*ROUTES, ("/usage", Usage, {"block": Block()})],
        **session_settings(sessions, log_function=lambda handler: None),
    )
    http = HTTPServer(app)
    http.add_sockets(bind_sockets(options.port, "127.0.0.1", backlog=1024))
    tune_garbage_collector()
    print("ready", flush=True)
    await stop.wait()
    http.stop()
    await sessions.watch.aclose()
    await asyncio.sleep(0.5)  # the clients answer the close frames
    await http.close_all_connections()
    await sessions.aclose()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="benchmarks.sockets.app", description="Run the application.")
    parser.add_argument("--store", default="memory", help="URL (default: memory)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True, help="signing key in hexadecimal")
    parser.add_argument("--sessions", type=int, default=0, help="sessions to create first (default: 0)")
    parser.add_argument("--accounts", type=Path, help="account file; without it every sign-in counts")
    parser.add_argument("--recheck-s", type=float, default=15.0, help="default: 15")
    parser.add_argument("--idle-s", type=float, default=LONGEST_IDLE_S, help="default: half an hour")
    parser.add_argument("--deaf", action="store_true", help="hear no announcement of the store")
    run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()

"""`serve`: from settings to a listening server, in one process or several."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tornado.netutil import bind_sockets

from server import logs
from server.accounts import Account, AccountDirectory, AccountFile, FileAccounts, MemoryAccounts
from server.app import Server
from server.config import ConfigError, Settings
from server.keys import load_keys
from server.passwords import PasswordChecker, hash_password
from server.processes import run_apart, run_forked
from stores import StoreRefused

log = logging.getLogger("stormcellar")

DEMO_USER = "demo"


@dataclass(frozen=True)
class Plan:
    """What is decided before any process is forked, and so is the same in all of them."""

    settings: Settings
    keys: list[str]
    demo_password: str
    demo: dict[str, Account]

    def accounts(self) -> AccountDirectory:
        """Open the accounts; from here on there are threads."""
        checker = PasswordChecker()
        if self.demo:
            return MemoryAccounts(self.demo, checker=checker)
        return FileAccounts(self.settings.accounts, checker=checker)


def serve(settings: Settings) -> int:
    """Serve until told to stop; return the exit status.

    Raises:
        ConfigError: Something is wrong that only a change of the set-up mends.
    """
    logs.set_up(settings.log_level)
    plan = _plan(settings)
    if settings.processes == 1:
        return _run(lambda: _serve_alone(plan))
    if run_apart(lambda: _run(lambda: _check_store(plan))):
        return 2
    sockets = _listen(plan)
    return run_forked(settings.processes, lambda pipe: _run(lambda: _serve_as_child(plan, sockets, pipe)))


def report(error: Exception) -> int:
    """Say on standard error what stops the start, one line each, and return exit status 2."""
    for line in str(error).splitlines():
        print(f"stormcellar: {line}", file=sys.stderr)
    return 2


def _plan(settings: Settings) -> Plan:
    password = secrets.token_urlsafe(12)
    try:
        keys = load_keys(settings.secret_file)
        has_accounts = bool(AccountFile(settings.accounts).read())
    except (OSError, ValueError) as exc:
        raise ConfigError(str(exc)) from exc
    if not settings.demo:
        if not has_accounts:
            log.warning("there are no accounts, so nobody can sign in; add one with: accounts add NAME")
        return Plan(settings, keys, "", {})
    # Valid from now on: a session of an earlier start had another password.
    account = Account(hash_password(password), valid_after_ms=int(time.time() * 1000) - 1)
    return Plan(settings, keys, password, {DEMO_USER: account})


def _run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run *main* on uvloop if it is installed, else on asyncio's own loop."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main())
    except (ConfigError, StoreRefused) as exc:
        return report(exc)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _check_store(plan: Plan) -> int:
    server = Server(plan.settings, accounts=plan.accounts(), keys=plan.keys)
    await server.check_store()
    await server.sessions.aclose()
    return 0


async def _serve_alone(plan: Plan) -> int:
    server = Server(plan.settings, accounts=plan.accounts(), keys=plan.keys)
    stop = _stop_on_signals()
    await server.check_store()
    await server.run(_listen(plan), stop)
    return 0


async def _serve_as_child(plan: Plan, sockets: list[socket.socket], pipe: int) -> int:
    server = Server(plan.settings, accounts=plan.accounts(), keys=plan.keys)
    stop = _stop_on_signals()
    # End of file: the parent is gone, and with it whoever would have told us to stop.
    asyncio.get_running_loop().add_reader(pipe, stop.set)
    await server.run(sockets, stop)
    return 0


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, stop)
    return stop


def _on_signal(stop: asyncio.Event) -> None:
    """Stop at the first signal; a second one does not wait for requests in flight."""
    if stop.is_set():
        raise SystemExit(1)
    stop.set()


def _listen(plan: Plan) -> list[socket.socket]:
    settings = plan.settings
    try:
        sockets = bind_sockets(settings.port, settings.address)
    except OSError as exc:
        reason = f"cannot listen on {settings.address}:{settings.port}: {exc.strerror or exc}"
        raise ConfigError(f"--port: {reason}") from exc
    host = f"[{settings.address}]" if ":" in settings.address else settings.address
    scheme = settings.store.partition(":")[0]
    print(f"Stormcellar on http://{host}:{sockets[0].getsockname()[1]}, sessions in {scheme}", flush=True)
    if plan.demo:
        print(f"Demo account: user name {DEMO_USER}, password {plan.demo_password}", flush=True)
    return sockets

"""`serve`: check the settings, open the sockets, and start the server in one process or several."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tornado.netutil import bind_sockets

from stormcellar.accounts.account_file import new_id
from stormcellar.accounts.directory import Account, AccountDirectory, AccountFile, FileAccounts
from stormcellar.accounts.passwords import PasswordChecker, hash_password
from stormcellar.app import logging_setup
from stormcellar.app.audit_log import AuditLog
from stormcellar.private_files import describe
from stormcellar.runtime.process_group import (
    RELOAD_SIGNAL,
    STOP_SIGNALS,
    ProcessLimits,
    blocked_signals,
    reap_orphans,
    run_in_child,
    run_process_group,
    shared_socket,
    unblock_signals,
)
from stormcellar.runtime.reloadable import Reloadable, load_tls
from stormcellar.runtime.server import Server, tune_garbage_collector
from stormcellar.runtime.settings import Settings, SettingsError
from stormcellar.runtime.signing_key_file import read_or_create_keys
from stormcellar.runtime.store_clock import ahead_s, problem_with
from stormcellar.sessions.signing import KeyRing
from stormcellar.stores import ReplicasMissing, StoreRefused, StoreUnavailable
from stormcellar.stores.errors import problem_of

log = logging.getLogger("stormcellar")

DEMO_USER = "demo"
REAP_EVERY_S = 1.0
BACKLOG = 1024
"""Connections that wait in the queue of the system; if it is full, a client tries again after a second."""


@dataclass(frozen=True)
class Startup:
    """What is loaded before any process is forked, the same in all of them."""

    settings: Settings
    reloadable: Reloadable
    demo_password: str = field(repr=False)
    demo_accounts: dict[str, Account]

    def open_accounts(self) -> AccountDirectory:
        """Open the accounts. Call it after the fork: the password checker starts threads.

        Raises:
            SettingsError: The account file has become invalid since it was checked.
        """
        settings, is_alone = self.settings, self.settings.processes == 1
        try:
            return FileAccounts(
                settings.accounts,
                checker=PasswordChecker(),
                until_made=self.demo_accounts,
                is_alone=is_alone,
                # The last key, as for the throttle: it stays in place when a key is added.
                key=KeyRing([self.reloadable.keys[-1]]).derive("names")[0],
            )
        except (OSError, ValueError) as exc:
            raise SettingsError(describe(exc)) from exc


@dataclass(frozen=True)
class Listeners:
    """The listening sockets that the processes share."""

    sockets: list[socket.socket]
    redirect_sockets: list[socket.socket]
    """Those of the port that redirects plain HTTP."""


def serve(settings: Settings) -> int:
    """Serve until a signal stops the server; return the exit status.

    Raises:
        SettingsError: The server cannot start with these settings or files.
    """
    logging_setup.set_up(settings.log_level, settings.log_format)
    with blocked_signals():
        startup = prepare(settings)
        if settings.processes == 1:
            return _run(lambda: _serve_alone(startup))
        # In a child: the parent must not have an event loop or a connection when it forks.
        if status := run_in_child(lambda: _run(lambda: _check_store(settings))):
            return status
        listeners = listen(startup)
        parent_pid = os.getpid()
        return run_process_group(
            settings.processes,
            lambda parent: _run(lambda: _serve_as_child(startup, listeners, parent, parent_pid)),
            sockets=[*listeners.sockets, *listeners.redirect_sockets],
            reload=startup.reloadable.reload,
            limits=ProcessLimits(drain_s=ProcessLimits.drain_s + settings.drain_s),
        )


def prepare(settings: Settings) -> Startup:
    """Read keys, certificate and accounts; create the demo account if the settings ask for it.

    Raises:
        SettingsError: A file is missing, invalid or accessible to others.
    """
    problems: list[str] = []

    def load(option: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except OSError as exc:
            problems.append(settings.describe(exc, option))
        except ValueError as exc:
            problems.append(f"{settings.label(option)}: {describe(exc)}")

    keys = load("secret_file", lambda: read_or_create_keys(settings.secret_file))
    accounts = load("accounts", lambda: AccountFile(settings.accounts).read())
    tls = load("tls_cert", lambda: load_tls(settings))
    audit = load("audit_log", lambda: AuditLog(settings.audit_log))
    if problems:
        raise SettingsError(*problems)
    reloadable = Reloadable(settings, keys, tls, audit)
    if not settings.demo:
        if not accounts:
            log.warning(
                "nobody can sign in: no account in %s; add one with: accounts add NAME",
                settings.place("accounts"),
            )
        return Startup(settings, reloadable, "", {})
    password = secrets.token_urlsafe(12)
    # Valid from now on: sessions from before the start used another password.
    account = Account(hash_password(password), valid_after_ms=int(time.time() * 1000) - 1, id=new_id())
    return Startup(settings, reloadable, password, {DEMO_USER: account})


def _run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run *main* on uvloop if it is installed, else on the default event loop."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main())
    except SettingsError as exc:
        return exc.report()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _serve_alone(startup: Startup) -> int:
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, _stop_once, stop)
    if os.getpid() == 1:
        _reap_orphans()
    unblock_signals(STOP_SIGNALS)
    await _check_store(startup.settings)
    await _serve(startup, listen(startup), stop)
    return 0


async def _serve(
    startup: Startup,
    listeners: Listeners,
    stop: asyncio.Event,
    may_wait: Callable[[], bool] = lambda: True,
) -> None:
    server = Server(startup.settings, accounts=startup.open_accounts(), reloadable=startup.reloadable)
    asyncio.get_running_loop().add_signal_handler(RELOAD_SIGNAL, server.reload)
    unblock_signals()
    tune_garbage_collector()
    await server.run(listeners.sockets, stop, redirect_sockets=listeners.redirect_sockets, may_wait=may_wait)


def _stop_once(stop: asyncio.Event) -> None:
    """Stop gracefully, and let the next signal end the process at once."""
    stop.set()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        # The default action does not end process 1 of a container (pid_namespaces(7)).
        signal.signal(number, _exit_at_once if os.getpid() == 1 else signal.SIG_DFL)


def _reap_orphans() -> None:
    """Reap now and from time to time: uvloop allows no handler for SIGCHLD."""
    reap_orphans()
    asyncio.get_running_loop().call_later(REAP_EVERY_S, _reap_orphans)


def _exit_at_once(number: int, _: object) -> NoReturn:
    os._exit(128 + number)


async def _serve_as_child(startup: Startup, listeners: Listeners, parent: int, parent_pid: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Any number of signals: the parent and a supervisor may each send one.
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(parent, _stop_with_parent, parent, stop)
    # Without its parent it frees the port at once, for the server that is started next.
    await _serve(startup, listeners, stop, may_wait=lambda: os.getppid() == parent_pid)
    return 0


def _stop_with_parent(parent: int, stop: asyncio.Event) -> None:
    """Stop at the end of file of *parent*. It stays readable, so remove the reader."""
    asyncio.get_running_loop().remove_reader(parent)
    stop.set()


async def _check_store(settings: Settings) -> int:
    """Ping the store before listening. If it does not answer, only log: it may answer later.

    Raises:
        SettingsError: The store refuses the credentials, a right or its set-up.
    """
    store = settings.open_store()
    store.counters()  # so that their rights are tried, too
    try:
        await store.ping()
        if difference := problem_with(await ahead_s(store)):
            log.warning("the store: %s", difference)
    except StoreRefused as exc:
        raise SettingsError(f"{settings.label('store')}: {problem_of(exc)}") from exc
    except ReplicasMissing as exc:
        log.warning("the store: %s", problem_of(exc))
    except StoreUnavailable as exc:
        log.warning("the store does not serve yet: %s. /readyz reports when it does", problem_of(exc))
    finally:
        await store.aclose()
    return 0


def listen(startup: Startup) -> Listeners:
    """Listen, and print the addresses and the demo account.

    Raises:
        SettingsError: The address or a port is not available.
    """
    settings = startup.settings
    sockets = _bind(settings, "port", settings.port)
    redirect_sockets: list[socket.socket] = []
    if settings.http_redirect_port is not None:
        redirect_sockets = _bind(settings, "http_redirect_port", settings.http_redirect_port)
    scheme = "https" if settings.tls_cert else "http"
    redirected = f", http://{_place(settings, redirect_sockets)} redirects there" if redirect_sockets else ""
    where = f"{scheme}://{_place(settings, sockets)}, sessions in {settings.store_kind}{redirected}"
    print(f"Stormcellar on {where}", flush=True)
    if startup.demo_accounts:
        print(f"Demo account: user name {DEMO_USER}, password {startup.demo_password}", flush=True)
    return Listeners(sockets, redirect_sockets)


def _bind(settings: Settings, option: str, port: int) -> list[socket.socket]:
    try:
        sockets = bind_sockets(port, settings.address, backlog=BACKLOG)
    except OSError as exc:
        label = settings.label("address" if exc.errno == errno.EADDRNOTAVAIL else option)
        advice = f"choose another with {label}"
        where = f"{_bracketed(settings.address)}:{port}"
        raise SettingsError(f"{label}: cannot listen on {where}: {exc.strerror}; {advice}") from exc
    return [shared_socket(each) for each in sockets] if settings.processes > 1 else sockets


def _place(settings: Settings, sockets: list[socket.socket]) -> str:
    return f"{_bracketed(settings.address)}:{sockets[0].getsockname()[1]}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address

"""`serve`: from settings to a listening server, in one process or several."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tornado.netutil import bind_sockets

from stormcellar.accounts.directory import Account, AccountDirectory, AccountFile, FileAccounts
from stormcellar.accounts.passwords import PasswordChecker, hash_password
from stormcellar.app import logging_setup
from stormcellar.app.audit_log import AuditLog
from stormcellar.private_files import describe
from stormcellar.runtime.process_group import (
    RELOAD_SIGNAL,
    STOP_SIGNALS,
    blocked_signals,
    run_in_child,
    run_process_group,
    shared_socket,
    unblock_signals,
)
from stormcellar.runtime.reloadable import Reloadable, load_tls
from stormcellar.runtime.server import Server, tune_garbage_collector
from stormcellar.runtime.settings import Settings, SettingsError
from stormcellar.runtime.signing_key_file import read_or_create_keys
from stormcellar.stores import StoreRefused, StoreUnavailable
from stormcellar.stores.errors import failure_reason, refusal_message

log = logging.getLogger("stormcellar")

DEMO_USER = "demo"


@dataclass(frozen=True)
class Plan:
    """What is decided before any process is forked, and so is the same in all of them."""

    settings: Settings
    reloadable: Reloadable
    demo_password: str = field(repr=False)
    demo: dict[str, Account]

    def accounts(self) -> AccountDirectory:
        """Open the accounts; from here on there can be threads.

        Raises:
            SettingsError: The file was spoiled since it was looked at.
        """
        settings, is_alone = self.settings, self.settings.processes == 1
        try:
            return FileAccounts(
                settings.accounts, checker=PasswordChecker(), until_made=self.demo, is_alone=is_alone
            )
        except (OSError, ValueError) as exc:
            raise SettingsError(describe(exc)) from exc


@dataclass(frozen=True)
class Listening:
    """The sockets that the processes share."""

    sockets: list[socket.socket]
    plain: list[socket.socket]
    """Those of the plain HTTP port, which redirects."""


def serve(settings: Settings) -> int:
    """Serve until told to stop; return the exit status.

    Raises:
        SettingsError: Something is wrong that only a change of the set-up mends.
    """
    logging_setup.set_up(settings.log_level, settings.log_format)
    with blocked_signals():
        plan = make_plan(settings)
        if settings.processes == 1:
            return _run(lambda: _serve_alone(plan))
        # Not in this process, which must not have had a loop or a connection when it forks.
        if status := run_in_child(lambda: _run(lambda: _check_store(settings))):
            return status
        listening = listen(plan)
        return run_process_group(
            settings.processes,
            lambda parent: _run(lambda: _serve_as_child(plan, listening, parent)),
            sockets=[*listening.sockets, *listening.plain],
            reload=plan.reloadable.reload,
        )


def make_plan(settings: Settings) -> Plan:
    """Read keys, certificate and accounts, and make the demo account if there is to be one.

    Raises:
        SettingsError: A file is missing, unfit or may be read by others.
    """
    problems: list[str] = []
    keys = _read("--secret-file", lambda: read_or_create_keys(settings.secret_file), problems)
    accounts = _read("--accounts", lambda: AccountFile(settings.accounts).read(), problems)
    tls = _read("--tls-cert", lambda: load_tls(settings), problems)
    audit = _read("--audit-log", lambda: AuditLog(settings.audit_log), problems)
    if problems:
        raise SettingsError(*problems)
    reloadable = Reloadable(settings, keys, tls, audit)
    if not settings.demo:
        if not accounts:
            log.warning(
                "nobody can sign in: no account in %s; accounts add NAME makes one", settings.accounts
            )
        return Plan(settings, reloadable, "", {})
    password = secrets.token_urlsafe(12)
    # Valid from now on: a session of an earlier start had another password.
    account = Account(hash_password(password), valid_after_ms=int(time.time() * 1000) - 1)
    return Plan(settings, reloadable, password, {DEMO_USER: account})


def _read(flag: str, read: Callable[[], Any], problems: list[str]) -> Any:
    try:
        return read()
    except (OSError, ValueError) as exc:
        problems.append(f"{flag}: {describe(exc)}")
        return None


# --- in a process that serves ---


def _run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run *main* on uvloop if it is installed, else on asyncio's own loop."""
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


async def _serve_alone(plan: Plan) -> int:
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, _stop_once, stop)
    unblock_signals(STOP_SIGNALS)
    await _check_store(plan.settings)
    await _serve(plan, listen(plan), stop)
    return 0


async def _serve(plan: Plan, listening: Listening, stop: asyncio.Event) -> None:
    server = Server(plan.settings, accounts=plan.accounts(), reloadable=plan.reloadable)
    asyncio.get_running_loop().add_signal_handler(RELOAD_SIGNAL, server.reload)
    unblock_signals()
    tune_garbage_collector()
    await server.run(listening.sockets, stop, plain=listening.plain)


def _stop_once(stop: asyncio.Event) -> None:
    """Stop; the next signal will end the process at once, without waiting for requests in flight."""
    stop.set()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)


async def _serve_as_child(plan: Plan, listening: Listening, parent: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Any number of times: a supervisor may signal every process of a service, and then the parent does.
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(parent, _stop_with_parent, parent, stop)
    await _serve(plan, listening, stop)
    return 0


def _stop_with_parent(parent: int, stop: asyncio.Event) -> None:
    """Stop at the end of file on *parent*, which stays readable from then on."""
    asyncio.get_running_loop().remove_reader(parent)
    stop.set()


async def _check_store(settings: Settings) -> int:
    """Ask the store before listening. One that does not answer now may do so later: that is only logged.

    Raises:
        SettingsError: It answers, and never will let us in as things are set up.
    """
    store = settings.open_store()
    try:
        await store.ping()
    except StoreRefused as exc:
        raise SettingsError(f"--store: {refusal_message(exc)}") from exc
    except StoreUnavailable as exc:
        log.warning("the store does not answer yet (%s); /readyz says when it does", failure_reason(exc))
    finally:
        await store.aclose()
    return 0


def listen(plan: Plan) -> Listening:
    """Listen, and say where, and how to sign in to the demo account.

    Raises:
        SettingsError: An address or a port is not to be had.
    """
    settings = plan.settings
    sockets = _bind(settings, "--port", settings.port)
    plain: list[socket.socket] = []
    if settings.http_redirect_port is not None:
        plain = _bind(settings, "--http-redirect-port", settings.http_redirect_port)
    scheme = "https" if settings.tls_cert else "http"
    redirected = f", http://{_place(settings, plain)} leads there" if plain else ""
    where = f"{scheme}://{_place(settings, sockets)}, sessions in {settings.store_kind}{redirected}"
    print(f"Stormcellar on {where}", flush=True)
    if plan.demo:
        print(f"Demo account: user name {DEMO_USER}, password {plan.demo_password}", flush=True)
    return Listening(sockets, plain)


def _bind(settings: Settings, flag: str, port: int) -> list[socket.socket]:
    try:
        sockets = bind_sockets(port, settings.address)
    except OSError as exc:
        flag = "--address" if exc.errno == errno.EADDRNOTAVAIL else flag
        advice = f"choose another with {flag}"
        where = f"{_bracketed(settings.address)}:{port}"
        raise SettingsError(f"{flag}: cannot listen on {where}: {exc.strerror}; {advice}") from exc
    return [shared_socket(each) for each in sockets] if settings.processes > 1 else sockets


def _place(settings: Settings, sockets: list[socket.socket]) -> str:
    return f"{_bracketed(settings.address)}:{sockets[0].getsockname()[1]}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address

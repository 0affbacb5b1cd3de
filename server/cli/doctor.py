"""`doctor`: check settings, files, ports and the store; print what is wrong and what to do."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from stormcellar.accounts.directory import AccountFile
from stormcellar.runtime.reloadable import key_pair
from stormcellar.runtime.settings import Settings
from stormcellar.runtime.signing_key_file import read_keys
from stormcellar.runtime.store_clock import ahead_s, described, problem_with
from stormcellar.runtime.tls import unverified_client_context, valid_until
from stormcellar.stores.errors import StoreError, problem_of

_PROBE_S = 2.0


class Problem(Exception):
    """What is wrong and what to do, in one line."""


def run(settings: Settings) -> int:
    """Print one line for each check. Return 0 if all pass, else 1. Creates no file but that of SQLite."""
    checks: list[Callable[[Settings], str]] = [_data_dir, _secrets, _accounts, _port, _store]
    if settings.tls_cert is not None:
        checks.insert(2, _certificate)
    if settings.http_redirect_port is not None:
        checks.insert(-1, _redirect_port)
    if settings.audit_log is not None:
        checks.insert(-1, _audit_log)
    return max(_report(check, settings) for check in checks)


def _report(check: Callable[[Settings], str], settings: Settings) -> int:
    try:
        print(f"ok       {check(settings)}")
    except Problem as exc:
        print(f"problem  {exc}")
        return 1
    except (OSError, ValueError) as exc:
        print(f"problem  {settings.describe(exc)}")
        return 1
    return 0


def _data_dir(settings: Settings) -> str:
    path, label, place = settings.data_dir, settings.label("data_dir"), settings.place("data_dir")
    nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise Problem(f"data directory {place}: {nearest} is not a directory; choose another with {label}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        advice = f"change its owner, or choose another with {label}"
        raise Problem(f"data directory {place}: {nearest} is not writable; {advice}")
    return f"data directory {place}" + ("" if nearest == path else " will be created")


def _secrets(settings: Settings) -> str:
    path: Path = settings.secret_file
    try:
        return f"signing keys: {len(read_keys(path))} in {path}"
    except FileNotFoundError:
        return f"signing keys: {settings.place('secret_file')} will be created on the first start"


def _certificate(settings: Settings) -> str:
    pair = key_pair(settings)
    assert pair is not None
    context = pair.load()
    try:
        return f"certificate: {pair.certificate}, valid until {valid_until(context, pair.certificate)}"
    except ValueError as exc:
        raise Problem(f"certificate {pair.certificate}: {exc}; replace it") from exc


def _accounts(settings: Settings) -> str:
    count = len(AccountFile(settings.accounts).read())
    if settings.demo:
        return "accounts: none, so there will be a demo account"
    if not count:
        raise Problem(f"no accounts in {settings.place('accounts')}; add one with: accounts add NAME")
    return f"accounts: {count} in {settings.accounts}"


def _port(settings: Settings) -> str:
    return _check_port(settings, settings.port, "port", _is_this_server)


def _redirect_port(settings: Settings) -> str:
    return _check_port(settings, settings.http_redirect_port or 0, "http_redirect_port", _is_this_redirect)


def _check_port(
    settings: Settings, port: int, option: str, is_this_server: Callable[[Settings], bool]
) -> str:
    place = f"port {port} on {settings.address}"
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.address, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE and is_this_server(settings):
                return f"{place}: in use by this server"
            labels = f"{settings.label(option)} or {settings.label('address')}"
            raise Problem(f"{place}: {exc.strerror}; choose another with {labels}") from exc
    return f"{place} is free"


def _is_this_server(settings: Settings) -> bool:
    connection = HTTPConnection(settings.address, settings.port, timeout=_PROBE_S)
    if settings.tls_cert is not None:
        connection = HTTPSConnection(
            settings.address, settings.port, timeout=_PROBE_S, context=unverified_client_context()
        )
    with closing(connection), suppress(OSError, HTTPException, ValueError):
        connection.request("GET", "/healthz")
        return bool(json.loads(connection.getresponse().read(1024)) == {"status": "ok"})
    return False


def _is_this_redirect(settings: Settings) -> bool:
    connection = HTTPConnection(settings.address, settings.http_redirect_port, timeout=_PROBE_S)
    with closing(connection), suppress(OSError, HTTPException):
        connection.request("GET", "/healthz", headers={"Host": settings.allowed_hosts[0]})
        target = connection.getresponse().getheader("Location", "")
        return target.startswith(f"https://{settings.allowed_hosts[0]}")
    return False


def _audit_log(settings: Settings) -> str:
    path = settings.audit_log
    assert path is not None
    exists = path.exists()
    if not os.access(path if exists else path.parent, os.W_OK):
        advice = f"choose another with {settings.label('audit_log')}"
        raise Problem(f"audit log {settings.place('audit_log')} is not writable; {advice}")
    return f"audit log {settings.place('audit_log')}" + ("" if exists else " will be created")


def _store(settings: Settings) -> str:
    return asyncio.run(_ping(settings))


async def _ping(settings: Settings) -> str:
    store = settings.open_store()
    store.counters()  # so that their rights are tried, too
    try:
        await store.ping()
        ahead = await ahead_s(store)
    except StoreError as exc:
        raise Problem(f"store: {problem_of(exc)}") from exc
    finally:
        await store.aclose()
    if difference := problem_with(ahead):
        raise Problem(f"store: {difference}")
    clock = "" if ahead is None else f"; {described(ahead)}"
    warning = "" if store.shared else "; it works with one process only and is empty after a restart"
    return f"store: {settings.store_kind} answers{clock}{warning}"

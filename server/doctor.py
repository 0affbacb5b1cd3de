"""`doctor`: check the configuration and the store, and say what is wrong and what to do."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from server.accounts import AccountFile
from server.config import Settings
from server.keys import load_keys
from stores import StoreError, StoreRefused


def examine(settings: Settings) -> int:
    """Print a line for each thing checked; return 0 if all is well, else 1."""
    checks: list[Callable[[Settings], str]] = [_data_dir, _secrets, _accounts, _port, _store]
    return max(_report(check, settings) for check in checks)


class Finding(Exception):
    """What is wrong, and what to do about it."""


def _report(check: Callable[[Settings], str], settings: Settings) -> int:
    try:
        print(f"ok       {check(settings)}")
    except (Finding, OSError, ValueError) as exc:
        print(f"problem  {exc}")
        return 1
    return 0


def _data_dir(settings: Settings) -> str:
    path = settings.data_dir
    if path.exists() and not os.access(path, os.W_OK | os.X_OK):
        raise Finding(f"{path} cannot be written: change its owner, or name another with --data-dir")
    return f"data directory {path}" + ("" if path.exists() else " (will be made)")


def _secrets(settings: Settings) -> str:
    path: Path = settings.secret_file
    if not path.exists():
        return f"signing keys: {path} will be made on the first start"
    return f"signing keys: {len(load_keys(path))} in {path}"


def _accounts(settings: Settings) -> str:
    count = len(AccountFile(settings.accounts).read())
    if settings.demo:
        return "accounts: none yet; serves a demo account"
    if not count:
        raise Finding(f"no accounts in {settings.accounts}: add one with: accounts add NAME")
    return f"accounts: {count} in {settings.accounts}"


def _port(settings: Settings) -> str:
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.address, settings.port))
        except OSError as exc:
            raise Finding(f"port {settings.port} on {settings.address}: {exc.strerror}; try --port") from exc
    return f"port {settings.port} on {settings.address} is free"


def _store(settings: Settings) -> str:
    asyncio.run(_ping(settings))
    warning = "" if settings.open_store().shared else "; lost on restart, for one process only"
    return f"store {settings.store.partition(':')[0]} answers{warning}"


async def _ping(settings: Settings) -> None:
    store = settings.open_store()
    try:
        await store.ping()
    except StoreRefused as exc:
        raise Finding(f"the store refuses us: {exc}; check the user, password and rights in --store") from exc
    except StoreError as exc:
        reason = f" ({exc.__cause__})" if exc.__cause__ else ""
        raise Finding(f"the store does not answer{reason}: is it running where --store says?") from exc
    finally:
        await store.aclose()

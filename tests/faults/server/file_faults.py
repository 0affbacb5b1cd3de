"""Faults of the files of the server: signing keys, accounts, audit log, and its log on standard error."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.faults.browser import SESSIONS
from tests.faults.server.guests import Guest, Served, guests
from tests.faults.server.processes import LogPipe, logged
from tests.faults.site import Site
from tests.faults.suite import Fault
from tests.support.running import ROOT, environment, get

PAUSE_S = 1.0
LOG_S = 3.0
NEW_PASSWORD = "another-suite-password"


class Filed(Served, Protocol):
    """A set-up of two processes with a log that can stop."""

    site: Site
    log: LogPipe
    log_file: Path
    audit_log: Path

    async def reload(self) -> None:
        """Send SIGHUP, and wait until each process has read everything."""


async def _command(set_up: Filed, *words: str, given: str = "") -> None:
    """Run a command of the server on its data directory."""
    arguments = [sys.executable, str(ROOT / "run.py"), *words, "--data-dir", str(set_up.data)]
    done = await asyncio.to_thread(
        subprocess.run, arguments, input=given, env=environment(), text=True, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# --- signing keys ---


async def _keys_rotated(set_up: Filed) -> None:
    async with guests(set_up, 2) as found:
        before = _signing_key(found[0])
        await _command(set_up, "secret", "rotate")
        await set_up.reload()
        async with asyncio.timeout(10):
            newcomer = found[0]
            while _signing_key(newcomer) == before:
                newcomer = newcomer.stranger()
                assert await newcomer.sign_in("guest11") == 200
        assert _signing_key(found[0]) == before


def _signing_key(guest: Guest) -> str:
    """Return the version of the key that signed the session cookie."""
    cookie = guest.session_cookie or ""
    assert cookie.startswith(SESSIONS)
    return cookie.split("|")[1]


# --- accounts ---


async def _accounts_changed(set_up: Filed) -> None:
    """Add an account, and give another one a new password: its session ends, and no other."""
    async with guests(set_up, 1) as found:
        guest, newcomer = found[0].stranger(), found[0].stranger()
        assert await guest.sign_in("guest11") == 200
        await _command(set_up, "accounts", "add", "newcomer", "--password-stdin", given=NEW_PASSWORD)
        await _command(set_up, "accounts", "passwd", "guest11", "--password-stdin", given=NEW_PASSWORD)
        shown = await guest.send("GET", "/session")
        assert shown.body["user"] is None, "a session outlived the password"
        assert await newcomer.sign_in("newcomer", NEW_PASSWORD) == 200
        assert await guest.sign_in("guest11", NEW_PASSWORD) == 200
        await _command(set_up, "accounts", "remove", "newcomer")


async def _accounts_unreadable(set_up: Filed) -> None:
    """Spoil the account file in three ways: nobody is signed out, and no account of a bad file gets in."""
    path = set_up.data / "accounts.json"
    good = path.read_text()
    intruded = good.replace('"guest10"', '"intruder"')
    async with guests(set_up, 1) as found:
        spoils: tuple[Callable[[], None], ...] = (
            path.unlink,
            lambda: _replace(path, '{"version": 1', 0o600),
            lambda: _replace(path, intruded, 0o644),
        )
        for spoil in spoils:
            async with logged(set_up.log_file, "accounts unchanged", 2):
                spoil()
                await asyncio.sleep(PAUSE_S)
                assert await found[0].stranger().sign_in("intruder") == 401
                await found[0].read()
        _replace(path, good, 0o600)
    assert intruded != good


def _replace(path: Path, text: str, mode: int) -> None:
    """Replace a file as an editor does."""
    other = path.with_name("edited")
    other.write_text(text)
    other.chmod(mode)
    os.replace(other, path)


# --- logs ---


async def _log_not_read(set_up: Filed) -> None:
    set_up.log.stop()
    try:
        for _ in range(int(LOG_S)):
            await asyncio.sleep(1.0)
            # Each process in turn has accepted a connection before long.
            statuses = [await _healthz(set_up.base) for _ in range(4)]
            assert statuses == [200] * 4, "the server waits for the reader of its log"
    finally:
        set_up.log.read()


async def _healthz(base: str) -> int:
    """Return the status of a request that needs nothing but the process; 0 if it takes too long."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(get, base, "/healthz"), 2)
    except TimeoutError:
        return 0


async def _audit_disk_full(set_up: Filed) -> None:
    path, kept = set_up.audit_log, set_up.audit_log.with_name("kept")
    os.rename(path, kept)
    os.symlink("/dev/full", path)
    try:
        async with logged(set_up.log_file, "No space left on device); events go to standard error", 2):
            set_up.site.running.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(PAUSE_S)
    finally:
        os.replace(kept, path)
        await set_up.reload()


FILE_FAULTS = (
    Fault("the signing key is rotated, and SIGHUP", _keys_rotated, is_seamless=True),
    Fault("accounts are added and get new passwords", _accounts_changed, is_seamless=True),
    Fault("the account file is missing, broken and open to all", _accounts_unreadable, is_seamless=True),
    Fault("nobody reads the log for 3 s", _log_not_read, is_seamless=True),
    Fault("the disk of the audit log is full", _audit_disk_full, is_seamless=True),
)

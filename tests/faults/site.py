"""The login server under test, and the people who use it."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from stormcellar.accounts.account_file import Account, AccountFile, new_id
from stormcellar.accounts.passwords import hash_password
from tests.faults.browser import Browser
from tests.faults.journal import Journal
from tests.faults.person import Person
from tests.support.running import ROOT, Running

PASSWORD = "fault-suite-password"
PEOPLE = 6
STORE_TIMEOUT_S = 2.0
# A request makes up to three store calls one after another. The rest is for a busy machine.
PATIENCE_S = 3 * STORE_TIMEOUT_S + 4.0
"""How long a client waits for an answer: a request that takes longer hangs."""
PROGRAM = (str(ROOT / "run.py"),)
"""The login server."""
OPEN = ("--visitors-per-address=1000000", "--login-attempts-per-address=1000000", "--login-attempts=1000000")


def write_accounts(path: Path) -> None:
    """Write the accounts of all people, and of the guest."""
    before_ms = int(time.time() * 1000) - 1
    account = Account(hash_password(PASSWORD), valid_after_ms=before_ms, id=new_id())
    AccountFile(path).edit(lambda accounts: accounts.update({name(n): account for n in range(PEOPLE + 1)}))


def name(number: int) -> str:
    """Return the name of one of the people."""
    return f"person{number}"


class Site:
    """One server, or several processes of it, at a port that stays the same.

    Args:
        directory: Empty; accounts, keys and logs.
        twin: Another server whose accounts and keys this one has.
    """

    def __init__(
        self,
        directory: Path,
        store: str,
        *options: str,
        program: tuple[str, ...] = PROGRAM,
        twin: Site | None = None,
    ) -> None:
        self._directory = directory
        self._arguments = ["--store", store, "--store-timeout", f"{STORE_TIMEOUT_S:.0f}s", *OPEN, *options]
        self._program = program
        self.base = ""
        self.server: Running | None = None
        if twin is None:
            directory.mkdir(parents=True)
            write_accounts(directory / "data" / "accounts.json")
        else:
            shutil.copytree(twin._directory / "data", directory / "data")

    @property
    def running(self) -> Running:
        """The server; it must have been started."""
        assert self.server is not None
        return self.server

    def start(self) -> None:
        """Start the server; after the first time at the same port."""
        again = ["--port", self.base.rpartition(":")[2]] if self.base else []
        self.server = Running(self._directory, *self._arguments, *again, program=self._program)
        self.base = self.server.base()

    def close(self) -> None:
        """Kill the server if it runs."""
        if self.server is not None:
            self.server.__exit__()
            self.server = None

    def errors(self) -> str:
        """Return what the server wrote on standard error."""
        path = self._directory / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""


class Crowd:
    """People who use a site at the same time.

    Args:
        seed: What their choices begin with.
    """

    def __init__(self, base: str, *, seed: int) -> None:
        self.journal = Journal()
        # A connection for each request: what one fault did to a connection does not excuse the next request.
        self._http: AsyncHTTPClient = SimpleAsyncHTTPClient(force_instance=True, max_clients=10 * PEOPLE)
        self.people = [
            Person(name(n), PASSWORD, lambda: self._browser(base), random.Random(f"{seed} {n}"))
            for n in range(PEOPLE)
        ]

    def close(self) -> None:
        """Close the HTTP client."""
        self._http.close()

    def _browser(self, base: str) -> Browser:
        return Browser(self._http, base, self.journal, patience_s=PATIENCE_S)


@asynccontextmanager
async def signed_in_guest(base: str) -> AsyncIterator[Browser]:
    """Yield the browser of a user who is none of the people, for a fault to sign out when it chooses."""
    http = SimpleAsyncHTTPClient(force_instance=True)
    guest = Browser(http, base, Journal(), patience_s=PATIENCE_S)
    try:
        answer = await guest.send("POST", "/login", {"username": name(PEOPLE), "password": PASSWORD})
        assert answer.status == 200, answer
        yield guest
    finally:
        http.close()


def count_logged(sites: Sequence[Site]) -> dict[str, int]:
    """Return how many tracebacks the servers have logged, and how many ends of worker processes."""
    logs = [site.errors() for site in sites]
    return {
        "traceback": sum(log.count("Traceback (most recent call last)") for log in logs),
        "process ended": sum(log.count("; starting another") for log in logs),
    }

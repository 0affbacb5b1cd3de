"""Guests: browsers whose requests a fault sends byte by byte, and whose sessions it checks at the end."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from tornado.httpclient import AsyncHTTPClient
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from stormcellar.accounts.account_file import AccountFile
from tests.faults.browser import JSON, Browser, SessionOver
from tests.faults.journal import Journal
from tests.faults.site import PASSWORD, PATIENCE_S, name

GUESTS = 12
"""How many accounts there are besides those of the people."""


class Served(Protocol):
    """A set-up with a server whose accounts are in *data*."""

    base: str
    data: Path


def add_guests(data: Path) -> None:
    """Give each guest an account with the password of the people."""

    def add(accounts: dict[str, Any]) -> None:
        accounts.update({f"guest{n}": accounts[name(0)] for n in range(GUESTS)})

    AccountFile(data / "accounts.json").edit(add)


async def introduce(base: str) -> None:
    """Sign every guest in once before there is a load: passwords of addresses that are known go first."""
    http = SimpleAsyncHTTPClient(force_instance=True, max_clients=GUESTS)
    try:
        for number in range(GUESTS):
            assert await Guest(http, base, Journal()).sign_in(f"guest{number}") == 200
    finally:
        http.close()


class Guest(Browser):
    """A browser whose requests can also be sent by hand."""

    def __init__(self, http: AsyncHTTPClient, base: str, journal: Journal) -> None:
        super().__init__(http, base, journal, patience_s=PATIENCE_S)
        self.host = base.removeprefix("http://")

    def stranger(self) -> Guest:
        """Return a browser without cookies."""
        return Guest(self._http, self._base, self.journal)

    async def sign_in(self, user: str, password: str = PASSWORD) -> int:
        """Try to sign in; return the status."""
        answer = await self.send("POST", "/login", {"username": user, "password": password})
        if answer.status == 200:
            self.begin(user)
        return answer.status

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """Return a request as it is sent. A key of a PATCH may be in the session from now on."""
        if method == "PATCH":
            self._unanswered.update(body or {})
        content = json.dumps(body or {}).encode()
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        head = (
            *(f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Accept: {JSON}"),
            *(f"Content-Type: {JSON}", f"Cookie: {cookies}", f"Content-Length: {len(content)}"),
        )
        return "\r\n".join(head).encode() + b"\r\n\r\n" + content

    def acknowledge(self, key: str) -> None:
        """Note that a write of *key*, sent by hand, was answered with 200."""
        self._written[key] = self._unanswered[key]

    async def keys(self) -> set[str]:
        """Return the keys that the session has."""
        return set((await self.send("GET", "/session")).body["data"])


@asynccontextmanager
async def guests(set_up: Served, count: int) -> AsyncIterator[list[Guest]]:
    """Sign guests in; at the end check their sessions, and raise AssertionError if anything is wrong."""
    http = SimpleAsyncHTTPClient(force_instance=True, max_clients=GUESTS)
    journal = Journal()
    try:
        found = [Guest(http, set_up.base, journal) for _ in range(count)]
        for number, guest in enumerate(found):
            assert await guest.sign_in(f"guest{number}") == 200
            await guest.write("first", number)
        yield found
        for guest in found:
            with suppress(SessionOver):
                await guest.read()
    finally:
        http.close()
    wrong = [*journal.lost, *journal.back, *journal.signed_out, *journal.somebody_else]
    assert not wrong, f"sessions of guests: {wrong}"


@asynccontextmanager
async def connected(
    base: str, *, source: str = "127.0.0.1", resets: bool = False, receives: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the server at *base*, and hang up at the end.

    Args:
        source: The client's address.
        resets: Whether the end is a reset; else an orderly end.
        receives: The size of the buffer for what comes.
    """
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((source, 0))
    if receives is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    if resets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    address, _, port = base.removeprefix("http://").rpartition(":")
    await asyncio.get_running_loop().sock_connect(sock, (address, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

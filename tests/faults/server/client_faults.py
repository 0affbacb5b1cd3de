"""Faults of clients, for every set-up that has guests. Nobody else notices them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from tests.faults.server.guests import Guest, Served, connected, guests
from tests.faults.site import PASSWORD, PATIENCE_S
from tests.faults.suite import Fault

CANCELLED = 1000
AT_ONCE = 25
ROUNDS = 12
SLOW_S = 4.0
LARGE = 40_000
"""The size of a value that a guest keeps in the session."""
PIPELINED = 100
"""So many answers with such a value are more than the buffers of a connection hold."""


async def _cancelled(set_up: Served) -> None:
    async with guests(set_up, 10) as found:
        stay, leave = found[:6], found[6:]
        for guest in leave:
            guest.is_in_doubt = True
        requests = [_request(number, stay, leave) for number in range(CANCELLED)]
        for first in range(0, CANCELLED, AT_ONCE):
            batch = requests[first : first + AT_ONCE]
            await asyncio.gather(
                *(_send(set_up, sent, resets=bool(number % 2)) for number, sent in enumerate(batch))
            )
        keys = [key for guest in stay for key in await guest.keys()]
    assert len(keys) > len(stay), "no cancelled request was begun"


def _request(number: int, stay: list[Guest], leave: list[Guest]) -> bytes:
    """Return one of the requests: 400 writes, 300 reads, 250 sign-outs, 50 sign-ins."""
    guest = stay[number % len(stay)]
    match number % 20:
        case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7:
            return guest.request("PATCH", "/session", {f"key{number}": number})
        case 8 | 9 | 10 | 11 | 12 | 13:
            return guest.request("GET", "/session")
        case 14:
            credentials = {"username": "guest11", "password": PASSWORD}
            return guest.stranger().request("POST", "/login", credentials)
        case _:
            return leave[number % len(leave)].request("POST", "/logout")


async def _send(set_up: Served, sent: bytes, *, resets: bool, wait_s: float = 0.0) -> None:
    """Send some bytes, wait, and hang up."""
    with suppress(OSError):
        async with connected(set_up.base, resets=resets) as (_, writer):
            writer.write(sent)
            await writer.drain()
            await asyncio.sleep(wait_s)


async def _hang_up(set_up: Served) -> None:
    async with guests(set_up, 4) as found:
        await found[0].write("large", LARGE * "x")
        for number in range(ROUNDS):
            resets = bool(number % 2)
            parts = [
                _send(set_up, part, resets=resets, wait_s=0.005 * number)
                for part in _stages(found[number % 4], number)
            ]
            await asyncio.gather(
                *parts,
                _leave_during_answers(set_up, found[0], resets=resets),
                _half_close(set_up, found[number % 4], f"half{number}"),
            )


def _stages(guest: Guest, number: int) -> Iterator[bytes]:
    """Yield what a client has sent of a write when it hangs up."""
    whole = guest.request("PATCH", "/session", {f"key{number}": number})
    head = whole.index(b"\r\n\r\n") + 4
    yield b""
    yield whole[:8]  # in the request line
    yield whole[:60]
    yield whole[:head]
    yield whole[: head + 5]  # in the body
    yield whole
    yield whole + whole[:8]


async def _leave_during_answers(set_up: Served, guest: Guest, *, resets: bool) -> None:
    sent = guest.request("GET", "/session") * PIPELINED
    async with connected(set_up.base, resets=resets, receives=4096) as (reader, writer):
        writer.write(sent)
        begin = await asyncio.wait_for(reader.readexactly(1000), PATIENCE_S)
    assert begin.startswith(b"HTTP/1.1 200 "), "no answer to hang up in"


async def _half_close(set_up: Served, guest: Guest, key: str) -> None:
    """Send the end of the stream after a write. It may count as a client that has gone."""
    async with connected(set_up.base) as (reader, writer):
        writer.write(guest.request("PATCH", "/session", {key: 1}))
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 200 "), answer[:60]
    if answer:
        guest.acknowledge(key)


async def _slow(set_up: Served) -> None:
    async with guests(set_up, 4) as found:
        await asyncio.gather(*(_trickle(set_up, found[number % 4], f"slow{number}") for number in range(20)))


async def _trickle(set_up: Served, guest: Guest, key: str) -> None:
    """Send a write, and read its answer, a few bytes at a time."""
    sent = guest.request("PATCH", "/session", {key: 1})
    size = 1 + len(sent) // 40
    async with connected(set_up.base) as (reader, writer):
        for begin in range(0, len(sent), size):
            writer.write(sent[begin : begin + size])
            await asyncio.sleep(SLOW_S / 40)
        answer = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        for _ in range(10):
            await asyncio.wait_for(reader.readexactly(10), PATIENCE_S)
            await asyncio.sleep(0.02)
    assert answer.startswith(b"HTTP/1.1 200 "), f"the answer to a slow client: {answer!r}"
    guest.acknowledge(key)


CLIENT_FAULTS = (
    Fault("1000 requests are cancelled by their clients", _cancelled, is_seamless=True),
    Fault("clients hang up at every stage of a request", _hang_up, is_seamless=True),
    Fault("20 clients take 4 s to send a request", _slow, is_seamless=True),
)

"""Races over HTTP: whatever writers with slow bodies answer, the browser keeps the cookie of the sign-in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar.sessions.cookies import SessionId
from stormcellar.stores import Record, Store, open_store
from stormcellar.stores.memory import MemoryStore
from tests.support.embedding import Lab, Reply, Wire

WRITERS = 6
MOST_DELAY_S = 0.012


async def _login(self: Any) -> None:
    await self.session.login("alice")


async def _logout(self: Any) -> None:
    await self.session.logout()


async def _write(self: Any) -> None:
    self.session["written"] = self.request.body.decode()


@pytest.fixture(params=["memory", "sqlite", "redis8", "mongo_rs"])
def lab(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[Lab]:
    """An application on each kind of store."""
    store: Store = MemoryStore()
    if request.param != "memory":
        url = request.getfixturevalue(request.param).url
        store = open_store(url, prefix=f"late-{token_hex(6)}", timeout_s=10, connect_timeout_s=10)
    lab = Lab(store=store)
    lab.serve("/login", post=_login)
    lab.serve("/logout", post=_logout)
    lab.serve("/write", get=_write, post=_write)
    yield lab
    io_loop.run_sync(lab.sessions.aclose)


@dataclass
class Jar:
    """The session cookie of a browser."""

    cookie: str = ""
    is_signed_in = False
    replaced: list[str] = field(default_factory=list)
    """The Set-Cookie lines of writers that arrived after the answer to the sign-in."""

    def take(self, reply: Reply, *, of_writer: bool = False) -> None:
        """Obey the Set-Cookie lines of *reply*, as a browser does when it arrives."""
        for line in reply.get_list("Set-Cookie"):
            if of_writer and self.is_signed_in:
                self.replaced.append(line)
            pair = line.partition(";")[0]
            self.cookie = "" if "max-age=0" in line.lower() else pair


async def _ask(wire: Wire, method: str, path: str, cookie: str, *, delay_s: float = 0) -> Reply:
    """Send a request whose body follows its head after *delay_s*."""
    headers = ["Host: localhost", "Content-Type: application/json", "Content-Length: 2"]
    head = [f"{method} {path} HTTP/1.1", *headers, *([f"Cookie: {cookie}"] if cookie else [])]
    wire.send(("\r\n".join([*head, "", ""])).encode())
    await asyncio.sleep(delay_s)
    wire.send(b"{}")
    reply = await wire.reply()
    assert reply is not None
    return reply


async def _write_slowly(wire: Wire, jar: Jar, cookie: str) -> int:
    await asyncio.sleep(random.uniform(0, MOST_DELAY_S / 2))
    method = random.choice(["GET", "POST"])
    reply = await _ask(wire, method, "/write", cookie, delay_s=random.uniform(0, MOST_DELAY_S))
    jar.take(reply, of_writer=True)
    return reply.status


@pytest.mark.parametrize("before", ["user", "visitor"])
@pytest.mark.parametrize("race", ["sign-out, sign-in", "sign-in"])
@pytest.mark.gen_test(timeout=800)
async def test_the_browser_ends_with_the_new_session(
    race: str, before: str, lab: Lab, http_server: Any, http_port: int, pytestconfig: pytest.Config
) -> None:  # D1, D2
    """No late answer sets or clears a cookie over that of the sign-in, and the old session is dead."""
    wires = [await Wire.connect(http_port) for _ in range(WRITERS + 1)]
    statuses: set[int] = set()
    for _ in range(pytestconfig.getoption("--race-rounds")):
        jar = Jar()
        jar.take(await _ask(wires[0], "POST", "/login" if before == "user" else "/write", ""))
        old = jar.cookie
        writers = [asyncio.ensure_future(_write_slowly(wire, jar, old)) for wire in wires[1:]]
        await asyncio.sleep(random.uniform(0, MOST_DELAY_S))
        if race != "sign-in":
            jar.take(await _ask(wires[0], "POST", "/logout", old))
        jar.take(await _ask(wires[0], "POST", "/login", jar.cookie))
        new, jar.is_signed_in = jar.cookie, True
        statuses.update(await asyncio.gather(*writers))

        assert (jar.cookie, jar.replaced) == (new, [])
        assert not isinstance(await _loaded(lab, old), Record)
        assert isinstance(await _loaded(lab, new), Record)
    assert statuses <= {200, 409}
    for wire in wires:
        await wire.close()


async def _loaded(lab: Lab, cookie: str) -> Any:
    sid: SessionId | None = lab.sessions.cookies.read([cookie])
    assert sid is not None
    return await lab.inner.load(sid.credential, now_ms=lab.sessions.now_ms())

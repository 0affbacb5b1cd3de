"""docs/passwords.md: the program signs in, limits guesses and signs out everywhere."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar import Lifetime
from stormcellar.testing import Client, Clock, make_manager
from tests.docs.chapter import install, run

PAGE = "passwords.md"
OLD, NEW = "a long enough password", "another long password"
RIGHT = {"name": "alice", "password": OLD}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of the page, which can be imported, with hashes that take no time."""
    install(PAGE, tmp_path, monkeypatch)
    accounts = importlib.import_module("accounts")
    hasher = importlib.import_module("argon2").PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "HASHER", hasher)
    monkeypatch.setattr(accounts, "NOBODY", hasher.hash("nobody"))
    yield
    accounts.HASHING.shutdown()


@pytest.fixture
def clock() -> Clock:
    """The clock of sessions and accounts; it stands still, so a change and a sign-in share a millisecond."""
    return Clock(1_900_000_000)


@pytest.fixture
def accounts(tmp_path: Path, clock: Clock, io_loop: IOLoop) -> Any:
    """The accounts, with alice."""
    found = importlib.import_module("accounts").Accounts(
        tmp_path / "accounts.db", now_ms=lambda: int(clock() * 1000)
    )
    io_loop.run_sync(lambda: found.add("alice", OLD))
    clock.advance(1)
    return found


@pytest.fixture
def client(clock: Clock, accounts: Any, io_loop: IOLoop) -> Iterator[Client]:
    """A browser at the application."""
    lifetime = Lifetime(remember_s=30 * 86_400, remember_idle_s=7 * 86_400)
    sessions = make_manager(clock=clock, accounts=accounts, lifetime=lifetime)
    app = importlib.import_module("app").make_app(sessions, accounts, attempts_key=bytes(32))
    client = Client(app)
    io_loop.run_sync(client.__aenter__)
    yield client
    io_loop.run_sync(client.aclose)


def execute(accounts: Any, query: str) -> None:
    """Change the database behind the application's back."""
    with closing(sqlite3.connect(accounts.path)) as database, database:
        database.execute(query)


@pytest.mark.gen_test
async def test_printed_test_passes(tmp_path: Path) -> None:
    """The test at the end of the page."""
    await run(PAGE, "async def test_")["test_change_of_the_password"](tmp_path)


@pytest.mark.gen_test
async def test_sign_in_and_out(client: Client) -> None:
    """A right password leads where the visitor wanted to go, a wrong one to an error."""
    asked = await client.get("/password")
    wrong = await client.submit_form("/login", {**RIGHT, "password": "no"})
    right = await client.submit_form(asked.location or "", RIGHT)
    home = await client.get("/")
    out = await client.submit_form("/", {}, follow_redirects=True)

    assert (wrong.code, "The name or the password is wrong." in wrong.text) == (401, True)
    assert (right.code, right.location) == (303, "/password")
    assert "Hello, alice" in home.text
    assert (out.path, await client.user()) == ("/login", None)


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example"]
)
def test_other_sites_are_no_own_path(path: str) -> None:
    """Nobody is led to another site by a link to the sign-in page."""
    assert importlib.import_module("app").own_path(path) == "/"


@pytest.mark.gen_test
async def test_remember_me(client: Client) -> None:
    """The sign-in survives the end of the browser if the user asked for it."""
    found = []
    for remember in ({}, {"remember": "yes"}):
        await client.submit_form("/login", {**RIGHT, **remember})
        client.cookies.close_browser()
        found.append(await client.user())

    assert found == [None, "alice"]


@pytest.mark.gen_test
async def test_guesses_are_limited(client: Client) -> None:
    """After five wrong passwords even the right one must wait, as long as the answer says."""
    codes = [(await client.post("/login", {**RIGHT, "password": f"{n}"})).code for n in range(5)]
    refused = await client.post("/login", RIGHT)
    client.clock.advance(int(refused.headers["Retry-After"]))
    right = await client.post("/login", RIGHT)

    assert codes == [401] * 5
    assert (refused.code, refused.headers["Retry-After"]) == (429, "10")
    assert right.code == 303


@pytest.mark.gen_test
async def test_parallel_guesses_are_limited(client: Client) -> None:
    """They are counted before the hash is computed."""
    found = await asyncio.gather(*(client.post("/login", {**RIGHT, "password": f"{n}"}) for n in range(12)))

    assert sorted(each.code for each in found) == [401] * 5 + [429] * 7


@pytest.mark.gen_test
async def test_success_leaves_the_guesses_at_other_names_counted(client: Client) -> None:
    """Whoever owns one account cannot guess at others without a limit."""
    codes = []
    for n in range(55):
        codes.append((await client.post("/login", {"name": f"user{n}", "password": "x"})).code)
        if n % 10 == 0 and codes[-1] == 401:
            await client.post("/login", RIGHT)

    assert codes == [401] * 50 + [429] * 5


@pytest.mark.gen_test
async def test_hash_runs_beside_the_event_loop(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other requests are answered meanwhile."""
    accounts, gate = importlib.import_module("accounts"), threading.Event()
    monkeypatch.setattr(accounts, "verify", lambda *_: gate.wait(20))
    signing_in = asyncio.ensure_future(client.post("/login", RIGHT))
    other = await client.get("/login")
    is_waiting = not signing_in.done()
    gate.set()

    assert (other.code, is_waiting) == (200, True)
    assert (await signing_in).code == 303


@pytest.mark.parametrize("change", ["is_disabled = 1", "name = 'bob'", "id = 'another'"])
@pytest.mark.gen_test
async def test_change_by_an_administrator(client: Client, accounts: Any, change: str) -> None:
    """The session ends with the next request."""
    await client.submit_form("/login", RIGHT)
    execute(accounts, f"UPDATE accounts SET {change}")

    assert (await client.get("/")).location == "/login?next=%2F"


@pytest.mark.gen_test
async def test_new_password_ends_a_sign_in_with_the_old_one(
    client: Client, accounts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the old one was checked just before the change."""
    module, checking, gate = importlib.import_module("accounts"), threading.Event(), threading.Event()

    def verify(*_: str) -> bool:
        checking.set()
        return gate.wait(20)

    monkeypatch.setattr(module, "verify", verify)
    signing_in = asyncio.ensure_future(client.post("/login", RIGHT))
    await asyncio.to_thread(checking.wait, 20)
    client.clock.advance(1)
    account = await accounts.find("alice")
    await accounts.set_password(account, NEW)
    gate.set()

    assert (await signing_in).code == 401
    assert await client.user() is None


@pytest.mark.gen_test
async def test_one_of_two_changes_wins(client: Client, accounts: Any) -> None:
    """The other one is told that nothing was done."""
    account = await accounts.find("alice")
    first = await accounts.set_password(account, NEW)

    assert first is not None
    assert await accounts.set_password(account, OLD) is None
    assert await accounts.check("alice", NEW) is not None


@pytest.mark.gen_test
async def test_change_of_the_password(client: Client) -> None:
    """A short one and a wrong one change nothing; after the change this browser is still signed in."""
    await client.submit_form("/login", RIGHT)
    short = await client.submit_form("/password", {"present": OLD, "new": "short"})
    wrong = await client.submit_form("/password", {"present": "no", "new": NEW})
    done = await client.submit_form("/password", {"present": OLD, "new": NEW}, follow_redirects=True)
    old = await client.post("/login", RIGHT)

    assert [short.code, wrong.code, done.code, old.code] == [422, 403, 200, 401]
    assert "Your password was changed." in done.text
    assert await client.user() == "alice"


@pytest.mark.gen_test
async def test_sign_out_everywhere(client: Client) -> None:
    """Every browser of the user is signed out."""
    async with client.another() as other:
        for each in (client, other):
            await each.submit_form("/login", RIGHT)
        await client.submit_form("/", {"everywhere": "yes"})

        assert [await each.user() for each in (client, other)] == [None, None]
        assert await client.sessions_of("alice") == []

"""docs/moving-over.md: the application before and after, and who stays signed in."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.web import create_signed_value

from stormcellar import SessionManager
from stormcellar.testing import Client, make_manager
from tests.docs.chapter import install

PAGE = "moving-over.md"
SECRET, PASSWORD = "the secret of the old version", "open sesame"
WEEK_S = 7 * 86_400


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the page, which can be imported."""
    install(PAGE, tmp_path, monkeypatch)


class Accounts:
    """A directory in which every password was changed at one time."""

    def __init__(self, changed_ms: int) -> None:
        self.changed_ms = changed_ms

    def valid_after(self, user: str) -> int:
        """Return that time."""
        return self.changed_ms


@asynccontextmanager
async def before() -> AsyncIterator[Client]:
    """A browser that is signed in at the old application, with a cart."""
    app = importlib.import_module("before").make_app(cookie_secret=SECRET, password=PASSWORD)
    async with Client(app, sessions=make_manager()) as client:
        await client.submit_form("/login", {"name": "alice", "password": PASSWORD})
        headers = {"X-Xsrftoken": client.cookies["_xsrf"]}
        await client.post("/", {"item": "tea"}, headers=headers)
        yield client


@asynccontextmanager
async def after(cookies: Any, sessions: SessionManager | None = None) -> AsyncIterator[Client]:
    """The browser with those *cookies* at the new application."""
    sessions = make_manager() if sessions is None else sessions
    ends_ms = sessions.now_ms() + 1000 * WEEK_S
    app = importlib.import_module("after").make_app(
        sessions, cookie_secret=SECRET, password=PASSWORD, old_cookies_end_ms=ends_ms
    )
    async with Client(app) as client:
        client.cookies.update(cookies)
        yield client


def old_cookie(age_s: float = 60) -> dict[str, str]:
    """Return the cookie of somebody who signed in to the old application *age_s* ago."""
    value = create_signed_value(SECRET, "user", "alice", clock=lambda: time.time() - age_s)
    return {"user": value.decode()}


async def user_with(client: Client, cookies: dict[str, str]) -> str | None:
    """Return who is signed in after a visit of another browser, which has *cookies*."""
    async with client.another() as other:
        other.cookies.update(cookies)
        await other.get("/")
        return await other.user()


@pytest.mark.gen_test
async def test_user_stays_signed_in_with_the_cart() -> None:
    """The same browser, before and after; then the old cookies are gone."""
    async with before() as old:
        shown = (await old.get("/")).json()
        async with after(old.cookies) as new:
            first, second = await new.get("/"), await new.get("/")

            assert shown == first.json() == second.json() == {"user": "alice", "cart": ["tea"]}
            assert new.cookies.keys() == {"_xsrf", "id"}


@pytest.mark.gen_test
async def test_new_application_works_without_an_old_cookie() -> None:
    """A sign-in, a cart and a sign-out."""
    async with after({}) as client:
        asked = await client.get("/")
        await client.submit_form("/login", {"name": "bob", "password": PASSWORD})
        await client.post("/", {"item": "milk"})
        shown = (await client.get("/")).json()
        await client.post("/logout")

        assert asked.location == "/login?next=%2F"
        assert shown == {"user": "bob", "cart": ["milk"]}
        assert await client.user() is None


@pytest.mark.gen_test
async def test_copy_of_a_signed_cookie_outlives_the_sign_out_before() -> None:
    """The danger that the page names."""
    async with before() as old:
        copy = dict(old.cookies)
        await old.post("/logout", headers={"X-Xsrftoken": old.cookies["_xsrf"]})
        signed_out = await old.get("/")
        old.cookies.update(copy)

        assert signed_out.code == 302
        assert (await old.get("/")).json()["user"] == "alice"


@pytest.mark.gen_test
async def test_copy_of_an_old_cookie_counts_once() -> None:
    """After the owner's visit it signs nobody in, also after the sign-out."""
    copy = old_cookie()
    async with after(copy) as client:
        await client.get("/")
        owner, thief = await client.user(), await user_with(client, copy)
        await client.post("/logout")

        assert (owner, thief) == ("alice", None)
        assert await user_with(client, copy) is None


@pytest.mark.gen_test
async def test_parallel_visits_with_one_old_cookie() -> None:
    """Exactly one of them is signed in."""
    copy = old_cookie()
    async with after({}) as client:
        found = await asyncio.gather(*(user_with(client, copy) for _ in range(5)))

    assert sorted(found, key=str) == [None] * 4 + ["alice"]


@pytest.mark.gen_test
async def test_old_cookie_that_does_not_count() -> None:
    """One that is too old, or forged, or of another name; and each one after the last day."""
    forged = {"user": create_signed_value("another secret", "user", "alice").decode()}
    renamed = {"user": create_signed_value(SECRET, "cart", "alice").decode()}
    async with after({}) as client:
        found = [await user_with(client, each) for each in (old_cookie(32 * 86_400), forged, renamed)]
        client.clock.advance(WEEK_S)
        late = await user_with(client, old_cookie())

    assert (found, late) == ([None] * 3, None)


@pytest.mark.parametrize(("changed_s_ago", "user"), [(120, "alice"), (30, None)])
@pytest.mark.gen_test
async def test_password_changed_since_the_old_sign_in(changed_s_ago: int, user: str | None) -> None:
    """The old cookie is judged by the time when it was made, a minute ago."""
    accounts = Accounts(int(time.time() * 1000) - 1000 * changed_s_ago)
    async with after({}, make_manager(accounts=accounts)) as client:
        assert await user_with(client, old_cookie()) == user


@pytest.mark.gen_test
async def test_old_cookie_of_another_user_replaces_nobody() -> None:
    """Who is signed in stays so, and the old cookie is deleted."""
    async with after({}) as client:
        await client.force_login("bob")
        client.cookies.update(old_cookie())
        await client.get("/")

        assert (await client.user(), "user" in client.cookies) == ("bob", False)

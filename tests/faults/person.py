"""A user who signs in, writes, reads back, and ends sessions in every way that there is."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from tests.faults.browser import Answer, Browser, Failed, SessionOver

T = TypeVar("T")
THINK_S = 0.03
AGAIN_S = 0.1
TRIED_AGAIN = 2
"""How many ended cookies are tried after each visit."""


class Person:
    """One user, with two browsers.

    Args:
        new_browser: Makes a browser without cookies.
        think_s: How long they wait before each request.
    """

    def __init__(
        self,
        name: str,
        password: str,
        new_browser: Callable[[], Browser],
        choice: random.Random,
        *,
        think_s: float = THINK_S,
    ) -> None:
        self.visits = 0
        """How many visits went through from the first page to the sign-out."""
        self.is_over = False
        """Whether to stop after the present request."""
        self._name = name
        self._password = password
        self._new_browser = new_browser
        self._choice = choice
        self._think_s = think_s
        self._ended: dict[str, bool] = {}
        self._back: set[str] = set()
        self._open: list[Browser] = []
        self._number = 0

    async def live(self, visits: float = math.inf) -> None:
        """Make one visit after the other until `is_over`, or until so many have gone through."""
        while not self.is_over and self.visits < visits:
            with suppress(SessionOver, _Over):
                await self._visit()
                self.visits += 1

    async def check(self) -> None:
        """Read every session that is open, and try every cookie that is over.

        Raises:
            Failed: The server does not serve as before.
        """
        for browser in self._open:
            with suppress(SessionOver):
                await browser.read()
        browser = self._new_browser()
        for cookie in self._ended:
            await self._try_ended(browser, cookie)

    async def _visit(self) -> None:
        first, second = self._new_browser(), self._new_browser()
        self._open = [first]
        await self._insist(lambda: self._write(first))
        await self._insist(first.read)
        await self._sign_in(first)
        for _ in range(self._choice.randint(1, 3)):
            await self._use(first)
        self._open.append(second)
        await self._sign_in(second)
        await self._use(second)
        if self._choice.random() < 0.5:
            await self._confirm(first)
            await self._use(first)
        await self._choice.choice([self._revoke_others, self._revoke])(first, second)
        await self._use(first)
        await self._sign_out(first)
        for cookie in self._choice.sample(list(self._ended), min(TRIED_AGAIN, len(self._ended))):
            await self._insist(lambda cookie=cookie: self._try_ended(first, cookie))

    async def _use(self, browser: Browser) -> None:
        """Write, count and read back."""
        await self._insist(lambda: self._write(browser))
        await self._insist(browser.count)
        await self._insist(browser.read)

    async def _write(self, browser: Browser) -> None:
        self._number += 1
        await browser.write(f"key{self._number}", f"{self._name} {self._number}")

    async def _sign_in(self, browser: Browser) -> None:
        """Sign in; the visitor's ID is over then."""
        before = browser.session_cookie
        credentials = {"username": self._name, "password": self._password}
        answer = await self._change(browser, browser, "/login", credentials)
        assert answer.status == 200, answer
        if answer.body["user"] != self._name:
            browser.journal.somebody_else.append(f"{self._name} signed in as {answer.body['user']}")
        was_in_doubt = browser.is_in_doubt
        browser.begin(self._name)
        # If a failed try rotated the ID, this sign-in began another session and confirmed no rotation. A
        # failover may undo that one: then the visitor's session, which is nobody's, is there again.
        await self._end(browser, before, shows_data=not was_in_doubt)

    async def _confirm(self, browser: Browser) -> None:
        """Have the ID rotated."""
        before = browser.session_cookie
        answer = await self._change(browser, browser, "/account/confirm", {"password": self._password})
        if answer.status in (401, 409):
            raise browser.over()
        assert answer.status == 204, answer
        browser.is_in_doubt = False
        await self._end(browser, before)

    async def _revoke_others(self, browser: Browser, other: Browser) -> None:
        """End the session of *other* from *browser*, as the only other one."""
        answer = await self._change(browser, other, "/account/sessions/revoke-others")
        if answer.status == 401:
            raise browser.over()
        assert answer.status == 204, answer
        self._open.remove(other)
        await self._end(browser, other.session_cookie)

    async def _revoke(self, browser: Browser, other: Browser) -> None:
        """End the session of *other* from *browser*, by its handle."""
        listed = await self._insist(lambda: other.send("GET", "/account/sessions"))
        if listed.status == 401:
            raise other.over()
        handle = next((each["handle"] for each in listed.body["sessions"] if each["current"]), None)
        if handle is None:
            other.journal.lost.append(f"a list of sessions without the one that {self._name} uses")
            raise SessionOver
        answer = await self._change(browser, other, f"/account/sessions/{handle}/revoke")
        if answer.status == 401:
            raise browser.over()
        # An earlier try may have ended it, without an answer.
        if answer.status == 404 and not other.is_in_doubt:
            raise other.over()
        assert answer.status in (204, 404), answer
        self._open.remove(other)
        await self._end(browser, other.session_cookie)

    async def _sign_out(self, browser: Browser) -> None:
        before = browser.session_cookie
        answer = await self._change(browser, browser, "/logout")
        assert answer.status == 204, answer
        self._open.remove(browser)
        await self._end(browser, before)

    async def _change(
        self, browser: Browser, ends: Browser, path: str, body: dict[str, str] | None = None
    ) -> Answer:
        """Send a request that ends the session of *ends*, or rotates its ID, until it is answered."""

        async def send() -> Answer:
            try:
                return await browser.send("POST", path, dict(body or {}))
            except Failed:
                ends.is_in_doubt = True
                raise

        return await self._insist(send)

    async def _end(self, browser: Browser, cookie: str | None, *, shows_data: bool = True) -> None:
        """Try a cookie that is over, as the server said, and keep it: it is tried again later.

        Args:
            shows_data: Whether it must show no data either; else only nobody must be signed in with it.
        """
        if cookie is not None:
            self._ended[cookie] = shows_data
            await self._insist(lambda: self._try_ended(browser, cookie))

    async def _try_ended(self, browser: Browser, cookie: str) -> None:
        is_somebody, has_data = await browser.is_accepted(cookie)
        is_back = is_somebody or (has_data and self._ended[cookie])
        if is_back and cookie not in self._back:
            self._back.add(cookie)
            number = list(self._ended).index(cookie)
            browser.journal.back.append(
                f"{self._name}: ID {number}, {'signed in' if is_somebody else 'data'}"
            )

    async def _insist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step until it does not fail."""
        while not self.is_over:
            await asyncio.sleep(self._think_s)
            try:
                return await step()
            except Failed:
                await asyncio.sleep(AGAIN_S)
        raise _Over


class _Over(Exception):
    """The load is over."""

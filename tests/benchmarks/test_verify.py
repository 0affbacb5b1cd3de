"""The verification accepts a server that does the work, and rejects any other."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tornado.web import RequestHandler

from benchmarks.harness import app
from benchmarks.harness.loop import run
from benchmarks.harness.server_under_test import ServerUnderTest
from benchmarks.harness.verify import VerificationError, check_operations, verify
from stormcellar import SessionMixin
from stormcellar.sessions.session import state_of


class Counting:
    """A database that knows a read and a write."""

    def counts(self) -> Counter[str]:
        """Return nothing."""
        return Counter()

    def is_write(self, operation: str) -> bool:
        """Whether it is the write."""
        return operation == "put"

    def used_bytes(self) -> int:
        """Return nothing."""
        return 0


GOOD: dict[str, dict[str, float]] = {
    "bare": {},
    "read": {"get": 1},
    "write": {"get": 1, "put": 1},
    "login": {"get": 1, "put": 3},
}


def test_the_work_is_accepted() -> None:
    """One stray write in twenty reads may be a touch."""
    check_operations(GOOD, Counting())
    check_operations({**GOOD, "read": {"get": 1, "put": 0.05}}, Counting())


@pytest.mark.parametrize(
    ("kind", "counts", "reason"),
    [
        ("bare", {"get": 1}, "a bare request must not use the database"),
        ("read", {"get": 1, "put": 1}, "a read must not write: get 1, put 1"),
        ("read", {"get": 0.5}, "every read must use the database"),
        ("write", {"get": 1}, "every write request must write"),
        ("login", {"get": 1, "put": 0.5}, "every login request must write"),
    ],
)
def test_other_work_is_refused(kind: str, counts: dict[str, float], reason: str) -> None:
    """Whoever does less than is timed, or more, is told what."""
    with pytest.raises(VerificationError, match=reason):
        check_operations({**GOOD, kind: counts}, Counting())


def test_a_library_known_to_write_on_reads_is_let() -> None:
    """It is timed all the same, and the report says it."""
    check_operations({**GOOD, "read": {"get": 1, "put": 1}}, Counting(), reads_write=True)


@contextmanager
def handlers(**others: type[RequestHandler]) -> Iterator[None]:
    """Replace handlers of the application under test."""
    before = dict(app.HANDLERS)
    app.HANDLERS.update(others)  # type: ignore[arg-type]
    try:
        yield
    finally:
        app.HANDLERS.update(before)


def verified() -> None:
    """Verify our application, served by this process."""

    async def work() -> None:
        async with app.serve_in_loop("memory") as (port, _):
            served = ServerUnderTest("ours", "memory", port, os.getpid())
            await asyncio.to_thread(verify, served, None)

    run(work())


def test_our_own_application_does_the_work() -> None:
    """Through the real mixin: who it is, that nobody is nobody, and that a login ends the old ID."""
    verified()


class AnyoneIsSomebody(RequestHandler):
    def get(self) -> None:
        """Answer without looking."""
        self.write("somebody")


class LoginThatRenewsNothing(SessionMixin, RequestHandler):
    def get(self) -> None:
        """Leave the ID as it is."""
        self.write("hello")


class LoginThatLeavesTheOldOne(SessionMixin, RequestHandler):
    async def get(self) -> None:
        """Begin another session beside the old one."""
        data = dict(self.session)
        held = self._stormcellar
        fresh = await held.sessions.load(None, state_of(self.session).request)
        fresh.update(data)
        await fresh.login(str(self.session.user), keep=data)
        held.session, held.state = fresh, state_of(fresh)
        self.write("hello")


@pytest.mark.parametrize(
    ("kind", "handler", "reason"),
    [
        ("read", AnyoneIsSomebody, "read without a cookie: response 200"),
        ("login", LoginThatRenewsNothing, "a login must set one new cookie; it set 0"),
        ("login", LoginThatLeavesTheOldOne, "read with the ID from before a login: response 200"),
    ],
)
def test_a_server_that_cheats_is_refused(kind: str, handler: type[RequestHandler], reason: str) -> None:
    """What would be faster for the wrong reason is never timed."""
    with handlers(**{kind: handler}), pytest.raises(VerificationError, match=reason):
        verified()

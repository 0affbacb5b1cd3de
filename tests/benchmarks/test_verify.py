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


class TwoOperations:
    """A database with one read and one write operation."""

    def counts(self) -> Counter[str]:
        """Return an empty result."""
        return Counter()

    def is_write(self, operation: str) -> bool:
        """Whether *operation* is the write."""
        return operation == "put"

    def used_bytes(self) -> int:
        """Return an empty result."""
        return 0


GOOD: dict[str, dict[str, float]] = {
    "bare": {},
    "read": {"get": 1},
    "write": {"get": 1, "put": 1},
    "login": {"get": 1, "put": 3},
}


def test_the_expected_operations_are_accepted() -> None:
    """One write in twenty reads can be a touch."""
    check_operations(GOOD, TwoOperations())
    check_operations({**GOOD, "read": {"get": 1, "put": 0.05}}, TwoOperations())


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
def test_other_operations_are_rejected(kind: str, counts: dict[str, float], reason: str) -> None:
    """The message names what is missing or too much."""
    with pytest.raises(VerificationError, match=reason):
        check_operations({**GOOD, kind: counts}, TwoOperations())


def test_a_library_known_to_write_on_reads_is_accepted() -> None:
    """It is measured, and the report contains a note."""
    check_operations({**GOOD, "read": {"get": 1, "put": 1}}, TwoOperations(), reads_write=True)


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


def test_our_own_application_passes() -> None:
    """With the real mixin: it identifies the user, rejects other cookies, and a login ends the old ID."""
    verified()


class ReadWithoutSession(RequestHandler):
    def get(self) -> None:
        """Respond without reading the session."""
        self.write("somebody")


class LoginWithoutRotation(SessionMixin, RequestHandler):
    def get(self) -> None:
        """Keep the ID."""
        self.write("hello")


class LoginThatKeepsTheOldId(SessionMixin, RequestHandler):
    async def get(self) -> None:
        """Start a new session and keep the old one."""
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
        ("read", ReadWithoutSession, "read without a cookie: response 200"),
        ("login", LoginWithoutRotation, "a login must set one new cookie; it set 0"),
        ("login", LoginThatKeepsTheOldId, "read with the ID from before a login: response 200"),
    ],
)
def test_a_server_that_skips_work_is_rejected(kind: str, handler: type[RequestHandler], reason: str) -> None:
    """A server that is faster for the wrong reason is not measured."""
    with handlers(**{kind: handler}), pytest.raises(VerificationError, match=reason):
        verified()

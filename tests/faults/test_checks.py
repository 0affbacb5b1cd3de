"""The checking load itself: each broken promise shows in its column, and a store that keeps all in none."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from stormcellar.stores import (
    Absent,
    Credential,
    Delta,
    Outcome,
    Record,
    Rotation,
    StoreUnavailable,
    Why,
)
from stormcellar.stores.memory import MemoryStore
from tests.faults.browser import Browser
from tests.faults.journal import Journal
from tests.faults.person import Person
from tests.support.site import PASSWORD, OpenSite

VISITS = 4
LIMIT_S = 20.0


class Odd(MemoryStore):
    """A store that does some of its calls wrong."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def is_wrong(self, each: int = 5) -> bool:
        """Whether this call is one of those that go wrong."""
        self._calls += 1
        return self._calls % each == 0


class LosesWrites(Odd):
    """A store that loses a write now and then."""

    async def apply(self, credential: Credential, delta: Delta, **times: Any) -> Outcome:  # type: ignore[override]
        """Answer APPLIED without a write."""
        if delta.put and self.is_wrong():
            return Outcome.APPLIED
        return await super().apply(credential, delta, **times)


class CountsTwice(Odd):
    """A store that adds two where one is asked for."""

    async def apply(self, credential: Credential, delta: Delta, **times: Any) -> Outcome:  # type: ignore[override]
        """Add one more to the counter."""
        if delta.expect.get("count"):
            delta = replace(delta, put={"count": b"%d" % (int(delta.put["count"]) + 1)})
        return await super().apply(credential, delta, **times)


class KeepsEnded(Odd):
    """A store whose ended sessions stay live."""

    async def destroy(self, handle: Any, *, now_ms: int) -> bool:
        """Do nothing, and say that it is done."""
        return True


class KeepsOldID(Odd):
    """A store that accepts an ID after its rotation."""

    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """Accept the previous verifier for a minute."""
        return await super().rotate(credential, replace(rotation, grace_ms=60_000), now_ms=now_ms)


class Forgets(Odd):
    """A store that does not find the session of a user now and then."""

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Find nothing."""
        found = await super().load(credential, now_ms=now_ms)
        if isinstance(found, Record) and found.user and self.is_wrong(each=25):
            return Absent(Why.UNKNOWN)
        return found


class MixesUp(Odd):
    """A store that answers with another user now and then."""

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return another user's name."""
        found = await super().load(credential, now_ms=now_ms)
        if isinstance(found, Record) and found.user and self.is_wrong(each=10):
            return replace(found, user="carol")
        return found


class MixesUpData(Odd):
    """A store that answers with data of another session now and then."""

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return a key of another session."""
        found = await super().load(credential, now_ms=now_ms)
        if isinstance(found, Record) and found.user and self.is_wrong(each=10):
            return replace(found, data={**found.data, "other": b"1"})
        return found


class Fails(Odd):
    """A store that is unavailable now and then."""

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Raise StoreUnavailable."""
        if self.is_wrong():
            raise StoreUnavailable("load")
        return await super().load(credential, now_ms=now_ms)


async def visited(open_site: OpenSite, store: MemoryStore) -> Journal:
    """Return the journal of one person who makes some visits, and is checked at the end."""
    site, journal = open_site(store), Journal()

    def browser() -> Browser:
        return Browser(site.client, site.base, journal, patience_s=10.0)

    person = Person("alice", PASSWORD, browser, random.Random(1), think_s=0.0)
    await asyncio.wait_for(person.live(VISITS), LIMIT_S)
    if not journal.errors:
        await person.check()
    return journal


@pytest.mark.gen_test
async def test_store_that_keeps_all_shows_nothing(open_site: OpenSite) -> None:
    """No column has an entry."""
    journal = await visited(open_site, MemoryStore())

    assert (journal.lost, journal.back, journal.signed_out, journal.somebody_else) == ([], [], [], [])
    assert (journal.in_doubt, dict(journal.errors)) == (0, {})
    assert journal.answered > VISITS * 15


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("store", "column"),
    [
        (LosesWrites, "lost"),
        (CountsTwice, "lost"),
        (KeepsEnded, "back"),
        (KeepsOldID, "back"),
        (Forgets, "signed_out"),
        (MixesUp, "somebody_else"),
        (MixesUpData, "somebody_else"),
    ],
)
async def test_broken_promise_shows_in_its_column(
    open_site: OpenSite, store: type[MemoryStore], column: str
) -> None:
    """A store that breaks one promise is found."""
    journal = await visited(open_site, store())

    assert getattr(journal, column) != []


@pytest.mark.gen_test
async def test_failure_is_no_broken_promise(open_site: OpenSite) -> None:
    """503 is counted as such; whoever tries again loses nothing."""
    journal = await visited(open_site, Fails())

    assert set(journal.errors) == {"503"}
    assert (journal.lost, journal.back, journal.signed_out, journal.somebody_else) == ([], [], [], [])

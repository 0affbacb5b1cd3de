"""`reload`: a handler that runs for long sees what is stored now."""

from __future__ import annotations

import pytest

from stormcellar.errors import SessionChanged
from stormcellar.stores import StoreUnavailable
from tests.support.core import SAFE, AccountTimes, Core, Visitor


@pytest.fixture
def visitor() -> Visitor:
    """A visitor to an application with an empty store."""
    return Visitor(Core())


@pytest.mark.gen_test
async def test_values_of_other_requests_appear_and_unsaved_changes_stay(visitor: Visitor) -> None:  # D3
    """Read, changed, deleted and added values, each next to what another request did to it."""
    await visitor.writes(read=1, changed=1, nested=[1], dropped=1, removed=1)
    session = await visitor.request()
    assert (session["read"], session["removed"]) == (1, 1)
    session["changed"] = 2
    session["nested"].append(2)
    del session["dropped"]
    other = await visitor.twin().writes(read=5, changed=5, nested=[5], dropped=5, added=5)
    del other["removed"]
    await other.commit()

    await session.reload()

    assert dict(session) == {"read": 5, "changed": 2, "nested": [1, 2], "added": 5}
    await visitor.answer(session)
    assert await visitor.reads() == {"read": 5, "changed": 2, "nested": [1, 2], "added": 5}


@pytest.mark.gen_test
async def test_a_read_value_is_not_written_afterwards(visitor: Visitor) -> None:  # D4
    """A value that was only read is no change, before and after."""
    await visitor.writes(stock=[1])
    session = await visitor.request()
    assert session["stock"] == [1]
    await visitor.twin().writes(stock=[2])

    await session.reload()
    assert session["stock"] == [2]
    await visitor.twin().writes(stock=[3])
    await visitor.answer(session)

    assert await visitor.reads() == {"stock": [3]}


@pytest.mark.gen_test
async def test_a_session_that_ended_is_reported(visitor: Visitor) -> None:
    """Signed out, or under another ID: nothing of it is shown as current."""
    await visitor.signs_in("ada")
    session = await visitor.request(SAFE)
    await visitor.twin().signs_in("ada")

    with pytest.raises(SessionChanged):
        await session.reload()
    assert session.user == "ada"


@pytest.mark.gen_test
async def test_an_account_that_changed_is_reported() -> None:  # C10
    """A session that no longer counts is not read again."""
    accounts = AccountTimes({"ada": 0})
    visitor = Visitor(Core(accounts=accounts))
    await visitor.signs_in("ada")
    session = await visitor.request(SAFE)
    del accounts.users["ada"]

    with pytest.raises(SessionChanged):
        await session.reload()


@pytest.mark.gen_test
async def test_a_visitor_without_a_session_reads_nothing(visitor: Visitor) -> None:
    """No store call is made, and nothing raises."""
    session = await visitor.request(SAFE)
    visitor.core.store.fail["load"] = StoreUnavailable("down")

    await session.reload()

    assert dict(session) == {}


@pytest.mark.gen_test
async def test_a_store_that_is_down_leaves_the_session_as_it_was(visitor: Visitor) -> None:
    """The handler may go on with what it has."""
    await visitor.writes(a=1)
    session = await visitor.request(SAFE)
    visitor.core.store.fail["load"] = StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        await session.reload()

    assert dict(session) == {"a": 1}

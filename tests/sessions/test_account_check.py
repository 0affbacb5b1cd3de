"""Account directories of an application: coroutine functions, units, and accounts that are made again."""

from __future__ import annotations

import asyncio

import pytest

from stormcellar.errors import SignInRevoked
from tests.support.core import SAFE, AccountTimes, Core, Visitor


class InDatabase(AccountTimes):
    """A directory whose answers take a while."""

    async def valid_after(self, user: str) -> int | None:  # type: ignore[override]
        """Return the time after a moment."""
        await asyncio.sleep(0)
        return self.users.get(user)


class Identified(AccountTimes):
    """A directory whose accounts have IDs."""

    def __init__(self, users: dict[str, int], ids: dict[str, str]) -> None:
        super().__init__(users)
        self.ids = ids

    async def account_id(self, user: str) -> str | None:
        """Return the ID."""
        return self.ids.get(user)


@pytest.mark.gen_test
async def test_a_directory_may_be_asynchronous() -> None:  # C10 C11
    """Sign-in, load and listing await it; a later change of the account ends its sessions."""
    accounts = InDatabase({"ada": 0})
    core = Core(accounts=accounts)
    visitor, elsewhere = Visitor(core), Visitor(core)
    await visitor.signs_in("ada")
    await elsewhere.signs_in("ada")
    user = (await visitor.request(SAFE)).user
    listed = await core.manager.of_user("ada")

    core.clock.advance(100)
    accounts.users["ada"] = core.manager.now_ms()
    core.clock.advance(100)
    after = (await visitor.request(SAFE)).user

    assert (user, len(listed), after) == ("ada", 2, None)
    assert await core.manager.of_user("ada") == []
    del accounts.users["ada"]
    with pytest.raises(SignInRevoked):
        await visitor.signs_in("ada")


@pytest.mark.gen_test
async def test_seconds_in_place_of_milliseconds_are_an_error() -> None:
    """They would make every session count for ever."""
    accounts = AccountTimes({"ada": 0})
    core = Core(accounts=accounts)
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    accounts.users["ada"] = int(core.clock.now_s)

    with pytest.raises(ValueError, match="must return Unix time in milliseconds, not 1900000000"):
        await visitor.request(SAFE)


@pytest.mark.parametrize("back_s", [0, 3600, 86_400])
@pytest.mark.gen_test
async def test_an_account_made_again_revives_no_session(back_s: float) -> None:  # C11 B6
    """Whatever the clock: it was ahead at the sign-in, and is set back before the account is made again."""
    accounts = Identified({"ada": 0}, {"ada": "first"})
    core = Core(accounts=accounts)
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    assert (await visitor.request(SAFE)).user == "ada"

    core.clock.advance(-back_s)
    accounts.users["ada"], accounts.ids["ada"] = core.manager.now_ms() - 1, "second"

    assert (await visitor.request(SAFE)).user is None
    assert await core.manager.of_user("ada") == []


@pytest.mark.gen_test
async def test_a_renewed_session_stays_with_its_account() -> None:
    """A rotation that is no sign-in keeps the ID of the account."""
    core = Core(accounts=Identified({"ada": 0}, {"ada": "first"}))
    visitor = Visitor(core)
    await visitor.signs_in("ada")

    session = await visitor.request()
    await session.renew()
    visitor.take(session)

    assert (await visitor.request(SAFE)).user == "ada"


@pytest.mark.gen_test
async def test_an_account_replaced_during_the_sign_in_signs_nobody_in() -> None:
    """The ID is read before the record is written, and compared after it."""
    accounts = Identified({"ada": 0}, {"ada": "first"})
    core = Core(accounts=accounts)
    gate = core.store.gate("create")
    session = await Visitor(core).request()
    signing_in = asyncio.ensure_future(session.login("ada"))
    await gate.reached()
    accounts.ids["ada"] = "second"
    gate.open()

    with pytest.raises(SignInRevoked):
        await signing_in
    assert await core.everything() == []

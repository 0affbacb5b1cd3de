"""Messages for the next page: kept once, shown once, and no part of what a session holds."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.core import SAFE, Core, Visitor


@pytest.fixture
def visitor() -> Visitor:
    """A visitor to an application with an empty store."""
    return Visitor(Core())


@pytest.mark.gen_test
async def test_messages_are_shown_once_in_their_order(visitor: Visitor) -> None:  # D7
    """What one request leaves, the next one takes; the third finds nothing."""
    first = await visitor.request()
    first.flash("Saved.")
    first.flash("Saved.")
    first.flash("And sent.")
    await visitor.answer(first)

    second = await visitor.request(SAFE)
    shown = second.flashes()
    await visitor.answer(second)
    left = (await visitor.request(SAFE)).flashes()

    assert shown == ["Saved.", "Saved.", "And sent."]
    assert second.flashes() == []
    assert left == []


@pytest.mark.gen_test
async def test_a_message_can_be_shown_by_the_request_that_leaves_it(visitor: Visitor) -> None:
    """Taken before the response ends, it never reaches the store."""
    session = await visitor.request()
    session.flash("Now.")
    shown = session.flashes()
    await visitor.answer(session)

    assert shown == ["Now."]
    assert await visitor.core.everything() == []


@pytest.mark.gen_test
async def test_parallel_requests_lose_no_message(visitor: Visitor) -> None:  # D3
    """Ten requests at once leave ten messages."""
    await visitor.writes(cart=1)
    sessions = [await visitor.request() for _ in range(10)]
    for number, session in enumerate(sessions):
        session.flash(f"message {number}")
    await asyncio.gather(*[session.commit() for session in sessions])

    shown = (await visitor.request(SAFE)).flashes()

    assert sorted(shown) == [f"message {number}" for number in range(10)]


@pytest.mark.gen_test
async def test_messages_are_no_part_of_the_data(visitor: Visitor) -> None:
    """A session with nothing but messages is empty; with data, only the data shows."""
    session = await visitor.request()
    session.flash("Saved.")
    empty = (bool(session), len(session), list(session))
    session["cart"] = 1
    await visitor.answer(session)

    assert empty == (False, 0, [])
    assert await visitor.reads() == {"cart": 1}


@pytest.mark.gen_test
async def test_stored_messages_cross_a_repeated_sign_in_and_no_other(visitor: Visitor) -> None:  # C3
    """Who signs in again keeps them; an anonymous session's and another user's are not shown."""
    anonymous = await visitor.request()
    anonymous.flash("for a visitor")
    await visitor.answer(anonymous)
    first = await visitor.signs_in("ada")
    from_anonymous = first.flashes()
    session = await visitor.request()
    session.flash("for ada")
    await visitor.answer(session)
    again = await visitor.signs_in("ada")
    kept = again.flashes()
    session = await visitor.request()
    session.flash("for ada, too")
    await visitor.answer(session)
    over = await visitor.signs_in("bob")

    assert (from_anonymous, kept, over.flashes()) == ([], ["for ada"], [])


@pytest.mark.parametrize("before", ["nobody", "a visitor", "the same user", "another user", "an old session"])
@pytest.mark.gen_test
async def test_a_message_of_the_sign_in_reaches_the_next_page(before: str, visitor: Visitor) -> None:
    """Left before `login` or after it, in a request with or without a session."""
    if before == "a visitor":
        await visitor.writes(cart=1)
    elif before != "nobody":
        await visitor.signs_in("ada" if before == "the same user" else "bob")
    session = await visitor.request()
    if before == "an old session":
        await visitor.twin().signs_in("ada")
    session.flash("Welcome.")
    await session.login("ada")
    session.flash("You have mail.")
    await visitor.answer(session)

    page = await visitor.request(SAFE)

    assert (page.user, page.flashes()) == ("ada", ["Welcome.", "You have mail."])


@pytest.mark.parametrize("before", ["nobody", "a visitor", "a user"])
@pytest.mark.gen_test
async def test_a_message_of_the_sign_out_reaches_the_next_page(before: str, visitor: Visitor) -> None:
    """It begins a visitor's session, with nothing of the old one."""
    if before == "a visitor":
        await visitor.writes(cart=1)
    elif before == "a user":
        await visitor.signs_in("ada")
    old = visitor.sid
    session = await visitor.request()
    session.flash("Good bye.")
    await session.logout()
    session.flash("You are signed out.")
    await visitor.answer(session)

    page = await visitor.request(SAFE)

    assert (page.user, dict(page)) == (None, {})
    assert page.flashes() == ["Good bye.", "You are signed out."]
    assert visitor.sid is not None
    assert old is None or old.handle != visitor.sid.handle
    assert len(await visitor.core.everything()) == 1


@pytest.mark.parametrize("saved_by", ["commit", "modify", "renew"])
@pytest.mark.parametrize("verb", ["login", "login over another user", "late login", "logout"])
@pytest.mark.gen_test
async def test_a_message_that_was_saved_before_the_verb_reaches_the_next_page(
    verb: str, saved_by: str, visitor: Visitor
) -> None:
    """`commit`, `modify` and `renew` save what is pending. An older message is dropped."""
    await visitor.writes(cart=1, **{"_flash:000:old": "Old."})
    if verb == "login over another user":
        await visitor.signs_in("bob")
    session = await visitor.request()
    session.flash("New.")
    await (session.modify("n", lambda _: 1) if saved_by == "modify" else getattr(session, saved_by)())
    if verb == "late login":
        await visitor.core.store.inner.destroy(session.record.handle, now_ms=visitor.core.manager.now_ms())
    await (session.logout() if verb == "logout" else session.login("ada"))
    await visitor.answer(session)

    page = await visitor.request(SAFE)

    assert (dict(page), page.flashes()) == ({}, ["New."])


@pytest.mark.gen_test
async def test_what_is_no_message_is_refused_or_passed_over(visitor: Visitor) -> None:
    """Neither nothing nor a number can be left; what somebody else wrote there is not shown."""
    session = await visitor.request()
    for wrong in ("", 7, None, ["a"]):
        with pytest.raises(ValueError, match="non-empty string"):
            session.flash(wrong)  # type: ignore[arg-type]
    session["_flash:000:x"] = {"not": "text"}

    assert session.flashes() == []


@pytest.mark.gen_test
async def test_stored_messages_end_with_the_session(visitor: Visitor) -> None:
    """What was left for the user before the sign-out is not shown to whoever comes next."""
    session = await visitor.signs_in("ada")
    session.flash("for ada")
    await visitor.answer(session)
    session = await visitor.request()
    await session.logout()
    await visitor.answer(session)

    assert session.flashes() == []
    assert visitor.sid is None


@pytest.mark.gen_test
async def test_after_sign_out_only_messages_are_kept(visitor: Visitor) -> None:
    """Another write would put data of the user into a visitor's session."""
    session = await visitor.signs_in("ada")
    await session.logout()

    with pytest.raises(RuntimeError, match=r"only login\(\) and flash\(\) may follow"):
        session["last"] = "page"


@pytest.mark.gen_test
async def test_the_page_of_the_sign_out_can_show_its_message(visitor: Visitor) -> None:
    """A page that is rendered at once, without a redirect, begins no session."""
    session = await visitor.signs_in("ada")
    await session.logout()
    session.flash("You are signed out.")
    shown = session.flashes()
    await visitor.answer(session)

    assert shown == ["You are signed out."]
    assert (visitor.sid, await visitor.core.everything()) == (None, [])

"""`Session` as a mapping: what counts as a change, what is refused, what is written."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import pytest

from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import Session, state_of
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Delta
from tests.support.core import SAFE, Core, Visitor, with_stored
from tests.support.running import ROOT


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


# --- what counts as a change ---


@pytest.mark.gen_test
async def test_a_nested_change_is_saved(core: Core) -> None:
    """A list that is read and appended to, deep inside, is saved without a word about it."""
    visitor = Visitor(core)
    await visitor.writes(cart={"lines": [["apples", 1]]})

    session = await visitor.request()
    session["cart"]["lines"][0].append("ripe")
    await visitor.answer(session)

    assert await visitor.reads() == {"cart": {"lines": [["apples", 1, "ripe"]]}}


@pytest.mark.gen_test
async def test_reading_writes_nothing(core: Core) -> None:  # D4
    """To read, iterate, count and compare is no change, whatever the values are."""
    visitor = Visitor(core)
    await visitor.writes(n=1, cart=["apples"], box={"a": {}})

    session = await visitor.request()
    read = (session["n"], session["cart"], dict(session), len(session), bool(session), "box" in session)
    delta = state_of(session).data.pending()

    assert read == (1, ["apples"], {"n": 1, "cart": ["apples"], "box": {"a": {}}}, 3, True, True)
    assert delta is None


@pytest.mark.gen_test
async def test_an_equal_value_writes_nothing(core: Core) -> None:  # D4
    """To assign what is there already is no change, nor is a change that is taken back."""
    visitor = Visitor(core)
    await visitor.writes(n=1, cart=["apples"])

    session = await visitor.request()
    session["n"] = 1
    session["cart"] = ["apples"]
    session["cart"].append("pears")
    session["cart"].pop()

    assert state_of(session).data.pending() is None


@pytest.mark.gen_test
async def test_json_with_other_spaces_is_equal(core: Core) -> None:
    """What another program wrote with spaces and escapes is not rewritten because it was read."""
    visitor = await with_stored(core, box=b'{ "a" : [1, "\\u00e9"] }')

    session = await visitor.request()
    read = session["box"]

    assert read == {"a": [1, "é"]}
    assert state_of(session).data.pending() is None


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), (0, False), ("1", 1), ([], {}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (0, None)],
)
async def test_what_json_tells_apart_is_a_change(core: Core, before: Any, after: Any) -> None:
    """Values that Python calls equal but JSON writes differently are saved as they are."""
    visitor = Visitor(core)
    await visitor.writes(x=before)
    await visitor.writes(x=after)

    found = (await visitor.reads())["x"]

    assert (repr(found), type(found)) == (repr(after), type(after))


@pytest.mark.gen_test
async def test_only_what_changed_is_sent(core: Core) -> None:  # D3
    """A delta names the keys that changed, not those that were read or left alone."""
    visitor = Visitor(core)
    await visitor.writes(a=[1], b=[1], c=[1], d=[1])

    session = await visitor.request()
    session["a"].append(2)
    del session["b"]
    assert session["c"] == [1]
    delta = state_of(session).data.pending()

    assert delta == Delta({"a": b"[1,2]"}, frozenset({"b"}))


@pytest.mark.gen_test
async def test_an_assigned_object_stays_live(core: Core) -> None:
    """What was assigned is the object itself: a later change of it is saved too."""
    visitor = Visitor(core)
    cart: list[str] = []

    session = await visitor.request()
    session["cart"] = cart
    await session.commit()
    cart.append("apples")
    await visitor.answer(session)

    assert await visitor.reads() == {"cart": ["apples"]}


# --- the methods of a mapping ---


@pytest.mark.gen_test
async def test_the_methods_of_a_dict_work(core: Core) -> None:
    """`pop`, `popitem`, `setdefault`, `update`, `get` and `in` do what they do on a dict, and are saved."""
    visitor = Visitor(core)
    await visitor.writes(a=1, b=2, c=3)

    session = await visitor.request()
    answers = (session.pop("a"), session.pop("zzz", "none"), session.get("zzz"), "b" in session)
    session.setdefault("list", []).append(1)
    session.update({"d": 4}, e=5)
    gone = session.popitem()
    await visitor.answer(session)

    assert answers == (1, "none", None, True)
    expected = {"b": 2, "c": 3, "list": [1], "d": 4, "e": 5}
    assert {**await visitor.reads(), **dict([gone])} == expected
    assert gone[0] not in await visitor.reads()


@pytest.mark.gen_test
async def test_clear_removes_everything(core: Core) -> None:
    """After `clear` nothing is left, not what was stored, nor what was assigned, nor what cannot be read."""
    visitor = await with_stored(core, a=b"1", bad=b"{")

    session = await visitor.request()
    session["b"] = 2
    session.clear()
    left = dict(session)
    await visitor.answer(session)

    assert left == {}
    assert (await core.stored(visitor.sid)).data == {}


@pytest.mark.gen_test
async def test_a_deleted_key_is_absent_until_it_is_assigned(core: Core) -> None:
    """A deleted key raises KeyError like one that never was, and may be assigned again."""
    visitor = Visitor(core)
    await visitor.writes(a=1)

    session = await visitor.request()
    del session["a"]
    with pytest.raises(KeyError):
        session["a"]
    with pytest.raises(KeyError):
        del session["a"]
    assert (list(session), len(session)) == ([], 0)
    session["a"] = 1

    assert state_of(session).data.pending() is None


@pytest.mark.gen_test
async def test_a_key_that_came_and_went_is_not_written(core: Core) -> None:  # A15
    """A visitor for whom nothing is left to keep gets neither a record nor a cookie."""
    visitor = Visitor(core)

    session = await visitor.request()
    session["a"] = 1
    del session["a"]
    change = await visitor.answer(session)

    assert change is CookieChange.KEEP
    assert core.store.calls.total() == 0


@pytest.mark.gen_test
async def test_a_session_may_change_while_it_is_iterated(core: Core) -> None:
    """Iteration goes over the keys as they were when it began."""
    visitor = Visitor(core)
    await visitor.writes(a=1, b=2)

    session = await visitor.request()
    for key in session:
        del session[key]
        session[key + "2"] = True

    assert dict(session) == {"a2": True, "b2": True}


@pytest.mark.gen_test
async def test_an_empty_session_is_falsy(core: Core) -> None:
    """Like a dict, a session is falsy when it holds nothing, with or without a record."""
    visitor = Visitor(core)
    await visitor.signs_in()

    session = await visitor.request()
    before = bool(session)
    session["a"] = None

    assert (before, bool(session)) == (False, True)


# --- two requests at once ---


@pytest.mark.gen_test
async def test_requests_do_not_share_objects(core: Core) -> None:  # D9
    """What one request does to a value is nothing to another until it is saved."""
    visitor = Visitor(core)
    await visitor.writes(cart=["apples"])

    one, other = await visitor.request(), await visitor.request()
    one["cart"].append("pears")

    assert other["cart"] == ["apples"]
    assert state_of(other).data.pending() is None


@pytest.mark.gen_test
async def test_a_value_that_was_only_read_does_not_undo_another_request(core: Core) -> None:  # D3
    """A request that read a list and changed something else leaves the list to whoever changed it."""
    visitor = Visitor(core)
    await visitor.writes(cart=["apples"])

    slow = await visitor.request()
    assert slow["cart"] == ["apples"]
    await visitor.writes(cart=["apples", "pears"])
    slow["seen"] = True
    await slow.commit()
    slow["seen"] = False
    await slow.commit()

    assert await visitor.reads() == {"cart": ["apples", "pears"], "seen": False}


@pytest.mark.gen_test
async def test_a_foreign_record_reads_as_it_is(core: Core) -> None:
    """A record that a store hands out with no data and no client is an empty session."""
    visitor = Visitor(core)
    session = await visitor.signs_in()
    assert session.record is not None

    record = replace(session.record, client=b"")
    bare = Session(core.manager.lifecycle, SessionState(SAFE, Presence.LIVE, record=record))

    assert (dict(bare), bare.user, state_of(bare).data.pending()) == ({}, "ada", None)


def test_session_shows_only_what_its_documentation_names() -> None:
    """No internal name stands beside `logout`: a handler that uses one gets an AttributeError."""
    documented = {
        *("user", "handle", "record"),
        *("login", "logout", "renew", "expire_in", "commit", "modify", "reload"),
        *("flash", "flashes"),
    }
    mapping = {name for name in dir(MutableMapping) if not name.startswith("_")}

    assert {name for name in dir(Session) if not name.startswith("_")} == documented | mapping
    assert set(re.findall(r"^\| `(\w+)", (ROOT / "docs" / "embedding.md").read_text(), re.M)) >= documented


@pytest.mark.gen_test
async def test_session_takes_no_other_attribute(core: Core) -> None:
    """`self.session.name = ...` would be lost at the end of the request, so it raises."""
    session = await Visitor(core).request()

    with pytest.raises(AttributeError):
        session.name = "Ada"  # type: ignore[attr-defined]

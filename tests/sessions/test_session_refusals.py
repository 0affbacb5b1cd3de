"""What a `Session` does not take, and what it cannot read."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import pytest

from stormcellar.sessions.session import state_of
from tests.support.core import SAFE, Core, Visitor, with_stored
from tests.support.value_samples import circular, nested


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


# --- what another program left ---


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xfe", b"[NaN]", b'["\\ud800"]', b"[" * 70 + b"]" * 70], ids=repr
)
async def test_an_unreadable_value_reads_as_absent(
    core: Core, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:  # G4
    """It is missing from every view, logged once without the value, left alone, and may be replaced."""
    visitor = await with_stored(core, good=b"1", bad=raw)

    with caplog.at_level(logging.ERROR, "stormcellar"):
        session = await visitor.request()
        seen = (
            dict(session),
            len(session),
            "bad" in session,
            session.get("bad"),
            state_of(session).data.pending(),
        )
        await visitor.reads()
    logged = [record.getMessage() for record in caplog.records]
    await visitor.writes(bad="good again")

    assert seen == ({"good": 1}, 1, False, None, None)
    assert logged == [
        f"session {session.handle} holds a value for 'bad' that is not JSON; it reads as absent"
    ]
    assert await visitor.reads() == {"good": 1, "bad": "good again"}


# --- what is refused ---


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "value",
    [
        pytest.param((1,), id="tuple"),
        pytest.param({1}, id="set"),
        pytest.param(b"x", id="bytes"),
        pytest.param(float("nan"), id="nan"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param({1: 1}, id="integer key"),
        pytest.param(object(), id="object"),
        pytest.param(nested(65), id="65 levels"),
        pytest.param(circular(), id="circular"),
    ],
)
async def test_what_is_not_json_is_refused_at_assignment(core: Core, value: Any) -> None:
    """The line that assigns it raises ValueError, and the session is as it was."""
    visitor = Visitor(core)
    await visitor.writes(x=1)

    session = await visitor.request()
    with pytest.raises(ValueError):
        session["x"] = value

    assert (dict(session), state_of(session).data.pending()) == ({"x": 1}, None)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "key", ["", "1a", "a b", "a.b", "$set", "#user", "é", "a" * 65, "a\n", "__proto__\x00"], ids=repr
)
async def test_a_key_outside_the_grammar_is_refused(core: Core, key: str) -> None:  # G12
    """No key can reach what stores keep beside the data."""
    session = await Visitor(core).request()

    with pytest.raises(ValueError, match="session key"):
        session[key] = 1


@pytest.mark.gen_test
@pytest.mark.parametrize("key", [1, None, b"a", ("a",)], ids=repr)
async def test_a_key_that_is_no_string_is_refused(core: Core, key: Any) -> None:
    """Nothing is turned into a string on its way."""
    session = await Visitor(core).request()

    with pytest.raises(TypeError):
        session[key] = 1


@pytest.mark.gen_test
async def test_a_value_made_non_json_later_is_refused_at_commit(core: Core) -> None:
    """A nested change into what JSON cannot hold raises when it is saved; nothing is written."""
    visitor = Visitor(core)
    await visitor.writes(cart=["apples"], n=1)

    session = await visitor.request()
    session["n"] = 2
    session["cart"].append({"a", "set"})
    with pytest.raises(ValueError, match="set is not a JSON type"):
        await session.commit()

    assert await visitor.reads() == {"cart": ["apples"], "n": 1}


@pytest.mark.gen_test
async def test_a_sealed_session_can_be_read_only(core: Core) -> None:
    """Once sealed, assignment and every verb raise RuntimeError with the reason; reading works."""
    visitor = Visitor(core)
    await visitor.writes(a=[1])

    session = await visitor.request()
    state_of(session).seal("the response is finished")
    for attempt in (
        lambda: session.__setitem__("b", 1),
        lambda: session.__delitem__("a"),
        lambda: session.clear(),
        lambda: session.setdefault("b", 1),
    ):
        with pytest.raises(RuntimeError, match="the response is finished"):
            attempt()
    for verb in (
        session.commit(),
        session.login("ada"),
        session.logout(),
        session.renew(),
        session.modify("a", lambda _: 1),
    ):
        with pytest.raises(RuntimeError, match="the response is finished"):
            await verb

    assert (session["a"], session.get("b"), state_of(session).data.pending()) == ([1], None, None)


@pytest.mark.gen_test
async def test_a_session_does_not_print_what_it_holds(core: Core) -> None:  # I2
    """Its repr names the handle alone: no value, no secret, no user."""
    visitor = Visitor(core)
    await visitor.writes(card="4111")
    await visitor.signs_in("ada")

    session = await visitor.request(SAFE)
    shown = repr(session) + str(session)

    assert visitor.sid is not None
    assert str(session.handle) in shown
    assert not any(word in shown for word in ("4111", "ada", visitor.sid.secret))


@pytest.mark.gen_test
async def test_user_and_handle_cannot_be_assigned(core: Core) -> None:  # C4
    """Who is signed in is changed by the verbs alone; a data key called `user` is only data."""
    visitor = Visitor(core)
    await visitor.writes(user="root", auth_ms=2**50)

    session = await visitor.request()
    with pytest.raises(AttributeError):
        session.user = "root"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        session.handle = "h" * 22  # type: ignore[misc]

    assert session.user is None


@pytest.mark.gen_test
async def test_a_user_that_is_no_string_is_told_what_to_write(core: Core) -> None:
    """The number of a row in a database is the usual mistake."""
    session = await Visitor(core).request()

    with pytest.raises(TypeError, match=r"user must be a str, not int: write str\(user\)"):
        await session.login(42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not NoneType: logout\(\) signs out"):
        await session.login(None)  # type: ignore[arg-type]


@pytest.mark.gen_test
async def test_a_session_is_updated_in_place(core: Core) -> None:
    """`|=` works as for a dict, and is saved."""
    visitor = Visitor(core)
    session = await visitor.request()
    before = session
    session |= {"a": 1}
    session |= [("b", 2)]
    await visitor.writes(c=3)

    assert session is before
    assert dict(session) == {"a": 1, "b": 2}


@pytest.mark.gen_test
async def test_refusal_names_the_key(core: Core) -> None:
    """Whether the value was assigned, or became so by a nested change, the message says where."""
    session = await Visitor(core).request()

    with pytest.raises(ValueError, match="session key 'when': datetime is not a JSON type"):
        session["when"] = datetime(2026, 1, 1)
    session["cart"] = {}
    session["cart"]["tea"] = {1, 2}
    with pytest.raises(ValueError, match=r"session key 'cart': at \['tea'\]: set is not a JSON type"):
        await session.commit()

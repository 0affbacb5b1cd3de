"""JSON in and out: what a session may hold, what a request may send."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import example, given

from stormcellar.sessions.data import json_values as values
from stormcellar.sessions.data.json_values import NotJSON
from tests.support.value_samples import (
    NO_JSON,
    SUBCLASSES,
    TEXTS,
    VALUES,
    circular,
    decoded_by_json,
    encoded_by_json,
    nested,
)


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (None, b"null"),
        (True, b"true"),
        (7, b"7"),
        (1.5, b"1.5"),
        ("Zoë 🐦", '"Zoë 🐦"'.encode()),
        ([1, [2, {}]], b"[1,[2,{}]]"),
        ({"b": 1, "a": [None]}, b'{"b":1,"a":[null]}'),
    ],
)
def test_every_json_type_makes_the_round_trip(value: Any, raw: bytes) -> None:  # G3
    """A value becomes compact UTF-8 JSON, and comes back equal and of the same types."""
    encoded = values.encode(value)
    decoded = values.decode(encoded)

    assert encoded == raw
    assert (decoded, type(decoded)) == (value, type(value))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param((1, 2), id="tuple"),
        pytest.param({1, 2}, id="set"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param(object(), id="object"),
        pytest.param({1: "one"}, id="integer key"),
        pytest.param({None: 0}, id="null key"),
        pytest.param({"deep": [{"deeper": (1,)}]}, id="nested tuple"),
        pytest.param(float("nan"), id="nan"),
        pytest.param([float("inf")], id="infinity"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param({"\udfff": 1}, id="surrogate key"),
        pytest.param(10**5000, id="integer beyond any text"),
        pytest.param(circular(), id="circular"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    """Nothing is turned into something else on its way: a tuple is not a list, a key 1 is not "1"."""
    with pytest.raises(NotJSON):
        values.encode(value)


def test_sixty_four_levels_are_the_deepest() -> None:
    """Lists nest 64 deep and no deeper, in and out."""
    assert values.decode(values.encode(nested(64))) == nested(64)
    with pytest.raises(NotJSON):
        values.encode(nested(65))
    with pytest.raises(NotJSON):
        values.parse(json.dumps(nested(65)).encode())


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"nul", b"\xff", b"[NaN]", b'["\\ud800"]', b"1e999", b"[" * 65 + b"]" * 65, b"\x80\x04N."],
    ids=repr,
)
def test_nothing_is_read_that_could_not_be_written_back(raw: bytes) -> None:  # G3, G4
    """What another program left in the store is what we could have written, or unreadable."""
    with pytest.raises(NotJSON):
        values.decode(raw)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"12345678901234567890",
        b"[-12345678901234567890]",
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"1" * 100_000,
        "\ufeff{}".encode(),
        "{}".encode("utf-16"),
    ],
    ids=lambda text: repr(text[:24]),
)
def test_hostile_json_is_refused(text: bytes) -> None:  # H4
    """Depth, huge numbers, surrogates, constants and other encodings all end as one ordinary error."""
    with pytest.raises(NotJSON):
        values.parse(text)


def test_integers_of_nineteen_digits_are_taken() -> None:
    """The bound on integers leaves room for every 64-bit one."""
    assert values.parse(b"[-9223372036854775808,9223372036854775807]") == [-(2**63), 2**63 - 1]


def test_duplicate_keys_are_refused_where_asked() -> None:  # E7
    """Of two equal keys the last counts, unless they must be unique, at any depth."""
    text = b'{"a": {"b": 1, "b": 2}}'

    assert values.parse(text) == {"a": {"b": 2}}
    with pytest.raises(NotJSON):
        values.parse(text, unique=True)


# --- against the standard library, which wrote what is stored already ---


@given(VALUES)
def test_what_is_written_means_what_json_would_write(value: Any) -> None:  # G3
    """The same values are taken and refused, and read back by either they are equal and of equal types."""
    expected = outcome(encoded_by_json, value)
    actual = outcome(values.encode, value)

    assert (actual is None) == (expected is None)
    if actual is not None and expected is not None:
        assert repr(json.loads(actual[0])) == repr(json.loads(expected[0]))
        assert repr(values.decode(actual[0])) == repr(values.decode(expected[0]))


@given(TEXTS)
@example(b"18446744073709551616")
@example(b"[-9223372036854775809]")
@example(b"1" * 4300)
@example(b"1" * 4301)
@example(b'{"a":1,"b":2,"a":3}')
@example(b"[" * 64 + b"]" * 64)
@example(b"[" * 32 + b'{"":' * 33 + b"0" + b"}" * 33 + b"]" * 32)
@example(b"[" * 1100 + b"]" * 1100)
def test_what_is_read_is_what_json_would_read(raw: bytes) -> None:  # G3, G4
    """The same bytes are taken and refused, with the same value; and whatever is read can be written back."""
    expected = outcome(decoded_by_json, raw)
    actual = outcome(values.decode, raw)

    assert repr(actual) == repr(expected)
    if actual is not None:
        assert repr(values.decode(values.encode(actual[0]))) == repr(actual[0])


@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: type(value).__name__)
def test_types_that_a_library_would_convert_are_refused(value: Any) -> None:  # G3
    """Nothing comes back as something else, at the top or inside."""
    for each in (value, [value], {"key": value}):
        with pytest.raises(NotJSON):
            values.encode(each)


@pytest.mark.parametrize("value", SUBCLASSES, ids=lambda value: type(value).__name__)
def test_subclass_is_written_as_its_base(value: Any) -> None:
    """A str, an int or a dict of another type is what it inherits from, whatever else it says of itself."""
    for each in (value, [value], {"key": value}):
        assert values.encode(each) == encoded_by_json(each)


def test_brackets_in_a_string_nest_nothing() -> None:
    """What looks deep and is not can be read."""
    text = "[{" * 1000

    assert values.decode(values.encode([text])) == [text]


def outcome(work: Callable[[Any], Any], given: Any) -> Any:
    """Return what *work* makes of *given* in a list, or None if it is not JSON."""
    try:
        return [work(given)]
    except NotJSON:
        return None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"items": [1, {"when": date(2026, 1, 1)}]}, "at ['items'][1]['when']: date is not a JSON type"),
        ([[], [float("nan")]], "at [1][0]: nan has no JSON form"),
        ({"a": ["ok", "\ud800"]}, "at ['a'][1]: a string holds a lone surrogate"),
        ({"a": {"\ud800": 1}}, "at ['a']: a key holds a lone surrogate"),
        ({"a": {1: 1}}, "at ['a']: the keys of a dict must be str, not int"),
        ({"k" * 50: {1}}, f"at ['{'k' * 40}']: set is not a JSON type"),
        (float("inf"), "inf has no JSON form"),
    ],
)
def test_the_message_names_the_place(value: object, message: str) -> None:
    """It says by which keys and positions the bad value is reached."""
    with pytest.raises(NotJSON) as caught:
        values.encode(value)
    assert str(caught.value).startswith(message)

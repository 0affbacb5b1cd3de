"""JSON in and out: what a session may hold, what a request may send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server import values
from server.values import NotJSON
from tests.value_samples import circular, nested


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

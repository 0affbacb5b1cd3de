"""Edge cases of JSON values, and the standard library's result for them."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import strategies as st

from stormcellar.sessions.data.json_values import NotJSON
from stormcellar.sessions.data.limits import MAX_DEPTH


def nested(depth: int) -> Any:
    """Return a list nested to *depth*."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def circular() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


# --- values that a fast library accepts silently ---


class Colour(Enum):
    """An Enum that is not a JSON type."""

    RED = "red"


class Level(IntEnum):
    """An int whose `value` differs."""

    LOW = 1

    def __new__(cls, number: int) -> Level:
        """Set a `value` that differs from the int."""
        level = int.__new__(cls, number)
        level._value_ = number + 100
        return level


class Word(StrEnum):
    """A str."""

    YES = "yes"


class Pair(NamedTuple):
    """A tuple."""

    a: int
    b: int


class Text(str):
    """A str of another type."""


class Number(int):
    """An int of another type."""


class Real(float):
    """A float of another type."""


SUBCLASSES = [Level.LOW, Word.YES, Text("a"), Number(7), Real(1.5), OrderedDict(a=1), {Text("k"): 1}]
NO_JSON = [
    *(Colour.RED, Pair(1, 2), (), {1}, frozenset(), b"x", bytearray(b"x"), memoryview(b"x"), 1j),
    *(UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.5"), range(3), {Colour.RED: 1}, {True: 1}),
]

# --- the reference ---


def encoded_by_json(value: Any) -> bytes:
    """Return the standard library's encoding of *value*, under the rules of `json_values.encode`."""
    _check(value, MAX_DEPTH)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        raise NotJSON from None


def decoded_by_json(raw: bytes) -> Any:
    """Return the standard library's decoding of *raw*, under the rules of `json_values.decode`."""
    try:
        value = json.loads(raw.decode())
    except (ValueError, RecursionError):
        raise NotJSON from None
    encoded_by_json(value)
    return value


def _check(value: Any, depth: int) -> None:
    if value is None or isinstance(value, str | bool | int | float):
        return
    if depth == 0 or not isinstance(value, list | dict):
        raise NotJSON
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise NotJSON
    for item in value.values() if isinstance(value, dict) else value:
        _check(item, depth - 1)


# --- random values ---

_TEXT = st.text(st.characters(codec=None, exclude_categories=())) | st.sampled_from(
    ["\ud800", "\x7f\u2028", ""]
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400])
    | st.floats()
    | st.sampled_from([1e16, 1e22, 1.8446744073709552e19, -0.0, 5e-324, 1.7976931348623157e308])
    | _TEXT
)

VALUES = st.recursive(
    _SCALARS | st.sampled_from([*SUBCLASSES, *NO_JSON, nested(MAX_DEPTH - 2), nested(MAX_DEPTH)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT | st.integers(), inner, max_size=4),
    max_leaves=12,
)
"""JSON values and values that are not JSON."""

_PIECES = [
    *(
        '"',
        "\\",
        "\\u",
        "d83d",
        "\\ud83d",
        "\\ude00",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        "0",
        "1",
        "-",
        ".",
        "e",
        "E+",
    ),
    *("9" * 19, "18446744073709551616", "-9223372036854775809", "1e308", "1e309", "1e-400", "-0", "1" * 400),
    *(
        "true",
        "false",
        "null",
        "NaN",
        "Infinity",
        " ",
        "\n",
        "\x00",
        "\x1f",
        "\x7f",
        "\xa0",
        "é",
        "🐦",
        "\ufeff",
    ),
    *('"a"', '"a":1', '{"a":1,"a":[2]}', "\\n", "\\x", "\\/", "/*", "'", "[" * 65, "]" * 65),
]
_BYTES = st.sampled_from(
    [piece.encode() for piece in _PIECES] + [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5"]
)
_JSON = VALUES.map(lambda value: json.dumps(value, default=repr, skipkeys=True).encode())


@st.composite
def _spoiled(draw: st.DrawFn) -> bytes:
    raw = draw(_JSON)
    start = draw(st.integers(0, len(raw)))
    return raw[:start] + draw(_BYTES) + raw[start + draw(st.integers(0, 3)) :]


TEXTS = st.binary() | st.lists(_BYTES, max_size=6).map(b"".join) | _JSON | _spoiled()
"""Texts that are JSON or almost JSON."""

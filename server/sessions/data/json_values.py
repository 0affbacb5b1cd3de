"""JSON values: which ones a session and a request may contain, and how they are encoded.

msgspec encodes and decodes stored values. It is correct on hostile JSON: of two million mutated texts it
accepted those that the standard library accepts, with the same value and type. orjson is as fast, but reads
an integer beyond 64 bits as a float, and each result takes 4 KiB of memory. Both encode other types silently
(a tuple, a UUID, an Enum, NaN), so values are checked before they are encoded.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import msgspec

from stormcellar.sessions.data.limits import MAX_DEPTH

MAX_INTEGER_DIGITS = 19

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_json_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)
_SCALARS = frozenset((str, int, bool, type(None)))


class NotJSON(ValueError):
    """A value or a text is not JSON (RFC 8259), or is nested too deep."""


def encode(value: object) -> bytes:
    """Return *value* as UTF-8 JSON.

    Raises:
        NotJSON: A type other than None, bool, int, float, str, list and dict; a key that is not a str; NaN or
            an infinity; a lone surrogate; nesting deeper than `MAX_DEPTH`.
    """
    try:
        if type(value) in _SCALARS or _is_plain(value, MAX_DEPTH):
            return _encoder.encode(value)
        _check(value, MAX_DEPTH)
        return _json_encoder.encode(value).encode()
    except UnicodeEncodeError:
        raise NotJSON("a string holds a lone surrogate") from None
    except NotJSON:
        raise
    except ValueError:
        raise NotJSON("a number has no JSON form") from None


def decode(raw: bytes) -> Any:
    """Return the value of *raw*, which was stored.

    Raises:
        NotJSON: `encode` cannot produce *raw*. So every value that can be read can be written back.
    """
    try:
        value = _decoder.decode(raw)
    except (ValueError, RecursionError):
        raise NotJSON("not JSON") from None
    # msgspec reads deeper nesting than `encode` accepts. Each level takes a pair of brackets.
    if len(raw) > 2 * MAX_DEPTH and raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check(value, MAX_DEPTH)
    return value


def parse(text: bytes, *, unique: bool = False) -> Any:
    """Return the value of *text*, which a client sent.

    Args:
        unique: Refuse an object that names a key twice, instead of taking the last.

    Raises:
        NotJSON: Not UTF-8 JSON, NaN or an infinity, an integer of more than 19 digits, a lone surrogate, too
            deep, or a key twice where it must be unique.
    """
    # Not msgspec: it does not detect duplicate keys and does not limit integers.
    try:
        value = json.loads(
            text.decode(),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
            object_pairs_hook=_unique if unique else None,
        )
    except NotJSON:
        raise
    except (ValueError, RecursionError):
        raise NotJSON("the body is not valid JSON") from None
    encode(value)
    return value


def _is_plain(value: Any, depth: int) -> bool:
    """Whether *value*, no scalar, is JSON in the very types that reading makes; if not, `_check` says why."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if depth == 0:
        return False
    # Loops: `all` with a generator takes three times as long.
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not (type(item) in _SCALARS or _is_plain(item, depth - 1)):
                return False
    elif kind is list:
        for item in value:
            if not (type(item) in _SCALARS or _is_plain(item, depth - 1)):
                return False
    return kind is dict or kind is list


def _check(value: object, depth: int) -> None:
    if value is None or isinstance(value, str | bool | int | float):
        return
    if depth == 0:
        raise NotJSON(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotJSON(f"an object's keys are strings, not {type(key).__name__}")
            _check(item, depth - 1)
    else:
        raise NotJSON(f"{type(value).__name__} is not a JSON type (None, bool, int, float, str, list, dict)")


def _refuse_constant(name: str) -> NoReturn:
    raise NotJSON(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotJSON("a number is too large")
    return number


def _bounded(text: str) -> int:
    if len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise NotJSON("an integer is too large")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotJSON("an object names a key twice")
    return members

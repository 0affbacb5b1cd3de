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
            an infinity; a lone surrogate; nesting deeper than `MAX_DEPTH`. It names the place in *value*.
    """
    try:
        if type(value) in _SCALARS or _is_plain(value, MAX_DEPTH):
            return _encoder.encode(value)
        _check(value)
        return _json_encoder.encode(value).encode()
    except NotJSON:
        raise
    except ValueError:
        _check(value)  # it names the place
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
        _check(value)
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


def _check(value: object, path: tuple[str | int, ...] = ()) -> None:
    """Raise NotJSON if *value* is not JSON; *path* holds the keys and the positions that lead to it."""
    if isinstance(value, str):
        _require(_is_unicode(value), path, "a string holds a lone surrogate")
    elif isinstance(value, float):
        _require(math.isfinite(value), path, f"{value} has no JSON form")
    elif value is None or isinstance(value, int):
        return
    elif not isinstance(value, list | dict):
        kind = type(value).__name__
        _require(False, path, f"{kind} is not a JSON type (None, bool, int, float, str, list, dict)")
    elif len(path) == MAX_DEPTH:
        raise NotJSON(f"nested deeper than {MAX_DEPTH}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _check(item, (*path, position))
    else:
        for key, item in value.items():
            kind = type(key).__name__
            _require(isinstance(key, str), path, f"the keys of a dict must be str, not {kind}")
            _require(_is_unicode(key), path, "a key holds a lone surrogate")
            _check(item, (*path, key))


def _require(condition: bool, path: tuple[str | int, ...], problem: str) -> None:
    if not condition:
        place = "".join(f"[{each[:40]!r}]" if isinstance(each, str) else f"[{each}]" for each in path)
        raise NotJSON(f"at {place}: {problem}" if path else problem)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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

"""`Contents`: a session's values as one request sees them, and what it changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stormcellar.sessions import json_values as values
from stormcellar.stores import Delta
from stormcellar.stores.base import check_keys


class Unreadable(KeyError):
    """The value stored under a key is not JSON; the key reads as absent."""


class Contents:
    """The values behind a `Session`: decoded when first read, compared with what is stored when it is saved.

    Args:
        stored: Key to JSON bytes, as loaded and as this request has written since. Not what others write
            meanwhile: against that, a value that was only read would look changed, and undo their work.
    """

    def __init__(self, stored: Mapping[str, bytes]) -> None:
        self._stored = stored
        self._values: dict[str, Any] = {}
        self._dropped: set[str] = set()
        # What may differ from what is stored: key to JSON, or to None if the value can change in place.
        self._watched: dict[str, bytes | None] = {}
        self._pending: Delta | None = None
        self.is_unchanged = True
        """Whether nothing was written or deleted yet, nor a value read that can be changed in place."""

    # --- what a handler does ---

    @property
    def is_untouched(self) -> bool:
        """Whether no value was looked at, nor written."""
        return not (self._values or self._dropped)

    def names(self) -> list[str]:
        """Return the keys stored or written; some may be deleted or unreadable."""
        return [*self._stored, *(key for key in self._values if key not in self._stored)]

    def read(self, key: str) -> Any:
        """Return the value of *key*, the same object each time, so that a nested change is noticed.

        Raises:
            KeyError: There is none; Unreadable if what is stored is not JSON.
        """
        if key in self._values:
            return self._values[key]
        value = self._values[key] = self._decode(key)
        return value

    def write(self, key: str, value: Any) -> None:
        """Set *key*, or raise ValueError (TypeError for a key that is no string) if it cannot be stored."""
        raw = values.encode(value)
        check_keys((key,))
        self._take(key, value, raw)

    def delete(self, key: str) -> None:
        """Remove *key*, also one with an unreadable value; KeyError if there is none."""
        if key not in self._values and (key in self._dropped or key not in self._stored):
            raise KeyError(key)
        self._values.pop(key, None)
        self._watched.pop(key, None)
        self._dropped.add(key)
        self._touched()

    def clear(self) -> None:
        """Remove every key, those with an unreadable value too."""
        self._dropped |= self._values.keys() | self._stored.keys()
        self._values.clear()
        self._watched.clear()
        self._touched()

    # --- what is to be saved ---

    def pending(self) -> Delta | None:
        """Return what differs from what is stored, or None.

        Raises:
            NotJSON: A value was made so by a nested change.
        """
        put = {}
        for key, raw in self._watched.items():
            raw = values.encode(self._values[key]) if raw is None else raw
            if not self._is_stored(key, raw):
                put[key] = raw
        self._pending = _delta(put, frozenset(self._dropped & self._stored.keys()))
        return self._pending

    def remaining(self, frozen: Delta) -> Delta | None:
        """Return the part of *frozen*, pending at its time, that was neither saved nor taken back since."""
        if frozen is self._pending:
            return frozen  # nothing happened since
        put = {
            key: raw
            for key, raw in frozen.put.items()
            if key in self._values and not self._is_stored(key, raw)
        }
        return _delta(put, frozen.drop & self._dropped)

    def stored_is(self, stored: Mapping[str, bytes]) -> None:
        """Take over what this request has just written; whatever changed meanwhile is still pending."""
        self._stored = stored
        self._dropped &= stored.keys()
        self._pending = None

    def replaced(self, key: str, value: Any) -> None:
        """Take over that *value* was stored under *key*, whatever the handler knew of it before."""
        self._take(key, value, values.encode(value))

    # --- what is to be forgotten ---

    def confine(self, keys: Collection[str]) -> None:
        """Forget every value but those of *keys*; objects the handler holds of those stay live."""
        self._values = {key: value for key, value in self._values.items() if key in keys}
        self._watched = {key: raw for key, raw in self._watched.items() if key in self._values}
        self._dropped.intersection_update(keys)
        self._pending = None

    def abandon(self) -> None:
        """Drop what is pending; it can still be read."""
        self._watched.clear()
        self._dropped.clear()
        self._pending = None

    def _take(self, key: str, value: Any, raw: bytes) -> None:
        self._values[key] = value
        self._watched[key] = None if isinstance(value, list | dict) else raw
        self._dropped.discard(key)
        self._touched()

    def _touched(self) -> None:
        self.is_unchanged = False
        self._pending = None

    def _decode(self, key: str) -> Any:
        if key in self._dropped or key not in self._stored:
            raise KeyError(key)
        try:
            value = values.decode(self._stored[key])
        except values.NotJSON:
            raise Unreadable(key) from None
        if isinstance(value, list | dict):
            self._watched[key] = None
            self.is_unchanged = False
        return value

    def _is_stored(self, key: str, raw: bytes) -> bool:
        stored = self._stored.get(key)
        if stored is None or stored == raw:
            return stored == raw
        if _has_one_form(stored):
            return False
        try:
            # Another writer's JSON may have other spaces; what counts is the value.
            return values.encode(values.decode(stored)) == raw
        except values.NotJSON:
            return False


def _has_one_form(raw: bytes) -> bool:
    """Whether *raw* is a number or a string that JSON can write in no other way."""
    return raw.isdigit() or (raw[:1] == raw[-1:] == b'"' and b"\\" not in raw)


def _delta(put: Mapping[str, bytes], drop: frozenset[str]) -> Delta | None:
    return Delta(put, drop) if put or drop else None

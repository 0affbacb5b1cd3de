"""`TrackedData`: a session's values as one request sees them, and what it changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stormcellar.sessions.data import json_values
from stormcellar.stores import Delta
from stormcellar.stores.records import check_keys


class Unreadable(KeyError):
    """The value stored under a key is not JSON; the key reads as absent."""


class TrackedData:
    """The values of a `Session`: decoded when first read, compared with the stored ones when they are saved.

    Args:
        stored: Key to JSON bytes, as loaded and as this request wrote since. It excludes what other requests
            write meanwhile: compared with that, a value that was only read would look changed, and saving it
            would undo their work.
    """

    def __init__(self, stored: Mapping[str, bytes]) -> None:
        self._stored = stored
        self._values: dict[str, Any] = {}
        self._dropped: set[str] = set()
        # What may differ from what is stored: key to JSON, or to None if the value can change in place.
        self._watched: dict[str, bytes | None] = {}
        self._pending: Delta | None = None
        self.is_unchanged = True
        """Whether nothing was written or deleted yet, and no value was read that can change in place."""
        self._was_used = False

    # --- reading and changing ---

    @property
    def is_untouched(self) -> bool:
        """Whether no value was read or written."""
        return not (self._values or self._dropped or self._was_used)

    def names(self) -> list[str]:
        """Return the keys that are stored or written; some may be deleted or unreadable."""
        return [*self._stored, *(key for key in self._values if key not in self._stored)]

    def read(self, key: str) -> Any:
        """Return the value of *key*, the same object each time, so that a nested change is noticed.

        Raises:
            KeyError: There is none; Unreadable if the stored value is not JSON.
        """
        if key in self._values:
            return self._values[key]
        if key in self._dropped or key not in self._stored:
            raise KeyError(key)
        try:
            value = json_values.decode(self._stored[key])
        except json_values.NotJSON:
            raise Unreadable(key) from None
        if isinstance(value, list | dict):
            self._watched[key] = None
            self.is_unchanged = False
        self._values[key] = value
        return value

    def write(self, key: str, value: Any) -> None:
        """Set *key*; raise ValueError if it cannot be stored, or TypeError if the key is not a string."""
        try:
            raw = json_values.encode(value)
        except json_values.NotJSON as exc:
            raise json_values.NotJSON(f"session key {key!r}: {exc}") from None
        check_keys((key,))
        self._set(key, value, raw)

    def delete(self, key: str) -> None:
        """Remove *key*, even with an unreadable value; raise KeyError if it does not exist."""
        if key not in self._values and (key in self._dropped or key not in self._stored):
            raise KeyError(key)
        self._values.pop(key, None)
        self._watched.pop(key, None)
        self._dropped.add(key)
        self._mark_changed()

    def clear(self) -> None:
        """Remove every key, those with an unreadable value too."""
        self._dropped |= self._values.keys() | self._stored.keys()
        self._values.clear()
        self._watched.clear()
        self._mark_changed()

    # --- saving ---

    def pending(self) -> Delta | None:
        """Return what differs from what is stored, or None.

        Raises:
            NotJSON: A nested change made a value that is not JSON.
        """
        put = {}
        for key, raw in self._watched.items():
            try:
                raw = json_values.encode(self._values[key]) if raw is None else raw
            except json_values.NotJSON as exc:
                raise json_values.NotJSON(f"session key {key!r}: {exc}") from None
            if not self._is_stored(key, raw):
                put[key] = raw
        self._pending = _delta(put, frozenset(self._dropped & self._stored.keys()))
        return self._pending

    def remaining(self, frozen: Delta) -> Delta | None:
        """Return the part of *frozen*, an earlier result of `pending`, that is neither saved nor undone."""
        if frozen is self._pending:
            return frozen  # nothing changed since
        put = {
            key: raw
            for key, raw in frozen.put.items()
            if key in self._values and not self._is_stored(key, raw)
        }
        return _delta(put, frozen.drop & self._dropped)

    def set_stored(self, stored: Mapping[str, bytes]) -> None:
        """Record that this request has written *stored*; values changed since are still pending."""
        self._stored = stored
        self._dropped &= stored.keys()
        self._pending = None

    def reload(self, stored: Mapping[str, bytes]) -> None:
        """Record that the store now holds *stored*; drop every value that this request did not change."""
        changed = self.pending() or Delta()
        # The response may show what was read before.
        self._was_used = not self.is_untouched
        self.retain(changed.put)
        self._dropped = set(changed.drop & stored.keys())
        self._stored = stored

    def written(self, prefix: str) -> dict[str, bytes]:
        """Return the JSON of what this request wrote under keys that begin with *prefix*, saved or not.

        Lists and objects are left out.
        """
        return {k: raw for k, raw in self._watched.items() if raw is not None and k.startswith(prefix)}

    def set_value(self, key: str, value: Any) -> None:
        """Record that *value* was stored under *key*, instead of what the handler read before."""
        self._set(key, value, json_values.encode(value))

    # --- dropping changes ---

    def retain(self, keys: Collection[str]) -> None:
        """Drop every value but those of *keys*; objects that the handler holds of those stay tracked."""
        self._values = {key: value for key, value in self._values.items() if key in keys}
        self._watched = {key: raw for key, raw in self._watched.items() if key in self._values}
        self._dropped.intersection_update(keys)
        self._pending = None

    def drop_pending(self) -> None:
        """Drop what is pending; the handler can still read it."""
        self._watched.clear()
        self._dropped.clear()
        self._pending = None

    def _set(self, key: str, value: Any, raw: bytes) -> None:
        self._values[key] = value
        self._watched[key] = None if isinstance(value, list | dict) else raw
        self._dropped.discard(key)
        self._mark_changed()

    def _mark_changed(self) -> None:
        self.is_unchanged = False
        self._pending = None

    def _is_stored(self, key: str, raw: bytes) -> bool:
        stored = self._stored.get(key)
        if stored is None or stored == raw:
            return stored == raw
        if _is_canonical(stored):
            return False
        try:
            # The JSON of another program may have other spaces; the values are compared.
            return json_values.encode(json_values.decode(stored)) == raw
        except json_values.NotJSON:
            return False


def _is_canonical(raw: bytes) -> bool:
    """Whether *raw* is a number or a string that has no other form in JSON."""
    return raw.isdigit() or (raw[:1] == raw[-1:] == b'"' and b"\\" not in raw)


def _delta(put: Mapping[str, bytes], drop: frozenset[str]) -> Delta | None:
    return Delta(put, drop) if put or drop else None

"""Tables of the memory store that a million sessions fill, and no step of theirs takes long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Generic, TypeVar

from stormcellar.stores.records import Handle

V = TypeVar("V")

PARTS = 128

_SHIFT = sys.hash_info.width - 7
"""Leaves the seven high bits of a hash, signed; a dict goes by the low ones."""


class Table(Generic[V]):
    """A dict in many parts: one of a million entries takes 30 ms in one step when it grows.

    The garbage collector does not follow it as long as the values are nothing it follows.
    """

    def __init__(self) -> None:
        self._parts: list[dict[str, V]] = [{} for _ in range(PARTS)]
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, key: str) -> V:
        return self._parts[hash(key) >> _SHIFT][key]

    def get(self, key: str) -> V | None:
        """Return the value of *key*, or None."""
        return self._parts[hash(key) >> _SHIFT].get(key)

    def add(self, key: str, value: V) -> None:
        """Set *key*, which is not there."""
        self._parts[hash(key) >> _SHIFT][key] = value
        self._size += 1

    def replace(self, key: str, value: V) -> None:
        """Set *key*, which is there."""
        self._parts[hash(key) >> _SHIFT][key] = value

    def pop(self, key: str) -> V:
        """Remove *key* and return its value, or raise KeyError."""
        number = hash(key) >> _SHIFT
        value = self._parts[number].pop(key)
        self._size -= 1
        if not self._parts[number]:
            # An emptied dict would keep the memory.
            self._parts[number] = {}
        return value

    def pages(self) -> Iterator[list[str]]:
        """Yield the keys, those of a part at a time."""
        for part in self._parts:
            yield list(part)


class UserIndex:
    """The handles of each user, in the order in which they were bound.

    Most users have one, which is kept without a container.
    """

    def __init__(self) -> None:
        self._only: Table[Handle] = Table()
        self._several: Table[dict[Handle, None]] = Table()

    def __len__(self) -> int:
        return len(self._only) + len(self._several)

    def add(self, user: str, handle: Handle) -> None:
        """Add *handle*, or leave it if it is there."""
        only, several = self._only.get(user), self._several.get(user)
        if several is not None:
            several[handle] = None
        elif only is None:
            self._only.add(user, handle)
        elif only != handle:
            self._several.add(user, {self._only.pop(user): None, handle: None})

    def discard(self, user: str, handle: Handle) -> None:
        """Take out *handle*, which is there."""
        several = self._several.get(user)
        if several is None:
            self._only.pop(user)
            return
        del several[handle]
        if len(several) == 1:
            self._only.add(user, *self._several.pop(user))

    def of(self, user: str) -> list[Handle]:
        """Return the handles of *user*."""
        only = self._only.get(user)
        return [only] if only is not None else list(self._several.get(user) or ())

"""Tables of the memory store: with a million sessions in them, no single operation takes long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Generic, TypeVar

from stormcellar.stores.records import Handle

V = TypeVar("V")

PARTS = 128

SESSION_BYTES = 300
"""What a session takes besides its packed record, for handle, tables, schedules and index, at most.

`benchmarks/memory.py` measures 210 for a visitor's, and 300 for one of a user without another one.
"""

_SHIFT = sys.hash_info.width - 7
"""The shift that leaves the seven high bits of a hash, signed; a dict uses the low ones."""


class Table(Generic[V]):
    """A dict in many parts: a single dict of a million entries takes 30 ms at once when it grows.

    The garbage collector does not traverse it as long as it does not traverse the values.
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
        """Add *key*, which must be absent."""
        self._parts[hash(key) >> _SHIFT][key] = value
        self._size += 1

    def replace(self, key: str, value: V) -> None:
        """Replace the value of *key*, which must be present."""
        self._parts[hash(key) >> _SHIFT][key] = value

    def pop(self, key: str) -> V:
        """Remove *key* and return its value, or raise KeyError."""
        number = hash(key) >> _SHIFT
        value = self._parts[number].pop(key)
        self._size -= 1
        if not self._parts[number]:
            # A dict keeps its memory when it becomes empty.
            self._parts[number] = {}
        return value

    def pages(self) -> Iterator[list[str]]:
        """Yield the keys, one part at a time."""
        for part in self._parts:
            yield list(part)


class Entries(Table[bytes]):
    """The entries of all sessions, and how many bytes of memory they take."""

    def __init__(self) -> None:
        super().__init__()
        self._packed_bytes = 0

    @property
    def size_bytes(self) -> int:
        """The memory of the entries, with what the store keeps beside each to find it."""
        return self._packed_bytes + SESSION_BYTES * len(self)

    def add(self, key: str, value: bytes) -> None:
        """Add *key*, which must be absent."""
        super().add(key, value)
        self._packed_bytes += len(value)

    def replace(self, key: str, value: bytes) -> None:
        """Replace the value of *key*, which must be present."""
        self._packed_bytes += len(value) - len(self[key])
        super().replace(key, value)

    def pop(self, key: str) -> bytes:
        """Remove *key* and return its value, or raise KeyError."""
        value = super().pop(key)
        self._packed_bytes -= len(value)
        return value


class UserIndex:
    """The handles of each user, in the order in which they were bound.

    Most users have only one, which is stored without a container.
    """

    def __init__(self) -> None:
        self._only: Table[Handle] = Table()
        self._several: Table[dict[Handle, None]] = Table()

    def __len__(self) -> int:
        return len(self._only) + len(self._several)

    def add(self, user: str, handle: Handle) -> None:
        """Add *handle*, if it is not present."""
        only, several = self._only.get(user), self._several.get(user)
        if several is not None:
            several[handle] = None
        elif only is None:
            self._only.add(user, handle)
        elif only != handle:
            self._several.add(user, {self._only.pop(user): None, handle: None})

    def discard(self, user: str, handle: Handle) -> None:
        """Remove *handle*, which must be present."""
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

"""`SessionMapping`: the values of a session by key, as a `Session` shows them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from stormcellar.sessions.data.keys import Key, V
from stormcellar.sessions.data.limits import FLASH
from stormcellar.sessions.data.tracked import Unreadable
from stormcellar.sessions.state import SessionState

log = logging.getLogger("stormcellar.session")

D = TypeVar("D")


class SessionMapping(MutableMapping[str, Any]):
    """Key to JSON value. With a `Key` a type checker knows the value; with a `str` it is `Any`."""

    __slots__ = ("_state",)

    _state: SessionState

    @overload
    def __getitem__(self, key: Key[V], /) -> V: ...
    @overload
    def __getitem__(self, key: str, /) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any:
        try:
            return self._state.data.read(key)
        except Unreadable:
            _log_unreadable(self._state.handle, key)
            raise

    @overload
    def __setitem__(self, key: Key[V], value: V, /) -> None: ...
    @overload
    def __setitem__(self, key: str, value: Any, /) -> None: ...
    def __setitem__(self, key: Any, value: Any, /) -> None:
        self._state.require_writable()
        self._state.data.write(key, value)

    def __delitem__(self, key: str | Key[Any], /) -> None:
        self._state.require_writable()
        self._state.data.delete(key)  # type: ignore[arg-type]  # a Key is a str

    if TYPE_CHECKING:  # MutableMapping has these methods

        @overload
        def get(self, key: Key[V], /) -> V | None: ...
        @overload
        def get(self, key: Key[V], default: V, /) -> V: ...
        @overload
        def get(self, key: Key[V], default: D, /) -> V | D: ...
        @overload
        def get(self, key: str, /) -> Any | None: ...
        @overload
        def get(self, key: str, default: Any, /) -> Any: ...
        def get(self, key: Any, default: Any = None, /) -> Any:
            """Return the value of *key*; *default* if there is none."""

        @overload
        def pop(self, key: Key[V], /) -> V: ...
        @overload
        def pop(self, key: Key[V], default: V, /) -> V: ...
        @overload
        def pop(self, key: Key[V], default: D, /) -> V | D: ...
        @overload
        def pop(self, key: str, default: Any = None, /) -> Any: ...
        def pop(self, key: Any, default: Any = None, /) -> Any:
            """Remove *key* and return its value; without one, return *default* or raise KeyError."""

        @overload
        def setdefault(self, key: Key[V], default: V, /) -> V: ...
        @overload
        def setdefault(self, key: str, default: Any = None, /) -> Any: ...
        def setdefault(self, key: Any, default: Any = None, /) -> Any:
            """Return the value of *key*; if there is none, set it to *default* first."""

    def clear(self) -> None:
        """Remove every key, those with an unreadable value too."""
        self._state.require_writable()
        self._state.data.clear()

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        self.update(other)
        return self

    def __iter__(self) -> Iterator[str]:
        names = self._state.data.names()
        return iter([key for key in names if not key.startswith(FLASH) and key in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)


@lru_cache(maxsize=1024)
def _log_unreadable(handle: str | None, key: str) -> None:
    # The cache logs this once per session and key, in bounded memory.
    log.error("session %s holds a value for %r that is not JSON; it reads as absent", handle, key)

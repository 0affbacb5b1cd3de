"""`Key`: the name of a value in a session, with the type of that value for type checkers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from stormcellar.stores.records import check_keys

V = TypeVar("V", bound=bool | int | float | str | list[Any] | Mapping[str, object] | None)


class Key(Generic[V]):
    """A key of a session, with the type of its value: `CART = Key[list[str]]("cart")`.

    With it type checkers know what `session[CART]` is, and so do `get`, `setdefault`, `pop`, `modify` and
    each assignment. When the program runs, a key is the `str` itself, so it costs nothing, and
    `session["cart"]` is the same value. Nothing compares a stored value with the type.

    The type is JSON: None, bool, int, float, str, list, dict, or a `TypedDict`.

    Args:
        name: `[A-Za-z_][A-Za-z0-9_:-]{0,63}`.

    Raises:
        ValueError: Not a valid key.
    """

    def __new__(cls, name: str) -> Self:
        """Return *name* itself."""
        check_keys((name,))
        return cast(Self, name)

    if TYPE_CHECKING:  # mypy refuses to compare it with a str, as in `CART in session`, without these

        def __eq__(self, other: object, /) -> bool: ...
        def __hash__(self) -> int: ...

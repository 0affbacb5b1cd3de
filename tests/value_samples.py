"""Values at the edge of what JSON can nest."""

from __future__ import annotations

from typing import Any


def nested(depth: int) -> Any:
    """Return a list that nests *depth* deep."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def circular() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value

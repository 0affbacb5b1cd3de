"""What a request brings to its session, and what its response does to the cookie."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from stormcellar.sessions import json_values as values

MAX_ADDRESS = 64
MAX_AGENT = 256


class Presence(Enum):
    """What stands behind the cookie of a request."""

    NONE = auto()
    """No cookie of ours, or one that is malformed or badly signed: a visitor."""
    LIVE = auto()
    SUPERSEDED = auto()
    """The session lives under a newer cookie, or is about to. Reads as anonymous; the cookie stays."""
    ENDED = auto()
    """The session is over. Reads as anonymous; the cookie is cleared."""
    OVER = auto()
    """This request signed it out."""


class CookieChange(Enum):
    """What the response does to the cookie."""

    KEEP = auto()
    SET = auto()
    CLEAR = auto()


class Client(NamedTuple):
    """Who sent the request, as "your sessions" shows it. Unverified."""

    address: str
    agent: str

    def encode(self, *, is_remembered: bool = False) -> bytes:
        """Return the JSON that a record keeps; address and agent are cut to 64 and 256 characters.

        Args:
            is_remembered: They asked to be kept signed in. No handler can write here, unlike to the data.
        """
        client: dict[str, Any] = {
            "address": _text(self.address, MAX_ADDRESS),
            "agent": _text(self.agent, MAX_AGENT),
        }
        return values.encode(client | {"remember": True} if is_remembered else client)


def decoded_client(raw: bytes) -> dict[str, Any]:
    """Return what `Client.encode` wrote; nothing if somebody else wrote it."""
    with suppress(values.NotJSON):
        client = values.decode(raw)
        if isinstance(client, dict):
            return client
    return {}


class Requesting(Protocol):
    """What the session layer must know about a request; most requests are never asked."""

    @property
    def client(self) -> Client:
        """Who sent it."""

    @property
    def is_safe(self) -> bool:
        """Whether it is GET, HEAD or OPTIONS: what it writes to a session that is over is merely dropped."""

    @property
    def may_set_cookie(self) -> bool:
        """Whether the transport is fit for a session cookie."""


class Request(NamedTuple):
    """The same, said beforehand."""

    client: Client
    is_safe: bool = True
    may_set_cookie: bool = True


def _text(sent: str, limit: int) -> str:
    return sent[:limit].encode(errors="replace").decode()

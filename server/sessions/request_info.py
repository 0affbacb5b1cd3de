"""What a session needs to know about its request, and what the response does to the cookie."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from stormcellar.sessions.data import json_values
from stormcellar.stores import Record
from stormcellar.stores.records import TOMBSTONE_MS

MAX_ADDRESS = 64
MAX_AGENT = 256


class Presence(Enum):
    """What the session cookie of a request refers to."""

    NONE = auto()
    """There is no session cookie, or it refers to nothing that is live: a visitor."""
    LIVE = auto()
    LATE = auto()
    """The session ended, or its ID was rotated, when this request may have been on its way. It reads as
    anonymous and begins no session, and the response neither sets nor clears the cookie: the browser may have
    a newer one."""
    SIGNED_OUT = auto()
    """This request signed the session out."""


class CookieChange(Enum):
    """What the response does to the cookie."""

    KEEP = auto()
    SET = auto()
    CLEAR = auto()


class Marks(NamedTuple):
    """What the session layer stores about a session besides the data. Handlers cannot write it."""

    is_remembered: bool = False
    """The user asked to be kept signed in."""
    account: str | None = None
    """What identifies the user's account, if the directory has such IDs."""
    family: str | None = None
    """With periodic renewal: what this ID and those it was renewed from have in common; see
    `SessionId.family`."""


class Client(NamedTuple):
    """The client that sent the request, as the page "Your sessions" shows it. Not verified."""

    address: str
    agent: str

    def encode(self, marks: Marks = Marks()) -> bytes:  # noqa: B008  immutable
        """Return the JSON for `Record.client`; address and agent are cut to 64 and 256 characters."""
        client: dict[str, Any] = {
            "address": _text(self.address, MAX_ADDRESS),
            "agent": _text(self.agent, MAX_AGENT),
        }
        if marks.is_remembered:
            client["remember"] = True
        if marks.account is not None:
            client["account"] = marks.account
        if marks.family is not None:
            client["family"] = marks.family
        return json_values.encode(client)


def marks_of(record: Record) -> Marks:
    """Return the marks that `Client.encode` wrote to *record*."""
    client = decoded_client(record.client)
    return Marks(client.get("remember") is True, client.get("account"), client.get("family"))


def decoded_client(raw: bytes) -> dict[str, Any]:
    """Return what `Client.encode` wrote; an empty dict if it is something else."""
    with suppress(json_values.NotJSON):
        client = json_values.decode(raw)
        if isinstance(client, dict):
            return client
    return {}


class RequestInfo(Protocol):
    """What the session layer needs to know about a request. Each property is read only when needed."""

    @property
    def client(self) -> Client:
        """The client that sent it."""

    @property
    def is_safe(self) -> bool:
        """Whether it is GET, HEAD or OPTIONS: if it is late, its write is dropped, not refused."""

    @property
    def age_s(self) -> float:
        """How many seconds ago the head of the request arrived."""

    @property
    def may_set_cookie(self) -> bool:
        """Whether the transport is safe enough for a session cookie."""


class FixedRequestInfo(NamedTuple):
    """A `RequestInfo` of given values."""

    client: Client
    is_safe: bool = True
    may_set_cookie: bool = True
    age_s: float = 0.0


def arrival_ms(request: RequestInfo, now_ms: int) -> int:
    """Return when the head of *request* arrived, at most `TOMBSTONE_MS` before *now_ms*, and never after it.

    The session is judged at that time: a slow upload, or a handler that runs for long, must not end it. Only
    whole seconds count, so that times in a record do not depend on how busy the server is.
    """
    # The age is negative if the system clock was set back meanwhile.
    return now_ms - min(max(0, 1000 * int(request.age_s)), TOMBSTONE_MS)


def _text(sent: str, limit: int) -> str:
    return sent[:limit].encode(errors="replace").decode()

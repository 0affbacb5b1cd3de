"""`SessionList`: the sessions of a user, as JSON and as "Your sessions" shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stormcellar.app.handlers.display import agent_name, ago
from stormcellar.sessions.request_info import decoded_client
from stormcellar.stores import Record
from stormcellar.timestamps import iso_utc


class SessionList:
    """The sessions of a user: the current one first, then the others in the order of *records*.

    Args:
        here: The handle of the current session.
        now_ms: Unix time in milliseconds.
    """

    def __init__(self, records: Iterable[Record], *, here: str | None, now_ms: int) -> None:
        self._records = sorted(records, key=lambda record: record.handle != here)
        self._here = here
        self._now_ms = now_ms

    def as_json(self) -> list[dict[str, Any]]:
        """Return what the JSON response tells of each session."""
        return [self._json(record) for record in self._records]

    def as_text(self) -> list[dict[str, Any]]:
        """Return the same, and what the page shows of it."""
        return [{**self._json(record), **self._text(record)} for record in self._records]

    def facts(self) -> list[tuple[object, ...]]:
        """Return what the list depends on except the present time."""
        return [
            (each.handle, each.auth_ms, each.client, None if self._is_current(each) else each.seen_ms)
            for each in self._records
        ]

    def _is_current(self, record: Record) -> bool:
        return record.handle == self._here

    def _json(self, record: Record) -> dict[str, Any]:
        is_current = self._is_current(record)
        return {
            "handle": record.handle,
            "created_at": iso_utc(record.created_ms),
            "authenticated_at": iso_utc(record.auth_ms or record.created_ms),
            # This request is activity that the store records at the same time.
            "seen_at": iso_utc(self._now_ms if is_current else record.seen_ms),
            **_client(record),
            "current": is_current,
        }

    def _text(self, record: Record) -> dict[str, str]:
        return {
            "client": agent_name(_client(record)["agent"]),
            "seen": "now" if self._is_current(record) else ago(self._now_ms - record.seen_ms),
            "signed_in": ago(self._now_ms - (record.auth_ms or record.created_ms)),
        }


def _client(record: Record) -> dict[str, str]:
    """Return the client's address and agent from *record*; empty if they cannot be decoded."""
    client = decoded_client(record.client)
    return {name: str(client.get(name, "")) for name in ("address", "agent")}

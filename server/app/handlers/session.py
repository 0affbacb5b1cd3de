"""The session as JSON: read, change keys, increment a counter."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from stormcellar.app.error_texts import Problem
from stormcellar.app.handlers.base import PageHandler
from stormcellar.app.handlers.bodies import JSON, json_object
from stormcellar.sessions.data.limits import is_private_key
from stormcellar.stores.records import check_keys
from stormcellar.timestamps import iso_utc
from stormcellar.web.tornado_request import SAFE_METHODS

MAX_SAFE_INTEGER = 2**53


class SessionData(PageHandler):
    """`GET` and `PATCH /session`."""

    always_json = True
    body_types = (JSON,)

    async def prepare(self) -> None:
        """Load the session. A script that asks for it is no activity."""
        self.session_activity = self.request.method not in SAFE_METHODS
        await super().prepare()

    async def get(self) -> None:
        """Answer with the session; it is not extended."""
        self._show()

    async def patch(self) -> None:
        """Set the given keys and delete those that are null, in one atomic step."""
        changes = json_object(self.request)
        _require_keys(changes)
        for key, value in changes.items():
            if value is None:
                with suppress(KeyError):
                    del self.session[key]
            else:
                self.session[key] = value
        await self.session.commit()
        self._show()

    def _show(self) -> None:
        record, now_ms = self.session.record, self.sessions.now_ms()
        self.write(
            {
                "user": self.session.user,
                "data": self.session_data(),
                "created_at": iso_utc(record.created_ms) if record else None,
                "authenticated_at": iso_utc(record.auth_ms) if record and record.auth_ms else None,
                "idle_expires_in": _seconds(record.expires_ms - now_ms) if record else None,
                "absolute_expires_in": _seconds(record.deadline_ms - now_ms) if record else None,
            }
        )


class Increment(PageHandler):
    """`POST /session/increment`."""

    always_json = True
    body_types = (JSON,)

    async def post(self) -> None:
        """Add to a counter, atomically; a missing counter is 0."""
        body = json_object(self.request)
        key, by = body.get("key"), _require_integer(body.get("by", 1), '"by"')
        if not isinstance(key, str):
            raise Problem(422, '"key" must be a string.')
        _require_keys({key: None})
        self.write({"value": await self.session.modify(key, lambda stored: _sum(stored, by))})


def _require_keys(keys: dict[str, Any]) -> None:
    try:
        check_keys(keys)
    except ValueError as exc:
        raise Problem(400, str(exc)) from None
    if any(map(is_private_key, keys)):
        raise Problem(400, "Keys that begin with _ are private to the server. Choose another name.")


def _sum(stored: object, by: int) -> int:
    before = 0 if stored is None else _require_integer(stored, "The stored value")
    return _require_integer(before + by, "The sum")


def _require_integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_SAFE_INTEGER:
        raise Problem(422, f"{what} must be an integer from -2^53 to 2^53.")
    return value


def _seconds(left_ms: int) -> int:
    return max(0, left_ms // 1000)

"""Times as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso_utc(unix_ms: int, *, timespec: str = "seconds") -> str:
    """Return a Unix time in milliseconds as ISO 8601 in UTC, such as `2026-07-31T10:00:00Z`.

    Args:
        timespec: `seconds`, which cuts off the rest, or `milliseconds`.
    """
    moment = _EPOCH + timedelta(milliseconds=unix_ms)
    return moment.isoformat(timespec=timespec).removesuffix("+00:00") + "Z"

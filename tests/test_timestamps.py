"""Times as text: one unit, one spelling, in UTC."""

from __future__ import annotations

import pytest

from stormcellar.timestamps import iso_utc


@pytest.mark.parametrize(
    ("unix_ms", "seconds", "milliseconds"),
    [
        (0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        (1_900_000_000_999, "2030-03-17T17:46:40Z", "2030-03-17T17:46:40.999Z"),
        (4_102_444_800_001, "2100-01-01T00:00:00Z", "2100-01-01T00:00:00.001Z"),
    ],
)
def test_time_is_iso_8601_in_utc(unix_ms: int, seconds: str, milliseconds: str) -> None:
    """To the second for people and clients, to the millisecond for logs; what is finer is cut off."""
    assert iso_utc(unix_ms) == seconds
    assert iso_utc(unix_ms, timespec="milliseconds") == milliseconds

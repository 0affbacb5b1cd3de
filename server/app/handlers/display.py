"""How times and browsers are shown to people."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# The order matters: a User-Agent also names the browsers that its own browser once imitated.
_BROWSERS = (
    ("Edg", "Edge"),
    ("EdgA", "Edge"),
    ("EdgiOS", "Edge"),
    ("OPR", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Firefox", "Firefox"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def agent_name(agent: str) -> str:
    """Return the likely browser and system of a User-Agent header: `Firefox on Linux`, `curl/8.5.0`."""
    browser = next((name for token, name in _BROWSERS if f"{token}/" in agent), None)
    system = next((name for token, name in _SYSTEMS if token in agent), None)
    if browser is None:
        product = re.match(r"\S{1,40}", agent)
        return product[0] if product else "Unknown client"
    return f"{browser} on {system}" if system else browser


def ago(elapsed_ms: int) -> str:
    """Return an elapsed time in its largest whole unit, rounded down: `5 minutes ago`."""
    for unit, seconds in _UNITS[:-1]:
        if (count := elapsed_ms // (1000 * seconds)) > 0:
            return f"{_counted(count, unit)} ago"
    return "just now"


def duration(seconds: int) -> str:
    """Return a duration, rounded, in its largest unit of at least 2: `90 seconds`, `30 minutes`.

    A duration of exactly one unit uses that unit: `1 hour`.
    """
    for unit, size in _UNITS:
        if seconds >= 2 * size or seconds == size:
            return _counted(round(seconds / size), unit)
    return "0 seconds"


def clock_time(unix_ms: int, *, now_ms: int) -> str:
    """Return a time in UTC, with the day unless it is today: `at 22:10 UTC`, `on 1 May at 08:00 UTC`."""
    then, now = (datetime.fromtimestamp(ms // 1000, UTC) for ms in (unix_ms, now_ms))
    if then.date() == now.date():
        return f"at {then:%H:%M} UTC"
    return f"on {then.day} {then:%B} at {then:%H:%M} UTC"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"

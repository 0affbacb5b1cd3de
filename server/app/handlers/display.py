"""How machines' facts are told to people."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# In this order: a browser's name stands beside those of the browsers it once imitated.
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
    """Return what a User-Agent header most likely names, such as `Firefox on Linux` or `curl/8.5.0`."""
    browser = next((name for mark, name in _BROWSERS if f"{mark}/" in agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in agent), None)
    if browser is None:
        product = re.match(r"\S{1,40}", agent)
        return product[0] if product else "Unknown client"
    return f"{browser} on {system}" if system else browser


def ago(elapsed_ms: int) -> str:
    """Return how long ago something was, in the largest unit that fits, such as `5 minutes ago`."""
    for unit, seconds in _UNITS[:-1]:
        if (count := elapsed_ms // (1000 * seconds)) > 0:
            return f"{_counted(count, unit)} ago"
    return "just now"


def span(seconds: int) -> str:
    """Return a length of time, rounded, in the largest unit of which it has two: `90 seconds`, `30 minutes`.

    One whole unit is told as such: `1 hour`.
    """
    for unit, size in _UNITS:
        if seconds >= 2 * size or seconds == size:
            return _counted(round(seconds / size), unit)
    return "0 seconds"


def clock_time(unix_ms: int, *, now_ms: int) -> str:
    """Return when something will be, in UTC, such as `at 22:10 UTC`, with the day where that is not today."""
    then, now = (datetime.fromtimestamp(ms // 1000, UTC) for ms in (unix_ms, now_ms))
    if then.date() == now.date():
        return f"at {then:%H:%M} UTC"
    return f"on {then.day} {then:%B} at {then:%H:%M} UTC"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"

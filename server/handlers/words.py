"""How machines' facts are told to people."""

from __future__ import annotations

import re

# In this order: a browser's name stands beside those of the browsers it once imitated.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
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
_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))


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
    for unit, seconds in _UNITS:
        count = elapsed_ms // (1000 * seconds)
        if count > 0:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"

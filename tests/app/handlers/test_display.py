"""How times and browsers are shown to people."""

from __future__ import annotations

import pytest

from stormcellar.app.error_texts import TEXTS, Problem, describe
from stormcellar.app.handlers.display import agent_name, ago, clock_time, duration
from stormcellar.errors import SessionError

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("elapsed_ms", "words"),
    [
        (-5 * MINUTE, "just now"),
        (0, "just now"),
        (MINUTE - 1, "just now"),
        (MINUTE, "1 minute ago"),
        (59 * MINUTE + 59 * SECOND, "59 minutes ago"),
        (HOUR, "1 hour ago"),
        (23 * HOUR + 59 * MINUTE, "23 hours ago"),
        (DAY, "1 day ago"),
        (400 * DAY, "400 days ago"),
    ],
)
def test_a_time_is_told_in_its_largest_unit(elapsed_ms: int, words: str) -> None:
    """Rounded down; clocks that differ a little make nothing strange."""
    assert ago(elapsed_ms) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (1799, "30 minutes"),
        (1750, "29 minutes"),
        (3600, "1 hour"),
        (5400, "90 minutes"),
        (43_200, "12 hours"),
        (86_400, "1 day"),
        (129_600, "36 hours"),
        (30 * 86_400, "30 days"),
    ],
)
def test_a_length_of_time_is_told_in_a_unit_that_fits(seconds: int, words: str) -> None:
    """Rounded, and never so that an hour and a half becomes one or two."""
    assert duration(seconds) == words


NOON_MS = 1_900_065_600_000  # 2030-03-18, 12:00 UTC


@pytest.mark.parametrize(
    ("later_ms", "words"),
    [
        (0, "at 12:00 UTC"),
        (11 * HOUR + 59 * MINUTE, "at 23:59 UTC"),
        (12 * HOUR, "on 19 March at 00:00 UTC"),
        (365 * DAY, "on 18 March at 12:00 UTC"),
    ],
)
def test_a_time_to_come_has_its_day_unless_that_is_today(later_ms: int, words: str) -> None:
    """In UTC, since the server does not know where its reader is."""
    assert clock_time(NOON_MS + later_ms, now_ms=NOON_MS) == words


ENGINE = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox on Linux"),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {ENGINE} Chrome/126.0.0.0 Safari/537.36",
            "Chrome on Windows",
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0) {ENGINE} Chrome/126.0.0.0 Safari/537.36 Edg/126.0",
            "Edge on Windows",
        ),
        (
            f"Mozilla/5.0 (Linux; Android 14) {ENGINE} Chrome/126.0.0.0 Mobile Safari/537.36",
            "Chrome on Android",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Safari/604.1",
            "Safari on iPhone",
        ),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/17.5 Safari/605.1.15", "Safari on macOS"),
        (
            f"Mozilla/5.0 (Linux; Android 14) {ENGINE} SamsungBrowser/25.0 Chrome/121.0.0.0 Safari/537.36",
            "Samsung Internet on Android",
        ),
        (f"Mozilla/5.0 (Linux; Android 10; K) {ENGINE} Chrome/126.0 EdgA/126.0", "Edge on Android"),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {ENGINE} FxiOS/127.0 Safari/605.1",
            "Firefox on iPhone",
        ),
        (
            f"Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) {ENGINE} CriOS/126.0 Safari/604.1",
            "Chrome on iPad",
        ),
        ("Firefox/1.0", "Firefox"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("python-requests/2.32 (x)", "python-requests/2.32"),
        ("x" * 256, "x" * 40),
        ("", "Unknown client"),
        (" ", "Unknown client"),
    ],
)
def test_a_browser_is_told_by_its_name(agent: str, name: str) -> None:
    """The browser and the system for those that people know, else the product that the header begins with."""
    assert agent_name(agent) == name


def test_every_problem_is_told_in_sentences() -> None:
    """A title without a full stop, a message with one, and neither a phrase of HTTP."""
    for code, (title, message) in TEXTS.items():
        assert title[0].isupper() and not title.endswith("."), code
        assert message.endswith("."), code


def test_an_error_that_is_not_known_is_told_as_ours() -> None:
    """A kind of error that somebody else made, and a status without words, still get an answer."""
    assert describe(500, SessionError())[0] == "internal"
    assert describe(418, None)[0] == "internal"
    assert Problem(418).message == TEXTS["internal"].message

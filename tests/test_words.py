"""How times and browsers are told to people."""

from __future__ import annotations

import pytest

from server.errors import SessionError
from server.handlers.problems import WORDS, Problem, describe
from server.handlers.words import agent_name, ago

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
    for code, (title, message) in WORDS.items():
        assert title[0].isupper() and not title.endswith("."), code
        assert message.endswith("."), code


def test_an_error_that_is_not_known_is_told_as_ours() -> None:
    """A kind of error that somebody else made, and a status without words, still get an answer."""
    assert describe(500, SessionError())[0] == "internal"
    assert describe(418, None)[0] == "internal"
    assert Problem(418).message == WORDS["internal"].message

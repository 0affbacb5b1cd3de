"""What looks at a stranger's text takes time in proportion to it, however it is made."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from stormcellar.addresses import client_address, host_name
from stormcellar.app.handlers.bodies import is_plain_type
from stormcellar.app.handlers.display import agent_name
from stormcellar.app.handlers.negotiation import prefers_json, safe_next
from stormcellar.sessions.cookies import extract
from stormcellar.sessions.csrf import FormTokens
from stormcellar.sessions.data.json_values import NotJSON, parse

FACTOR = 8
KINDS: dict[str, tuple[Callable[[str], object], str, int]] = {
    "cookie pairs": (lambda text: extract([text], "id"), "id=; ", 4000),
    "cookie name": (lambda text: extract([text], "id"), " \t", 4000),
    "accept": (prefers_json, "a;q=0.1,", 4000),
    "accept parameters": (prefers_json, ";q=", 4000),
    "next": (safe_next, "/%2e%2e", 4000),
    "next encoded": (lambda text: safe_next("/" + text), "%25", 4000),
    "content type": (lambda text: is_plain_type(text, "application/json"), " \t;", 4000),
    "host": (host_name, "a.", 4000),
    "hops": (lambda text: client_address("127.0.0.1", [text], ()), "1.1.1.1,", 2000),
    "agent": (agent_name, "Mozilla ", 4000),
    "form token": (lambda text: FormTokens([b"k" * 32]).check(text, "basis"), "A-", 4000),
    "json depth": (lambda text: refused(text), "[", 4000),
    "json numbers": (lambda text: refused("1" + text), "0", 4000),
    "json strings": (lambda text: refused('"' + text), "\\u00", 4000),
}


def refused(text: str) -> None:
    """Parse *text*, which is not JSON or too much of it."""
    with pytest.raises(NotJSON):
        parse(text.encode())


def fastest(look: Callable[[str], object], text: str) -> float:
    """Return the seconds of the fastest of nine looks, which noise only makes slower."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        look(text)
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.parametrize("kind", KINDS)
def test_time_grows_with_the_text_alone(kind: str) -> None:  # H3, H12
    """Eight times the text takes less than thirty times as long: quadratic work would take 64 times."""
    look, piece, count = KINDS[kind]
    # What is refused for its length takes no time, of which no multiple can be told from noise.
    taken_s = max(fastest(look, piece * count), 10e-6)

    assert fastest(look, piece * count * FACTOR) < 30 * taken_s

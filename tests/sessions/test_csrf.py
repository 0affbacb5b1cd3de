"""Form tokens: for one browser, one purpose, any of the keys."""

from __future__ import annotations

import pytest

from stormcellar.sessions.cookies import mint_secret
from stormcellar.sessions.csrf import FormTokens
from stormcellar.sessions.signing import KeyRing

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_token_counts_for_its_browser_alone() -> None:  # F3
    """A token made for one secret is refused with any other."""
    tokens = FormTokens([NEW])
    basis = mint_secret()
    token = tokens.make(basis)

    assert tokens.check(token, basis)
    assert not tokens.check(token, mint_secret())
    assert not tokens.check(token, "")


def test_a_token_looks_different_each_time() -> None:  # F3
    """The mask leaves nothing that repeats from page to page, in either half."""
    tokens = FormTokens([NEW])
    first, second = tokens.make("basis"), tokens.make("basis")

    assert len(first) == 86
    assert first[:43] != second[:43]
    assert first[43:] != second[43:]


def test_every_flipped_character_is_refused() -> None:  # F3
    """There is no part of a token that does not matter."""
    tokens = FormTokens([NEW])
    token = tokens.make("basis")
    # The last of 86 characters has four bits that no byte uses, so it gets one from far off.
    forged = [
        token[:i] + ("A" if token[i] not in "ABCDEFGHIJKLMNOP" else "z") + token[i + 1 :] for i in range(86)
    ]

    assert not any(tokens.check(each, "basis") for each in forged)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "A" * 85,
        "A" * 87,
        "A" * 86,
        "é" * 86,
        "\x00" * 86,
        "A" * 100_000,
        "A" * 85 + "=",
        " " + "A" * 85,
    ],
    ids=lambda token: repr(token[:10]),
)
def test_junk_is_refused_without_an_error(token: str) -> None:
    """Whatever a browser sends as a token, the answer is no."""
    assert not FormTokens([NEW]).check(token, "basis")


def test_a_token_with_something_around_it_is_refused() -> None:
    """A token is its 86 characters exactly; base64's tolerance for other characters is not ours."""
    tokens = FormTokens([NEW])
    token = tokens.make("basis")

    assert not tokens.check(token + "\n", "basis")
    assert not tokens.check("!" + token, "basis")


def test_tokens_outlive_a_new_signing_key() -> None:  # L4
    """The first key makes tokens and every key checks them, so open forms survive a new first key."""
    before, after = FormTokens([OLD]), FormTokens([NEW, OLD])

    assert after.check(before.make("basis"), "basis")
    assert not before.check(after.make("basis"), "basis")
    assert not FormTokens([NEW]).check(before.make("basis"), "basis")


def test_the_key_for_tokens_is_not_the_key_for_cookies() -> None:
    """What signs cookies makes no token, and each purpose has its own key."""
    ring = KeyRing([OLD])
    (derived,) = ring.derive("form token")

    assert derived != OLD
    assert derived not in ring.derive("another purpose")
    assert not FormTokens([derived]).check(FormTokens([OLD]).make("basis"), "basis")

"""Our way to sign and verify says byte for byte what Tornado's does, of whatever is sent."""

from __future__ import annotations

import hmac
import itertools
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tornado.web import create_signed_value, decode_signed_value

from stormcellar.sessions.signing import KeyRing
from tests.support.cookie_samples import KEY, OTHER, key_version
from tests.support.fakes import START_S

RING = KeyRing([KEY, OTHER])
KEYS = {key_version(key): key for key in (KEY, OTHER)}
MAX_AGE_S = 129_600.1

names = st.sampled_from(["id", "__Host-id", "i", "id|x", ""])
times = st.sampled_from([START_S, START_S - MAX_AGE_S, START_S - MAX_AGE_S - 1, START_S + 9, 0.0, 1e12])


def mac(key: bytes, message: str) -> str:
    """Return the MAC that is right for *message*."""
    return hmac.digest(key, message.encode(), "sha256").hex()


def tornados(name: str, value: str) -> bytes | None:
    """Return what Tornado makes of a cookie's *value*, if it has the lengths of a session ID that we sign."""
    if not has_our_lengths(name, value):
        return None
    return decode_signed_value(
        KEYS, name, value, max_age_days=MAX_AGE_S / 86_400, clock=lambda: START_S, min_version=2
    )


def has_our_lengths(name: str, value: str) -> bool:
    """Whether *value* has 88 characters of base64, and every length as a plain number."""
    versions = "|".join(f"{len(version)}:{version}" for version in map(str, KEYS))
    rest = rf"\|([0-9]+):([0-9]+)\|{len(name)}:{re.escape(name)}\|88:.{{88}}\|.{{64}}"
    match = re.fullmatch(rf"2\|(?:{versions}){rest}", value, re.DOTALL)
    return match is not None and match[1] == str(len(match[2]))


def ours(name: str, value: str) -> bytes | None:
    """Return what we make of it."""
    verified = RING.verify(name, value)
    return verified[0] if verified is not None and verified[1] >= START_S - MAX_AGE_S else None


@given(st.text(max_size=300).filter(str.isprintable), names, times)
def test_what_we_sign_is_what_tornado_signs(text: str, name: str, at: float) -> None:  # A10
    """The same bytes, for any value, name and time."""
    expected = create_signed_value(
        KEYS, name, text, version=2, clock=lambda: at, key_version=key_version(KEY)
    )

    assert RING.sign(name, text, clock=lambda: at) == expected.decode()


# As long as a session ID, or not.
texts = st.one_of(st.text(max_size=80), st.text("ab-_.", min_size=64, max_size=68))


@given(
    texts,
    names,
    names,
    times,
    st.sampled_from([KEY, OTHER, b"n" * 32]),
    st.data(),
)
def test_what_is_mutated_is_judged_alike(
    text: str, name: str, asked: str, at: float, key: bytes, data: st.DataObject
) -> None:  # A11
    """Whole, or with a piece taken out, doubled, or put in at any place: accepted by both, or by neither."""
    version = key_version(key)
    value = create_signed_value(
        {version: key}, name, text.encode(errors="replace"), version=2, clock=lambda: at, key_version=version
    ).decode()
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, min(len(value), start + 6)))
    put = data.draw(
        st.sampled_from(["", value[start:end], "|", ":", "0", "2|", " ", "=", "\n", "é", "_", "+"])
    )
    mutated = value[:start] + put + value[end:]

    for each in (value, mutated):
        assert ours(asked, each) == tornados(asked, each)


numbers = st.sampled_from(["0", "00", "1", "2", "+2", " 2", "2 ", "1_0", "-1", "99999", "", "x", "٢", "\x00"])


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), numbers, st.just("88")),
            st.one_of(st.text("aQ=|:2 ", max_size=6), st.text("aQ=|*", min_size=86, max_size=90)),
        ),
        min_size=4,
        max_size=4,
    ),
    st.sampled_from(["2|", "2", "02|", "3|", "1|", ""]),
    st.sampled_from([KEY, OTHER]),
    st.booleans(),
)
@example([(None, "9"), (None, "0"), (None, "id"), (None, "QQ")], "2|", KEY, True)
def test_strange_values_with_a_right_mac_are_judged_alike(
    fields: list[tuple[str | None, str]], begin: str, key: bytes, is_known: bool
) -> None:  # A11
    """Lengths that lie, odd numbers, broken base64, signed with a key of ours."""
    if is_known:
        fields[0] = (None, str(key_version(key)))
        fields[1] = (fields[1][0], str(int(START_S)))
        fields[2] = (fields[2][0], "id")
    written = begin + "".join(f"{len(text) if length is None else length}:{text}|" for length, text in fields)
    value = written + mac(key, written)

    assert ours("id", value) == tornados("id", value)


def test_both_accept_what_is_right() -> None:
    """The comparison is not of refusals alone."""
    value = RING.sign("id", "x" * 66, clock=lambda: START_S)

    assert ours("id", value) == tornados("id", value) == b"x" * 66


def test_other_lengths_are_refused() -> None:
    """A value that Tornado accepts is refused if it cannot be a session ID."""
    value = RING.sign("id", "a value", clock=lambda: START_S)

    assert decode_signed_value(KEYS, "id", value, clock=lambda: START_S) == b"a value"
    assert RING.verify("id", value) is None


ID = "QUJD" * 22
VERSION = str(key_version(KEY))
HEADS = [f"{len(VERSION)}:{VERSION}|", f"0{len(VERSION)}:{VERSION}|", f"{len(VERSION) + 1}:0{VERSION}|"]
TIMES = [
    "10:1900000000|",
    "11:1900000000|",
    "9:1900000000|",
    "10:+190000000|",
    "10: 190000000|",
    "10:1_00000000|",
]
TIMES += [
    "10:190000000x|",
    "01:1900000000|",
    "100:1900000000|",
    "99:1900000000|",
    "10:1900000000:",
    "11:01900000000|",
]
NAMES = ["2:id|", "2:ix|", "2:ID|", "3:idx|", "02:id|", "2:id:", "1:i|", "1:id|"]
VALUES = [
    f"88:{ID}|",
    f"88:{ID}x",
    f"88:{ID[:-1]}||",
    f"88:{ID[:-1]}=|",
    f"88:*{ID[1:]}|",
    f"88:{ID[:-4]}|",
    f"{ID}|",
]
VALUES += [f"88:{ID}|f|", f"89:{ID}|f|", f"087:{ID}|", f"84:{ID[:-4]}|"]


def test_near_misses_with_a_right_mac_are_judged_alike() -> None:  # A11
    """Every combination of parts that are right, or almost."""
    accepted = 0
    for parts in itertools.product(HEADS, TIMES, NAMES, VALUES):
        written = "2|" + "".join(parts)
        value = written + mac(KEY, written)
        assert ours("id", value) == tornados("id", value), value
        accepted += ours("id", value) is not None

    assert accepted == 4

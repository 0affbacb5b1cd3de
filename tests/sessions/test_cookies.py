"""The session ID, and its cookie as it is read: exactly one, exactly ours."""

from __future__ import annotations

import base64
from collections.abc import Callable
from hashlib import sha256

import pytest

from stormcellar.sessions.cookies import SessionId, extract
from tests.support.cookie_samples import KEY, MAX_AGE_S, OTHER, cookies, signed, written
from tests.support.fakes import Clock

# --- the session ID ---


def test_session_ids_are_random_and_of_one_shape() -> None:  # A1
    """A handle is 16 and a secret 32 random bytes, in base64url, and none comes twice."""
    made = [SessionId.mint() for _ in range(1000)]

    assert {len(base64.urlsafe_b64decode(sid.handle + "==")) for sid in made} == {16}
    assert {len(base64.urlsafe_b64decode(sid.secret + "=")) for sid in made} == {32}
    assert len({sid.handle for sid in made} | {sid.secret for sid in made}) == 2000


def test_the_store_is_shown_a_hash_of_the_secret() -> None:  # G1
    """The verifier is SHA-256 of the secret, in 43 characters of base64url."""
    sid = SessionId.mint()

    assert sid.credential.handle == sid.handle
    assert base64.urlsafe_b64decode(sid.credential.verifier + "=") == sha256(sid.secret.encode()).digest()


def test_a_rotated_id_keeps_its_handle_alone() -> None:  # C1
    """Rotation changes the secret and nothing else."""
    sid = SessionId.mint()
    new = sid.rotated()

    assert new.handle == sid.handle
    assert new.secret != sid.secret


def test_a_session_id_does_not_print_its_secret() -> None:  # I2
    """Neither repr, nor str, nor a format string shows what authorises."""
    sid = SessionId.mint()

    assert not any(sid.secret in shown for shown in (repr(sid), str(sid), f"{sid}", f"{[sid]}"))


# --- reading ---


def test_a_cookie_seen_before_is_read_as_at_first() -> None:
    """Again and again the same, and still refused once it is too old."""  # A12
    clock = Clock()
    reads = cookies(clock=clock)
    sid = SessionId.mint()
    header = f"id={written(reads, sid)}"

    first = [reads.read([header]) for _ in range(3)]
    clock.advance(MAX_AGE_S)
    at_the_limit = reads.read([header])
    clock.advance(1)

    assert first == [sid] * 3
    assert (at_the_limit, reads.read([header])) == (sid, None)


def test_a_cookie_seen_before_needs_every_byte() -> None:  # A11
    """That the genuine one was accepted helps no other."""
    reads = cookies()
    value = written(reads, SessionId.mint())
    reads.read([f"id={value}"])
    others = [value[:n] + ("A" if value[n] != "A" else "B") + value[n + 1 :] for n in range(len(value))]

    assert [other for other in others if reads.read([f"id={other}"])] == []


def test_cookies_seen_before_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:  # H7
    """The longest unseen are forgotten, and read all the same; what is forged is never kept."""
    monkeypatch.setattr("stormcellar.sessions.cookies._MAX_CACHED", 3)
    reads = cookies()
    sids = [SessionId.mint() for _ in range(20)]
    headers = [f"id={written(reads, sid)}" for sid in sids]

    for _ in range(3):
        assert [reads.read([header]) for header in headers] == sids
        assert not any(reads.read([header[:-1] + "!"]) for header in headers)
        assert len(reads._verified) + len(reads._verified_before) <= 6


def test_what_was_written_is_read_back() -> None:
    """The cookie carries the session ID, whatever other cookies stand around it."""
    sid = SessionId.mint()
    value = written(cookies(), sid)

    assert cookies().read([f"a=b; id={value}; id2=x"]) == sid
    assert cookies().read([f"a=b;\tid={value} "]) == sid
    assert cookies().read(["a=b", f"id={value}"]) == sid


def test_the_cookie_says_nothing() -> None:  # A10
    """What is signed is the handle and the secret, and no more."""
    sid = SessionId.mint()
    value = written(cookies(), sid)
    payload = value.split("|")[4].partition(":")[2]

    assert base64.b64decode(payload).decode() == f"{sid.handle}.{sid.secret}"


def test_every_tampered_byte_makes_it_none() -> None:  # A11
    """There is no byte of the cookie that can be changed, dropped or added."""
    value = written(cookies(), SessionId.mint())
    flipped = [value[:i] + chr(ord(value[i]) ^ 1) + value[i + 1 :] for i in range(len(value))]
    shortened = [value[:i] + value[i + 1 :] for i in range(len(value))]
    lengthened = [value[:i] + "0" + value[i:] for i in range(len(value) + 1)]

    assert cookies().read([f"id={value}"]) is not None
    found = [each for each in flipped + shortened + lengthened if cookies().read([f"id={each}"]) is not None]
    assert found == []


HEADERS: list[tuple[str, Callable[[str], list[str]]]] = [
    ("two in one header", lambda v: [f"id={v}; id={v}"]),
    ("two headers", lambda v: [f"id={v}", f"id={v}"]),
    ("an empty one before", lambda v: [f"id=; id={v}"]),
    ("an empty one after", lambda v: [f"id={v}; id="]),
    ("a planted one before", lambda v: [f"id=planted; id={v}"]),
    ("headers joined with a comma", lambda v: [f"id={v}, id={v}"]),
    ("after a comma", lambda v: [f"a=b, id={v}"]),
    ("quoted", lambda v: [f'id="{v}"']),
    ("a space in front of the value", lambda v: [f"id= {v}"]),
    ("a space after the name", lambda v: [f"id ={v}"]),
    ("another case", lambda v: [f"ID={v}"]),
    ("NBSP in front of the name", lambda v: [f"\xa0id={v}"]),
    ("NEL in front of the name", lambda v: [f"\x85id={v}"]),
    ("NBSP after the name", lambda v: [f"id\xa0={v}"]),
    ("NBSP after the value", lambda v: [f"id={v}\xa0"]),
    ("a vertical tab in front of the name", lambda v: [f"\x0bid={v}"]),
    ("a longer name", lambda v: [f"xid={v}"]),
    ("a secure name", lambda v: [f"__Host-id={v}"]),
    ("no name", lambda v: [v]),
    ("no value", lambda _: ["id"]),
    ("an empty value", lambda _: ["id="]),
    ("quotes alone", lambda _: ['id=""']),
    ("white space", lambda _: ["id= \t "]),
    ("no cookie", lambda _: []),
    ("an empty header", lambda _: [""]),
]


@pytest.mark.parametrize(("what", "headers"), HEADERS, ids=[what for what, _ in HEADERS])
def test_what_is_not_exactly_our_cookie_is_none(what: str, headers: Callable[[str], list[str]]) -> None:
    """Duplicates, look-alikes and empty values mean no session; none of them picks one."""  # A3, A7
    value = written(cookies(), SessionId.mint())

    assert cookies().read(headers(value)) is None, what


def test_a_planted_look_alike_does_not_replace_the_cookie() -> None:  # A7
    """A cookie whose name another parser would clean up until it is ours counts for nothing."""
    ours, planted = SessionId.mint(), SessionId.mint()
    jar = cookies(secure=True)
    look_alike = f"\xa0__Host-id={written(jar, planted)}; \x85__Host-id={written(jar, planted)}"

    assert jar.read([f"__Host-id={written(jar, ours)}; {look_alike}"]) == ours
    assert jar.read([f"{look_alike}; __Host-id={written(jar, ours)}"]) == ours
    assert jar.read([look_alike]) is None


def test_secure_and_plain_names_are_never_both_read() -> None:  # A4, A7
    """A cookie set over plain HTTP means nothing to a server behind TLS, and the other way round."""
    sid = SessionId.mint()

    assert cookies(secure=True).read([f"id={written(cookies(), sid)}"]) is None
    assert cookies().read([f"__Host-id={written(cookies(secure=True), sid)}"]) is None


@pytest.mark.parametrize("keys", [(KEY,), (KEY, OTHER)], ids=["one key", "two keys"])
@pytest.mark.parametrize(
    "value",
    [
        "x",
        "hello",
        "1|2|3",
        "2|",
        "2|1:0|",
        "2|99999999999999999999:0|10:1900000000|2:id|4:aaaa|" + "0" * 64,
        "2|1:" + "9" * 400,
        "2|400:" + "9" * 400 + "|10:1900000000|2:id|4:aaaa|",
        "2|-1:0|-1:1|-1:id|-1:x|",
        "2|1:٣|10:1900000000|2:id|4:aaaa|" + "0" * 64,
        "3|1:0|10:1900000000|2:id|4:aaaa|" + "0" * 64,
        "9" * 512,
        "2|1:0|" * 100_000,
        "\x00" * 40,
        "\xff" * 40,
        "\ud800",
        "%00",
        "$ne",
        "../../etc/passwd",
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, str) else None,
)
def test_junk_is_none_under_any_number_of_keys(value: str, keys: tuple[bytes, ...]) -> None:  # A2, A3, A11
    """No value of the cookie is an error: what is not ours is no session."""
    assert cookies(*keys).read([f"id={value}"]) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "h" * 22,
        "h" * 22 + "." + "s" * 42,
        "h" * 22 + "." + "s" * 44,
        "h" * 21 + "." + "s" * 43,
        "h" * 22 + "." + "s" * 42 + "\n",
        "h" * 22 + "." + "s" * 43 + "\n",
        "h" * 21 + "é." + "s" * 43,
        "h" * 21 + "*." + "s" * 43,
        "h" * 22 + ":" + "s" * 43,
    ],
    ids=repr,
)
def test_signed_junk_is_none(value: str) -> None:  # A3, G2
    """Even what our key has signed must have the shape of a session ID."""
    assert cookies().read([f"id={signed(value)}"]) is None


def test_signatures_of_other_kinds_are_none() -> None:  # A11
    """A value that Tornado's version 1 signed, for another cookie, or with another key, is not ours."""
    sid = SessionId.mint()
    value = f"{sid.handle}.{sid.secret}"

    assert cookies().read([f"id={signed(value)}"]) == sid
    assert cookies().read([f"id={signed(value, version=1)}"]) is None
    assert cookies().read([f"id={signed(value, name='id-form')}"]) is None
    assert cookies(OTHER).read([f"id={signed(value)}"]) is None


def test_a_signature_outlives_the_session_by_a_day() -> None:  # A12
    """A signature counts for the absolute limit and one day, so that the store always decides before it."""
    value = "h" * 22 + "." + "s" * 43

    assert cookies().read([f"id={signed(value, age_s=MAX_AGE_S)}"]) is not None
    assert cookies().read([f"id={signed(value, age_s=MAX_AGE_S + 1)}"]) is None


def test_a_signature_from_the_future_counts() -> None:  # B6
    """A process whose clock is behind must not sign anybody out; the store decides."""
    value = "h" * 22 + "." + "s" * 43

    assert cookies().read([f"id={signed(value, age_s=-3600)}"]) is not None


def test_extract_takes_values_as_they_are() -> None:
    """Only spaces and tabs around a pair are not part of it; a value may hold `=`."""
    assert extract([" \tid=a=b \t"], "id") == "a=b"
    assert extract(["id=a;id2=b"], "id2") == "b"

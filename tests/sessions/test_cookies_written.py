"""The cookies as they are written, byte for byte, and the keys that sign them."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import pytest

from stormcellar.sessions.cookies import SessionId, form_basis, mint_device_token, mint_secret
from stormcellar.sessions.signing import KeyRing
from tests.support.cookie_samples import KEY, OTHER, Response, cookies, key_version, written


def test_set_cookie_byte_for_byte() -> None:  # A4, A12
    """The cookie lasts until the browser closes; neither scripts nor other sites' forms get at it."""
    sid, response = SessionId.mint(), Response()
    cookies().write(response, sid)
    cookies(secure=True).write(response, sid)
    plain, secure = (line.partition("; ") for line in response)

    assert plain[0].startswith("id=2|")
    assert plain[2] == "HttpOnly; Path=/; SameSite=Lax"
    assert secure[0].startswith("__Host-id=2|")
    assert secure[2] == "HttpOnly; Path=/; SameSite=Lax; Secure"


def test_a_cookie_that_lasts_says_for_how_long() -> None:  # A12
    """Max-Age in whole seconds, beside the attributes that every cookie of ours has."""
    response = Response()
    cookies(secure=True).write(response, SessionId.mint(), max_age_s=2_592_000)

    assert response[0].partition("; ")[2] == ("Max-Age=2592000; HttpOnly; Path=/; SameSite=Lax; Secure")


def test_a_renewed_id_keeps_its_handle_and_the_part_that_forms_are_bound_to() -> None:  # A1, C13
    """160 bits of the secret are new; a rotated ID shares none of it."""
    sid = SessionId.mint()
    renewed, rotated = sid.renewed(), sid.rotated()

    assert (renewed.handle, form_basis(renewed.secret)) == (sid.handle, form_basis(sid.secret))
    assert renewed.secret[16:] != sid.secret[16:]
    assert len(renewed.secret) == 43
    assert form_basis(rotated.secret) != form_basis(sid.secret)


def test_deletion_byte_for_byte() -> None:  # A4, A6
    """A deletion repeats name, path and attributes, or browsers ignore it."""
    response = Response()
    for each in (cookies(), cookies(secure=True)):
        each.clear(response)
        each.clear_nonce(response)
    gone = "expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Path=/; SameSite=Lax"

    assert response == [
        f"id=; {gone}",
        f"id-form=; {gone}",
        f"__Host-id=; {gone}; Secure",
        f"__Host-id-form=; {gone}; Secure",
    ]


def test_nonce_byte_for_byte() -> None:  # A4
    """The nonce of a form has the attributes of the session's cookie, and comes back as it was given."""
    nonce, response = mint_secret(), Response()
    cookies().write_nonce(response, nonce)
    cookies(secure=True).write_nonce(response, nonce)

    assert response == [
        f"id-form={nonce}; HttpOnly; Path=/; SameSite=Lax",
        f"__Host-id-form={nonce}; HttpOnly; Path=/; SameSite=Lax; Secure",
    ]
    assert cookies().read_nonce([f"id-form={nonce}"]) == nonce


@pytest.mark.parametrize(
    "value", ["", "x", "n" * 42, "n" * 44, "n" * 42 + "é", "n" * 43 + "; id-form=" + "n" * 43]
)
def test_a_malformed_nonce_is_none(value: str) -> None:  # A7
    """A nonce has one shape and comes once."""
    assert cookies().read_nonce([f"id-form={value}"]) is None


def test_a_device_token_byte_for_byte() -> None:  # A1, A4, A10
    """It is random, has the attributes of the session cookie, lasts, and comes back as it was given."""
    tokens, response = {mint_device_token() for _ in range(1000)}, Response()
    token = tokens.pop()
    cookies().write_device(response, token, max_age_s=7)
    cookies(secure=True).write_device(response, token, max_age_s=7)

    assert response == [
        f"id-device={token}; Max-Age=7; HttpOnly; Path=/; SameSite=Lax",
        f"__Host-id-device={token}; Max-Age=7; HttpOnly; Path=/; SameSite=Lax; Secure",
    ]
    assert cookies().read_device([f"id=x; id-device={token}"]) == token
    assert (len(tokens), {len(each) for each in tokens}) == (999, {22})


@pytest.mark.parametrize(
    "value",
    ["", "x", "d" * 21, "d" * 23, "d" * 21 + "é", '"' + "d" * 20 + '"', "d" * 22 + "; id-device=" + "d" * 22],
)
def test_a_malformed_device_token_is_none(value: str) -> None:  # A7
    """A token has one shape and comes once; nor is the cookie of another name read."""
    assert cookies().read_device([f"id-device={value}"]) is None
    assert cookies(secure=True).read_device(["id-device=" + "d" * 22]) is None


def test_the_cookie_is_small_and_needs_no_quotes() -> None:  # A13
    """Name and value take about 190 bytes of the 4096 that browsers keep, all of them plain characters."""
    jar = cookies(secure=True)
    pair = f"{jar.name}={written(jar, SessionId.mint())}"

    assert 180 <= len(pair) <= 205
    assert not set(pair) & set(' ",;\\') and pair.isascii()


def test_the_longest_name_still_works() -> None:  # A13
    """A name of 64 characters is written and read back."""
    jar = cookies(name="n" * 64, secure=True)
    sid = SessionId.mint()

    assert jar.read([f"{jar.name}={written(jar, sid)}"]) == sid


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a=b",
        "a;b",
        "é",
        "n" * 65,
        "id-form",
        "-form",
        "__Host-id",
        "__host-id",
        "__Secure-id",
        "__HTTP-x",
        "a\n",
    ],
)
def test_a_cookie_name_that_will_not_do_is_refused(name: str) -> None:  # A14
    """A name must be a token of HTTP, without a prefix that browsers give a meaning."""
    with pytest.raises(ValueError, match="cookie name"):
        cookies(name=name)


# --- keys ---


def test_the_first_key_signs_and_all_verify() -> None:  # L4
    """A new key in front leaves signed cookies valid; without their key they are none."""
    sid = SessionId.mint()
    old = written(cookies(KEY), sid)
    new = written(cookies(OTHER, KEY), sid)

    assert cookies(OTHER, KEY).read([f"id={old}"]) == sid
    assert cookies(OTHER).read([f"id={old}"]) is None
    assert cookies(KEY).read([f"id={new}"]) is None
    assert cookies(KEY, OTHER).read([f"id={new}"]) == sid


def test_a_keys_version_depends_on_the_key_alone() -> None:
    """Whatever other keys there are, and in which order, a key's version stays."""
    assert KeyRing([KEY]).first == key_version(KEY)
    assert KeyRing([KEY, OTHER]).first == key_version(KEY)
    assert KeyRing([OTHER, KEY]).first == key_version(OTHER)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([], id="none"),
        pytest.param("k" * 32, id="text for a list"),
        pytest.param(b"k" * 32, id="bytes for a list"),
        pytest.param([KEY, b"k" * 31], id="31 bytes"),
        pytest.param(["k" * 31], id="31 characters"),
        pytest.param([""], id="empty"),
    ],
)
def test_missing_and_short_keys_are_refused(keys: Sequence[bytes | str]) -> None:  # L1, L2
    """There is no default key and no short one, and one key instead of a list is a slip."""
    with pytest.raises(ValueError):
        KeyRing(keys)


def test_the_length_of_a_key_is_in_bytes() -> None:
    """A key given as text counts in UTF-8: 16 characters of two bytes are enough."""
    assert repr(KeyRing(["é" * 16])) == "<KeyRing of 1>"


def test_keys_with_one_version_are_refused() -> None:
    """Two keys that their version cannot tell apart are refused, the same key twice among them."""
    number = next(i for i in range(2**24) if i and key_version(b"%032d" % i) == key_version(b"%032d" % 0))
    zero, twin = b"%032d" % 0, b"%032d" % number

    for first, second in ((zero, twin), (KEY, KEY), (KEY, KEY.decode())):
        with pytest.raises(ValueError, match="same version"):
            KeyRing([first, second])


def test_each_purpose_has_a_key_of_its_own() -> None:  # L5
    """A derived key is an HMAC over its purpose, one for each signing key, in their order."""
    assert KeyRing([KEY, OTHER]).derive("x") == [
        hmac.digest(KEY, b"stormcellar x", "sha256"),
        hmac.digest(OTHER, b"stormcellar x", "sha256"),
    ]

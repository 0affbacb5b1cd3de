"""Passwords: which there are, which new ones will do, how they are hashed, and how many at once."""

from __future__ import annotations

import asyncio
import configparser
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import argon2
import pytest

from stormcellar.accounts import passwords
from stormcellar.accounts.passwords import ARGON2, PasswordChecker, hash_password, normalise, require_good
from stormcellar.errors import Busy, PasswordRefused

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class GatedHasher(argon2.PasswordHasher):
    """Verifies only once the gate is open, and counts."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.gate = threading.Event()
        self.begun = 0
        self.threads: set[int] = set()

    def verify(self, *args: Any, **kwargs: Any) -> Any:
        """Count, wait for the gate, then verify."""
        self.begun += 1
        self.threads.add(threading.get_ident())
        assert self.gate.wait(30)
        return super().verify(*args, **kwargs)


class RecordingHasher(argon2.PasswordHasher):
    """Keeps what it was told to verify."""

    seen = ""

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
        """Keep *hash*, then verify."""
        self.seen = str(hash)
        return bool(super().verify(hash, password))


async def until(condition: Any) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "password",
    ["x", " ", "  spaces kept  ", "x" * 1024, "ü" * 512, "\N{PILE OF POO}" * 256, "a\0b", "tab\there"],
)
def test_password_of_1_to_1024_bytes_is_taken_whole(password: str) -> None:  # E5
    """Any text fits, up to 1024 bytes of UTF-8; not a byte of it is ignored."""
    hashed = hash_password(password, CHEAP)

    assert CHEAP.verify(hashed, password)
    for other in (password[:-1], password + " ", password[:-1] + "!"):
        with pytest.raises(argon2.exceptions.VerifyMismatchError):
            CHEAP.verify(hashed, other)


@pytest.mark.parametrize("password", ["", "x" * 1025, "ü" * 513, "x" * 10_000_000, "\ud800", "a\udfffb"])
def test_password_outside_is_refused(password: str) -> None:  # E5
    """Empty, over 1024 bytes and lone surrogates are refused, without repeating what was given."""
    with pytest.raises(ValueError) as caught:
        hash_password(password, CHEAP)

    assert str(caught.value) == "a password must have 1 to 1024 bytes of UTF-8"


def test_length_is_judged_before_normalising() -> None:  # E5
    """What NFKC would make short, or long, counts as it was typed."""
    shrinks, grows = "\N{FULLWIDTH LATIN SMALL LETTER A}" * 400, "\ufdfa" * 300

    assert normalise(shrinks) is None
    assert len((normalise(grows) or "").encode()) > 1024


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}bc", "Abc"),
        ("\N{LATIN SMALL LIGATURE FI}sh", "fish"),
        ("\N{KELVIN SIGN}", "K"),
        ("a\N{NO-BREAK SPACE}b", "a b"),
    ],
)
@pytest.mark.gen_test
async def test_one_password_typed_two_ways(one: str, other: str) -> None:  # E5
    """Keyboards that compose differently give the same password, in both directions."""
    checker = PasswordChecker(argon2_hasher=CHEAP)

    assert await checker.verify(await checker.hash(one), other)
    assert await checker.verify(await checker.hash(other), one)


@pytest.mark.gen_test
async def test_case_and_spaces_count() -> None:  # E5
    """NFKC changes neither case nor the number of spaces."""
    checker = PasswordChecker(argon2_hasher=CHEAP)
    hashed = await checker.hash(" Pass  word ")

    wrong = ["Pass  word", " pass  word ", " Pass word ", "Pass  word ", " Pass  word"]
    assert [await checker.verify(hashed, each) for each in wrong] == [False] * 5
    assert await checker.verify(hashed, " Pass  word ")


def test_parameters_are_those_of_owasp() -> None:  # E4
    """Hashes are argon2id with 19 MiB, two passes, one lane, each with its own salt."""
    one, other = hash_password("same"), hash_password("same")

    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one != other
    assert not PasswordChecker(argon2_hasher=CHEAP).is_outdated(hash_password("x", CHEAP))
    assert PasswordChecker().is_outdated(hash_password("x", CHEAP))
    assert not ARGON2.check_needs_rehash(one)


# --- new ones ---


@pytest.mark.parametrize(
    "password",
    [
        *("mountain goat", "xkqzvbnw", "x" * 63 + "y" * 961, "ü" * 512, "\N{PILE OF POO}" * 8),
        *("        ", "alice7alice", "stormcellars", "tr0ub4dor&3", "tab\there and there"),
    ],
)
def test_any_composition_will_do(password: str) -> None:  # E5 E17
    """From 8 characters to 1024 bytes, no kind of character is asked for or forbidden."""
    assert require_good(password, user="alice") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("password", "says"),
    [
        *((each, "at least 8 characters") for each in ("", "x", "seven77", "ü" * 7, "cafe\u0301 55")),
        # Eight and eighteen once NFKC has written them out, but seven and one as typed.
        *((each, "at least 8 characters") for each in ("\ufb01sh1234", "\ufdfa")),
        *((each, "at most 1024 bytes") for each in ("x" * 1025, "ü" * 513, "x" * 10_000_000, "\ud800" * 9)),
        *((each, "too common") for each in ("password", "1qaz2wsx", "#1stunna", "bigdaddy1")),
        *((each, "too common") for each in ("PassWord1", "\uff50assword", "STORMCELLAR", "StormCellar")),
        *((each, "account name") for each in ("alice.smith", "Alice.Smith", "\uff21lice.smith")),
    ],
)
def test_guessable_password_is_refused(password: str, says: str) -> None:  # E5 E17
    """Short, long, common, the account name, in any case or width: a sentence says what to do."""
    with pytest.raises(PasswordRefused) as caught:
        require_good(password, user="alice.smith")

    message = str(caught.value)
    assert says in message
    assert re.search(r"(^|\. )Use ", message) and message.endswith(".") and "\n" not in message
    assert not password or password not in message


def test_list_of_common_passwords() -> None:  # E17
    """The 3000 most common ones and more are refused; the licence in the file is no part of the list."""
    text = Path(passwords.__file__).with_name("common-passwords.txt").read_text()
    licence, _, words = text.partition("\n\n")

    assert all(line.startswith("#") for line in licence.splitlines())
    assert "Redistribution" in licence
    assert len(set(words.splitlines())) == len(words.splitlines()) > 3000
    for word in words.splitlines():
        with pytest.raises(PasswordRefused, match="too common"):
            require_good(word.upper(), user="alice")
    assert require_good("Redistribution", user="alice") is None  # type: ignore[func-returns-value]


def test_list_is_part_of_an_installation() -> None:
    """Without the file in the package no password could be set."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")

    assert "common-passwords.txt" in setup["options.package_data"]["stormcellar.accounts"]


# --- verifying ---


@pytest.mark.parametrize("password", ["", "x" * 1025, "\ud800"])
@pytest.mark.gen_test
async def test_impossible_password_is_wrong_without_hashing(password: str) -> None:  # E5
    """A megabyte in the password field costs no hash, and is only wrong, not an error."""
    hasher = GatedHasher()
    hasher.gate.set()
    checker = PasswordChecker(argon2_hasher=hasher)

    assert not await checker.verify(hash_password("right", CHEAP), password)
    assert not await checker.verify(None, password)
    assert hasher.begun == 0


@pytest.mark.parametrize(
    "stored", ["", "x", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=8"]
)
@pytest.mark.gen_test
async def test_broken_hash_matches_nothing(stored: str) -> None:
    """A hash that is none is wrong for every password, an empty one too."""
    checker = PasswordChecker(argon2_hasher=CHEAP)

    assert not await checker.verify(stored, "x")
    assert not await checker.verify(stored, "no password has this hash")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "hasher", [RecordingHasher(time_cost=1, memory_cost=8, parallelism=1), RecordingHasher()]
)
async def test_nobody_is_verified_like_somebody(hasher: RecordingHasher) -> None:  # E2
    """For an unknown user argon2 does the whole work, with the same parameters, and says no."""
    checker = PasswordChecker(argon2_hasher=hasher)

    assert not await checker.verify(None, "x")
    assert argon2.extract_parameters(hasher.seen) == argon2.extract_parameters(hasher.hash("x"))
    with pytest.raises(argon2.exceptions.VerifyMismatchError):
        hasher.verify(hasher.seen, "x")
    checker.close()


@pytest.mark.gen_test
async def test_hashing_leaves_the_loop_free() -> None:  # E3
    """While a password is verified the event loop answers others; no hash runs on its thread."""
    hasher = GatedHasher()
    checker = PasswordChecker(argon2_hasher=hasher)
    task = asyncio.create_task(checker.verify(hash_password("x", CHEAP), "x"))
    await until(lambda: hasher.begun == 1)

    hasher.gate.set()

    assert await task
    assert threading.get_ident() not in hasher.threads


@pytest.mark.skipif(sys.platform != "linux", reason="others have no priority for a single thread")
@pytest.mark.gen_test
async def test_hashing_steps_back_for_the_loop() -> None:  # E3
    """The threads that hash have a lower priority than the event loop, whose own does not change."""
    found: list[int] = []
    before = os.getpriority(os.PRIO_PROCESS, 0)

    class Noting(argon2.PasswordHasher):
        def verify(self, *args: Any, **kwargs: Any) -> Any:
            found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().verify(*args, **kwargs)

    await PasswordChecker(argon2_hasher=Noting(time_cost=1, memory_cost=8, parallelism=1)).verify(None, "x")

    assert found == [min(before + 10, 19)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@pytest.mark.gen_test
async def test_hashing_goes_on_where_priorities_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that refuses the lower priority costs nobody their sign-in."""

    def refuse(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "nice", refuse)
    checker = PasswordChecker(argon2_hasher=CHEAP)

    assert await checker.verify(await checker.hash("x"), "x")


@pytest.mark.gen_test
async def test_full_queue_is_busy_before_hashing() -> None:  # E3
    """Two at work and three waiting fill it; the next is told at once, and room comes back."""
    hasher = GatedHasher()
    checker = PasswordChecker(workers=2, queue=3, argon2_hasher=hasher)
    stored = hash_password("x", CHEAP)
    tasks = [asyncio.create_task(checker.verify(stored, "x")) for _ in range(5)]
    await until(lambda: hasher.begun == 2)

    for attempt in (checker.verify(stored, "x"), checker.verify(None, "x"), checker.hash("x")):
        with pytest.raises(Busy):
            await attempt

    assert hasher.begun == 2
    hasher.gate.set()
    assert await asyncio.gather(*tasks) == [True] * 5
    assert await checker.verify(stored, "x")
    assert hasher.begun == 6


@pytest.mark.gen_test
async def test_at_most_so_many_hashes_at_once() -> None:  # E3
    """However many wait, no more than the workers hold memory for a hash."""
    hasher = GatedHasher()
    checker = PasswordChecker(workers=2, queue=50, argon2_hasher=hasher)
    tasks = [asyncio.create_task(checker.verify(None, "x")) for _ in range(50)]
    await until(lambda: hasher.begun == 2)
    await asyncio.sleep(0)

    assert hasher.begun == 2
    hasher.gate.set()
    await asyncio.gather(*tasks)
    assert len(hasher.threads) == 2


@pytest.mark.gen_test
async def test_cancelled_caller_is_counted_until_its_thread_is_done() -> None:  # E3
    """Hanging up does not make room for a hash that would run besides the abandoned one."""
    hasher = GatedHasher()
    checker = PasswordChecker(workers=1, queue=0, argon2_hasher=hasher)
    task = asyncio.create_task(checker.verify(None, "x"))
    await until(lambda: hasher.begun == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    with pytest.raises(Busy):
        await checker.verify(None, "x")

    hasher.gate.set()
    await until(lambda: checker._queue._free == 1)
    assert not await checker.verify(None, "x")


@pytest.mark.gen_test
async def test_closed_checker_counts_nobody() -> None:
    """After `close` nothing begins, and a refused call takes up no room."""
    checker = PasswordChecker(argon2_hasher=CHEAP)
    checker.close()

    with pytest.raises(RuntimeError):
        await checker.verify(None, "x")

    assert checker._queue._free == 2

"""Passwords: which there are, how they are hashed, and how many at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import argon2
import pytest

from server.errors import Busy
from server.passwords import ARGON2, PasswordChecker, hash_password, normalise

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

    assert str(caught.value) == "a password has 1 to 1024 bytes of UTF-8"


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
async def test_hashing_leaves_the_loop_free() -> None:  # E3
    """While a password is verified the event loop answers others; no hash runs on its thread."""
    hasher = GatedHasher()
    checker = PasswordChecker(argon2_hasher=hasher)
    task = asyncio.create_task(checker.verify(hash_password("x", CHEAP), "x"))
    await until(lambda: hasher.begun == 1)

    hasher.gate.set()

    assert await task
    assert threading.get_ident() not in hasher.threads


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
    await until(lambda: checker._running == 0)
    assert not await checker.verify(None, "x")


@pytest.mark.gen_test
async def test_closed_checker_counts_nobody() -> None:
    """After `close` nothing begins, and a refused call takes up no room."""
    checker = PasswordChecker(argon2_hasher=CHEAP)
    checker.close()

    with pytest.raises(RuntimeError):
        await checker.verify(None, "x")

    assert checker._running == 0

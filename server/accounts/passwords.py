"""Passwords: rules for new ones, and argon2id hashing that does not block the event loop."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import TypeVar

import argon2
from argon2.low_level import ARGON2_VERSION

from stormcellar.accounts.account_names import folded
from stormcellar.accounts.hashing_queue import HashingQueue
from stormcellar.accounts.password_hashes import HashForm, form_of
from stormcellar.errors import PasswordRefused

T = TypeVar("T")

MIN_NEW_PASSWORD = 8
MAX_PASSWORD_BYTES = 1024
# Attackers try the name of the software first (OWASP ASVS 5.0, V6.2.11).
_OWN_WORDS = frozenset({"stormcellar"})

# OWASP Password Storage Cheat Sheet: m = 19 MiB, t = 2, p = 1.
ARGON2 = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def normalise(password: str) -> str | None:
    """Return *password* in NFKC, or None if it is empty, over 1024 bytes or not encodable.

    The length is checked first, so that a long text is not normalised.
    """
    try:
        fits = 0 < len(password.encode()) <= MAX_PASSWORD_BYTES
    except UnicodeEncodeError:
        return None
    return unicodedata.normalize("NFKC", password) if fits else None


def require_good(password: str, *, user: str) -> None:
    """Refuse a new *password* that is easy to guess, or that sign-in would not accept. No composition rules.

    Args:
        user: The canonical name of its account.

    Raises:
        PasswordRefused: The message is for the user, and does not contain the password.
    """
    plain = normalise(password)
    if password and plain is None:
        raise PasswordRefused(f"Use a shorter password: it can have at most {MAX_PASSWORD_BYTES} bytes.")
    # Both lengths count: NFKC turns some single characters into eighteen.
    if plain is None or min(len(password), len(plain)) < MIN_NEW_PASSWORD:
        raise PasswordRefused(
            f"Use at least {MIN_NEW_PASSWORD} characters; several words are easy to remember."
        )
    word = folded(plain)
    if word == user:
        raise PasswordRefused("Use something other than the account name.")
    if word in _OWN_WORDS or word in _common_passwords():
        raise PasswordRefused("This one is too common: attackers try it first. Use another.")


@cache
def _common_passwords() -> frozenset[str]:
    text = Path(__file__).with_name("common-passwords.txt").read_text(encoding="utf-8")
    _licence, _, words = text.partition("\n\n")
    return frozenset(words.splitlines())


class PasswordChecker:
    """Hashes and verifies passwords; one for the whole process.

    Args:
        workers: How many hashes run at once; each takes 19 MiB, one with other parameters at most 256 MiB.
        queue: How many more can wait, of known origins and of others each: see `HashingQueue`.
        argon2_hasher: The parameters; a hash with other parameters is outdated.
    """

    def __init__(
        self, *, workers: int = 2, queue: int = 64, argon2_hasher: argon2.PasswordHasher = ARGON2
    ) -> None:
        self._argon2 = argon2_hasher
        self._queue = HashingQueue(workers, queue)
        cost = f"m={argon2_hasher.memory_cost},t={argon2_hasher.time_cost},p={argon2_hasher.parallelism}"
        parameters = f"$argon2id$v={ARGON2_VERSION}${cost}$"
        self.form = HashForm(parameters, argon2_hasher.salt_len, argon2_hasher.hash_len)
        """The form of the hashes that `hash` returns."""
        self._nothing = self.form.hash_of_nothing()

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether *password* has the hash *stored*, with any parameters within the limits of `form_of`.

        None takes as long as a hash with the current parameters, and gives False. A hash over the limits is
        not computed: it matches nothing.

        Raises:
            Busy: The queue is full; nothing was hashed.
        """
        plain, hashed = normalise(password), self._nothing if stored is None else stored
        if plain is None or not _is_verifiable(hashed):
            return False
        return await self._queue.run(self._matches, hashed, plain) and stored is not None

    async def hash(self, password: str) -> str:
        """Return the hash of *password*.

        Raises:
            ValueError: The password is empty, too long or not encodable.
            Busy: The queue is full; nothing was hashed.
        """
        return await self._queue.run(hash_password, password, self._argon2)

    def is_outdated(self, stored: str) -> bool:
        """Whether *stored* was made with parameters other than the current ones."""
        return self._argon2.check_needs_rehash(stored)

    def close(self) -> None:
        """Accept no more work; hashes that are running finish."""
        self._queue.close()

    def _matches(self, stored: str, plain: str) -> bool:
        try:
            return self._argon2.verify(stored, plain)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False


def _is_verifiable(hashed: str) -> bool:
    try:
        form_of(hashed)
    except ValueError:
        return False
    return True


def hash_password(password: str, argon2_hasher: argon2.PasswordHasher = ARGON2) -> str:
    """Return the argon2id hash of *password* as a PHC string; takes tens of milliseconds.

    Raises:
        ValueError: The password is empty, over 1024 bytes or not encodable.
    """
    plain = normalise(password)
    if plain is None:
        raise ValueError(f"a password must have 1 to {MAX_PASSWORD_BYTES} bytes of UTF-8")
    return argon2_hasher.hash(plain)

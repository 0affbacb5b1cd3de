"""Password hashing: argon2id, off the event loop, on a bounded executor with a bounded queue."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import argon2

from server.errors import Busy

T = TypeVar("T")

MAX_PASSWORD_BYTES = 1024

# OWASP Password Storage Cheat Sheet: m = 19 MiB, t = 2, p = 1.
ARGON2 = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def normalise(password: str) -> str | None:
    """Return *password* in NFKC, or None if it is empty, over 1024 bytes or not encodable.

    The length is judged first, so that nobody makes us normalise a megabyte.
    """
    try:
        fits = 0 < len(password.encode()) <= MAX_PASSWORD_BYTES
    except UnicodeEncodeError:
        return None
    return unicodedata.normalize("NFKC", password) if fits else None


class PasswordChecker:
    """Hashes and verifies passwords for the whole process.

    Args:
        workers: How many hashes run at once, each with 19 MiB.
        queue: How many more may wait.
        argon2_hasher: The parameters; a hash made with others is outdated.
    """

    def __init__(
        self, *, workers: int = 2, queue: int = 64, argon2_hasher: argon2.PasswordHasher = ARGON2
    ) -> None:
        self._argon2 = argon2_hasher
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="password")
        self._limit = workers + queue
        self._running = 0
        # Verified for unknown and disabled users, so that they take as long as the others.
        self._dummy = argon2_hasher.hash(secrets.token_urlsafe(32))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether *password* has the hash *stored*; None takes as long and is always False.

        Raises:
            Busy: The queue is full; nothing was hashed.
        """
        plain = normalise(password)
        if plain is None:
            return False
        matches = await self._run(self._matches, self._dummy if stored is None else stored, plain)
        return matches and stored is not None

    async def hash(self, password: str) -> str:
        """Return the hash of *password*.

        Raises:
            ValueError: The password is empty, too long or not encodable.
            Busy: The queue is full; nothing was hashed.
        """
        return await self._run(hash_password, password, self._argon2)

    def is_outdated(self, stored: str) -> bool:
        """Whether *stored* was made with other parameters than today's."""
        return self._argon2.check_needs_rehash(stored)

    def close(self) -> None:
        """Let running hashes end and take no more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., T], *args: object) -> T:
        if self._running >= self._limit:
            raise Busy("too many sign-ins at once")
        future = asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args))
        self._running += 1
        # Counted until the thread is done, also where the caller was cancelled.
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._running -= 1
        if not future.cancelled():
            future.exception()  # seen, also where nobody waits any more

    def _matches(self, stored: str, plain: str) -> bool:
        try:
            return self._argon2.verify(stored, plain)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False


def hash_password(password: str, argon2_hasher: argon2.PasswordHasher = ARGON2) -> str:
    """Return the argon2id hash of *password* as a PHC string; takes tens of milliseconds.

    Raises:
        ValueError: The password is empty, over 1024 bytes or not encodable.
    """
    plain = normalise(password)
    if plain is None:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD_BYTES} bytes of UTF-8")
    return argon2_hasher.hash(plain)

"""Argon2id hashes as text: their form, what they cost, and hashes that no password has."""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b64encode
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

MAX_MEMORY_KIB = 256 * 1024
MAX_WORK_KIB = 1024 * 1024
"""Memory times passes: about 27 times the work of the current parameters."""
MAX_LANES = 16

# The PHC string format. libargon2 accepts no leading zeros, salts from 8 bytes and digests from 4 bytes.
_NUMBER = "([1-9][0-9]{0,9})"
_HASH = re.compile(
    rf"(\$argon2id(?:\$v=1[69])?\$m={_NUMBER},t={_NUMBER},p={_NUMBER}\$)"
    r"([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{6,171})"
)


class HashForm(NamedTuple):
    """What determines how long a hash takes to verify."""

    parameters: str
    """The hash up to its salt, such as `$argon2id$v=19$m=19456,t=2,p=1$`."""
    salt_bytes: int
    digest_bytes: int

    def hash_of_nothing(self) -> str:
        """Return a random hash of this form, which no password has. It is not computed."""
        salt, digest = secrets.token_bytes(self.salt_bytes), secrets.token_bytes(self.digest_bytes)
        return f"{self.parameters}{_unpadded(salt)}${_unpadded(digest)}"


def form_of(hashed: str) -> HashForm:
    """Return the form of an argon2id hash in the PHC string format.

    Raises:
        ValueError: It is no such hash, or it costs more than the limits above allow. The message does not
            contain the hash.
    """
    match = _HASH.fullmatch(hashed)
    if match is None:
        raise ValueError("is not an argon2id hash")
    memory_kib, passes, lanes = int(match[2]), int(match[3]), int(match[4])
    if memory_kib > MAX_MEMORY_KIB or memory_kib * passes > MAX_WORK_KIB or lanes > MAX_LANES:
        raise ValueError(
            f"costs too much (m={memory_kib},t={passes},p={lanes}): m can be at most {MAX_MEMORY_KIB} KiB, "
            f"m times t {MAX_WORK_KIB}, p {MAX_LANES}"
        )
    if memory_kib < 8 * lanes:
        raise ValueError("is not an argon2id hash: m must be at least 8 times p")
    return HashForm(match[1], len(match[5]) * 3 // 4, len(match[6]) * 3 // 4)


class Decoys:
    """Hashes to verify for names without an account, so that they take as long as those with one.

    A name always has a hash of the same form. The forms occur as often as among the accounts, so the time of
    a wrong sign-in is no evidence for or against an account.

    Args:
        hashes: The hashes of the accounts.
        key: Secret; with it, the form of a name could be computed.
        otherwise: The form if there are no accounts.

    Raises:
        ValueError: See `form_of`.
    """

    def __init__(self, hashes: Iterable[str], *, key: bytes, otherwise: HashForm) -> None:
        counts = Counter(map(form_of, hashes)) or Counter([otherwise])
        forms = sorted(counts)
        self._decoys = [form.hash_of_nothing() for form in forms]
        self._ends = list(accumulate(counts[form] for form in forms))
        self._key = key

    def of(self, name: str) -> str:
        """Return the hash for *name*."""
        digest = hmac.digest(self._key, name.encode(errors="surrogatepass"), "sha256")
        place = int.from_bytes(digest[:8], "big") * self._ends[-1] >> 64
        return self._decoys[bisect_right(self._ends, place)]


def _unpadded(raw: bytes) -> str:
    return b64encode(raw).decode().rstrip("=")

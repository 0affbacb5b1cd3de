"""Form tokens: proof that a form was rendered for the browser that sends it.

A token is an HMAC over a value in an HttpOnly cookie: the secret of the session ID, or, before a session
exists, a nonce. Each token is masked anew, so that compression reveals nothing (BREACH).
Source: OWASP CSRF Prevention Cheat Sheet, signed double submit bound to the session.
"""

from __future__ import annotations

import hmac
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

_SIZE = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{86}")


class FormTokens:
    """Makes and checks form tokens.

    Args:
        keys: 32 bytes each, for this purpose alone. The first makes tokens, all check them.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = list(keys)

    def make(self, basis: str) -> str:
        """Return a new token for the browser that holds *basis*; 86 characters of base64url."""
        mask = os.urandom(_SIZE)
        return urlsafe_b64encode(mask + _xor(mask, _mac(self._keys[0], basis))).rstrip(b"=").decode()

    def check(self, token: str, basis: str) -> bool:
        """Whether *token* was made for *basis*. Compares in constant time."""
        if not _TOKEN.fullmatch(token):
            return False
        raw = urlsafe_b64decode(token + "==")
        presented = _xor(raw[:_SIZE], raw[_SIZE:])
        # Every key is tried, so that the time does not depend on which one matches.
        return sum([hmac.compare_digest(presented, _mac(key, basis)) for key in self._keys]) > 0


def _mac(key: bytes, basis: str) -> bytes:
    return hmac.digest(key, basis.encode(), "sha256")


def _xor(mask: bytes, value: bytes) -> bytes:
    return (int.from_bytes(mask) ^ int.from_bytes(value)).to_bytes(_SIZE)

"""`KeyRing`: the keys that sign cookies. The format is that of Tornado's signed values, version 2."""

from __future__ import annotations

import hashlib
import hmac
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from functools import lru_cache

# The length of a session ID in base64; the end of a signed value is that, a bar, and the MAC in hexadecimal.
_LENGTH = 88
_END = _LENGTH + 1 + 64


class KeyRing:
    """Signing keys in order: the first signs, all verify.

    The version of a key is the first two bytes of its SHA-256, so adding or dropping another key changes
    nothing.

    Raises:
        ValueError: There is no key, a key is shorter than 32 bytes, or two keys have the same version.
    """

    def __init__(self, keys: Sequence[bytes | str]) -> None:
        if isinstance(keys, bytes | str) or not keys:
            raise ValueError("secrets must be a non-empty list of signing keys, the first of which signs")
        self._keys: dict[int, bytes] = {}
        for key in (k.encode() if isinstance(k, str) else k for k in keys):
            if len(key) < 32:
                raise ValueError(f"a signing key has {len(key)} bytes; at least 32 are needed")
            version = int.from_bytes(hashlib.sha256(key).digest()[:2], "big")
            if version in self._keys:
                raise ValueError("two signing keys have the same version; replace one of them")
            self._keys[version] = key
        self.first = next(iter(self._keys))
        # Copying a keyed HMAC takes half as long as keying a new one.
        keyed = {version: hmac.new(key, digestmod="sha256") for version, key in self._keys.items()}
        self._first_keyed = keyed[self.first]
        self._begin = f"2|{len(str(self.first))}:{self.first}|"
        self._by_head = {f"2|{len(str(version))}:{version}": each for version, each in keyed.items()}

    def sign(self, name: str, value: str, *, clock: Callable[[], float]) -> str:
        """Return *value* signed for the cookie *name*, byte for byte as `tornado.web.create_signed_value`."""
        encoded, time = b2a_base64(value.encode(), newline=False).decode(), str(int(clock()))
        signed = f"{self._begin}{len(time)}:{time}|{len(name)}:{name}|{len(encoded)}:{encoded}|"
        return signed + _mac(self._first_keyed, signed.encode())

    def verify(self, name: str, value: str) -> tuple[bytes, int] | None:
        """Return the signed bytes of the cookie *name* and when they were signed (Unix time in seconds).

        Accepts session IDs only; of these it accepts what `tornado.web.decode_signed_value` accepts::

            2|length:version|length:time|length:name|88:session ID in base64|MAC

        Returns:
            None if anything is wrong. The age is not checked.
        """
        middle, begin, signed = _middle(name), value[:-_END], value[-_END:-64]
        head, _, stamp = begin[: len(begin) - len(middle)].rpartition("|")
        length, _, time = stamp.partition(":")
        keyed, has_time = self._by_head.get(head), time.isdigit() and length == str(len(time))
        has_shape = begin.endswith(middle) and signed.endswith("|") and value.isascii()
        if keyed is None or not (has_time and has_shape):
            return None
        if not hmac.compare_digest(value[-64:], _mac(keyed, value[:-64].encode())):
            return None
        try:
            return a2b_base64(signed[:-1]), int(time)
        except ValueError:
            return None

    def derive(self, purpose: str) -> list[bytes]:
        """Return a separate key for *purpose* from each signing key, in their order."""
        return [hmac.digest(key, f"stormcellar {purpose}".encode(), "sha256") for key in self._keys.values()]

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)}>"


def _mac(keyed: hmac.HMAC, message: bytes) -> str:
    mac = keyed.copy()
    mac.update(message)
    return mac.hexdigest()


@lru_cache(maxsize=16)
def _middle(name: str) -> str:
    """Return the part between the time and the session ID."""
    return f"|{len(name)}:{name}|{_LENGTH}:"

"""`KeyRing`: the keys that sign cookies, and Tornado's signed values (format 2) made and read by them."""

from __future__ import annotations

import hashlib
import hmac
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from functools import lru_cache

from tornado.web import decode_signed_value

# Of a session ID in base64, of a Unix time in seconds until the year 2286, and of what ends a signed value:
# the session ID, a bar and the MAC in hexadecimal.
_LENGTH, _TIME = 88, 10
_END = _LENGTH + 1 + 64


class KeyRing:
    """Signing keys in order: the first signs, all verify.

    A key's version is the first two bytes of its SHA-256, so adding or dropping another key changes nothing.

    Raises:
        ValueError: No key, one shorter than 32 bytes, or two with one version.
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
        # Copied for each use, which takes half as long as to begin with the key.
        self._keyed = {version: hmac.new(key, digestmod="sha256") for version, key in self._keys.items()}
        self._begin = f"2|{len(str(self.first))}:{self.first}|"
        self._by_head = {
            f"2|{len(str(version))}:{version}|{_TIME}:": keyed for version, keyed in self._keyed.items()
        }

    def sign(self, name: str, value: str, *, clock: Callable[[], float]) -> str:
        """Return *value* signed for the cookie *name*: byte for byte what `create_signed_value` makes."""
        encoded, time = b2a_base64(value.encode(), newline=False).decode(), str(int(clock()))
        signed = f"{self._begin}{len(time)}:{time}|{len(name)}:{name}|{len(encoded)}:{encoded}|"
        return signed + _mac(self._keyed[self.first], signed.encode())

    def verify(self, name: str, value: str, *, max_age_s: float, clock: Callable[[], float]) -> bytes | None:
        """Return what was signed for the cookie *name*, or None if anything about it is wrong or too old.

        Says what `decode_signed_value` says, which is asked of whatever is not `opened`.
        """
        opened, days = self.opened(name, value), max_age_s / 86_400
        if opened is None:
            # min_version=2, or a dict of keys makes any junk cookie an AssertionError (tornado.web, 6.6.1).
            return decode_signed_value(self._keys, name, value, days, clock=clock, min_version=2)
        return opened[0] if opened[1] >= clock() - days * 86_400 else None

    def opened(self, name: str, value: str) -> tuple[bytes, int] | None:
        """Return what was signed for the cookie *name*, and when (Unix time in seconds), whatever its age.

        None if anything is wrong, or if it does not have the shape of our own::

            2|length:version|10:time|length:name|88:session ID in base64|MAC
        """
        middle, begin, signed = _middle(name), value[:-_END], value[-_END:-64]
        until = len(begin) - len(middle)
        time, keyed = begin[until - _TIME : until], self._by_head.get(begin[: until - _TIME])
        is_ours = begin.endswith(middle) and signed.endswith("|") and time.isdigit() and value.isascii()
        if keyed is None or not is_ours:
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
    """Return what stands between the time and the session ID in a value of our own shape."""
    return f"|{len(name)}:{name}|{_LENGTH}:"

"""`TallyKeys`: the keys of the tallies of a sign-in attempt, which reveal neither name nor address."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from stormcellar.accounts.account_names import canonical_name
from stormcellar.networks import Network, networks_of

_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """The keys of the tallies of one account and one device."""

    known: str
    """The tally that exists if the device is known to the account."""
    pair: str
    newcomers: str
    """Counts the devices that become known to the account."""


@dataclass(frozen=True, slots=True)
class AttemptKeys:
    """The keys of the tallies of one attempt."""

    pair: str
    networks: Mapping[str, Network]
    """From the narrowest to the widest."""
    failures: str
    account: str
    overall: str
    known: str
    """The tally that exists if the address is known to the account."""


class TallyKeys:
    """Makes keys: HMAC-SHA256 of account, address and device. Users mistype passwords into the name field.

    All names that are not valid share one account.

    Args:
        key: 32 bytes, used for nothing else.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def fingerprint(self, name: str) -> str:
        """Return 12 hexadecimal digits that identify *name* without revealing it."""
        return self._mac("name", canonical_name(name) or name).hex()[:12]

    def of_attempt(self, name: str, address: str, *, since_ms: int, now_ms: int) -> AttemptKeys:
        """Return the keys of an attempt for *name* from *address*.

        Args:
            since_ms: When the account was changed last.
        """
        account, networks = canonical_name(name) or "", networks_of(address)
        origin = networks[0].name
        # Soft limits count by the clock hour: a window that each failure extends would never end.
        hour = str(now_ms // _HOUR_MS)
        return AttemptKeys(
            pair=self._text("pair", account, origin),
            networks={self._text("address", each.name): each for each in networks},
            failures=self._text("failures", account, str(since_ms)),
            account=self._text("account", account, hour),
            overall=self._text("overall", hour),
            known=self._text("known", account, origin),
        )

    def of_device(self, name: str, token: str, *, since_ms: int) -> DeviceKeys:
        """Return the keys of the account *name* and the device with *token*.

        Args:
            since_ms: When the account was changed last; with another number no device is known.
        """
        account, since = canonical_name(name) or "", str(since_ms)
        return DeviceKeys(
            known=self._text("known device", account, since, token),
            pair=self._text("device pair", account, since, token),
            newcomers=self._text("newcomers", account, since),
        )

    def _text(self, kind: str, *parts: str) -> str:
        return urlsafe_b64encode(self._mac(kind, *parts)).rstrip(b"=").decode()

    def _mac(self, *parts: str) -> bytes:
        # A length before each part makes the message unambiguous.
        message = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.digest(self._key, message.encode(errors="surrogatepass"), "sha256")

"""The networks in which a client address is counted."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass

# A /64 is one link, such as a telephone. A provider gives a household a /56 and a company a /48 (RFC 6177).
# More people share a wider network, so its limit is higher; but one owner of a /48 has 65 536 networks of 64
# bits, so it is only a little higher.
_IPV6_SHARES = {64: 1.0, 56: 1.5, 48: 2.0}


@dataclass(frozen=True, slots=True)
class Network:
    """A network that counts as one client."""

    name: str
    share: float
    """The limit of the network, as a multiple of the limit of one address."""

    def limit(self, per_address: int) -> int:
        """Return the limit of the network, rounded up."""
        return math.ceil(per_address * self.share)


def networks_of(address: str) -> tuple[Network, ...]:
    """Return the networks that count *address*, the narrowest first.

    They are an IPv4 address alone, and the /64, /56 and /48 of an IPv6 address. Anything else, such as the
    peer of a Unix socket, is counted as written.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return (Network(address, 1.0),)
    if isinstance(parsed, ipaddress.IPv4Address):
        return (Network(str(parsed), 1.0),)
    if parsed.ipv4_mapped is not None:
        return (Network(str(parsed.ipv4_mapped), 1.0),)
    # From the number, without the scope (`%eth0`), which the client chooses.
    return tuple(_ipv6_network(int(parsed), length, share) for length, share in _IPV6_SHARES.items())


def _ipv6_network(number: int, length: int, share: float) -> Network:
    host_bits = 128 - length
    return Network(f"{ipaddress.IPv6Address(number >> host_bits << host_bits)}/{length}", share)

"""Addresses: who the client is behind trusted proxies, and what reaches this machine only."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(peer: str, forwarded_for: Sequence[str], proxies: Sequence[Network]) -> str:
    """Return the address of the client, as far as *proxies* vouch for it.

    Args:
        peer: Who opened the connection.
        forwarded_for: The X-Forwarded-For headers, of which only what a trusted proxy added counts.
        proxies: Networks that are trusted to say the truth; none by default.
    """
    address = peer
    hops = [hop.strip() for header in forwarded_for for hop in header.split(",")]
    for hop in reversed(hops):
        if not _is_in(address, proxies) or _parsed(hop) is None:
            break
        address = hop
    return address


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, is this machine as seen from itself."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    address = _parsed(host.strip("[]"))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address is not None and (mapped or address).is_loopback


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None

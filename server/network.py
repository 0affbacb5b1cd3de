"""Addresses: who the client is behind trusted proxies, and what reaches this machine only."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(peer: str, forwarded_for: Sequence[str], proxies: Sequence[Network]) -> str:
    """Return the address of the client, as far as *proxies* vouch for it.

    Args:
        peer: Who opened the connection.
        forwarded_for: The X-Forwarded-For headers, of which only what a trusted proxy added counts.
        proxies: Networks that are trusted to say the truth; none by default.
    """
    address = _parsed(peer)
    if address is None:
        return peer
    hops = [hop.strip() for header in forwarded_for for hop in header.split(",")]
    for hop in map(_parsed, reversed(hops)):
        if hop is None or not any(address in network for network in proxies):
            break
        address = hop
    return str(address)


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, is this machine as seen from itself."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    address = _parsed(host.removeprefix("[").removesuffix("]"))
    return address is not None and address.is_loopback


def _parsed(text: str) -> Address | None:
    """Return the address in *text*; an IPv4 address that is mapped into IPv6 as what it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    # Whatever follows the % of a scope was chosen by whoever wrote it.
    return None if address.scope_id is not None else address.ipv4_mapped or address

"""Addresses: who the client is behind trusted proxies, and what reaches this machine only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 1123, 2.1, with the underscore that names in private networks have; or an IPv6 address in brackets.
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*\.?|\[[0-9a-f:.]{{2,45}}\])(?::\d{{1,5}})?")


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
    hops = [_without_port(hop.strip()) for header in forwarded_for for hop in header.split(",")]
    for hop in map(_parsed, reversed(hops)):
        if hop is None or not any(address in network for network in proxies):
            break
        address = hop
    return str(address)


def host_name(host: str) -> str | None:
    """Return the name in a Host header, in one spelling: lower case, no port, no final dot.

    None if it is neither a name nor an address. An IPv6 address keeps its brackets.
    """
    match = _HOST.fullmatch(host.lower()) if len(host) <= 260 else None
    return match[1].removesuffix(".") if match else None


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether *address* is in one of *networks*."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, is this machine as seen from itself."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    address = _parsed(host.removeprefix("[").removesuffix("]"))
    return address is not None and address.is_loopback


def _without_port(hop: str) -> str:
    """Return *hop* without the port that some proxies add: `192.0.2.7:4711`, `[2001:db8::1]:4711`."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5})?|\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?", hop)
    return match[1] or match[2] if match else hop


@lru_cache(maxsize=256)
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
